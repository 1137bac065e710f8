#pragma once

#include <signal.h>
#include <sys/types.h>

#include <functional>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "base/mapping.h"
#include "base/unique_fd.h"
#include "libmigrate/guest/guest_world.h"
#include "libmigrate/host/worker_context.h"
#include "libmigrate/move/control_channel.h"
#include "libmigrate/relay/home_relay.h"
#include "libmigrate/state/session_file.h"
#include "tests/libmigrate/guest/stand_ins.h"
#include "tests/libmigrate/guest/state_directory.h"
#include "transport/memory_channel.h"

namespace migrate {

/// A process that does nothing but wait for its end, which comes with this at the latest.
class IdleProcess {
 public:
  IdleProcess();
  ~IdleProcess();
  IdleProcess(const IdleProcess&) = delete;
  IdleProcess& operator=(const IdleProcess&) = delete;

  pid_t id() const { return id_; }
  /// Kills it, and leaves it to be reaped by its parent, this process.
  void kill();

 private:
  const pid_t id_;
};

/// What is around the worker of a guest on its host: a state directory, and stand-ins for what
/// GuestWorld makes. What is done with the process is written down with the phase that the record
/// was in, as "release in Kept".
class ArrivalWorld {
 public:
  ArrivalWorld();

  GuestWorld world();
  /// The source's connection, as the daemon passes it on, and its other end.
  PeerTrust::Peer connect_source();
  /// The offer of a process that this host takes, and the image to that.
  wire::Offer offer() const;
  wire::Image final_image() const;
  bool has(const std::string& step) const;
  /// The steps of letting the process go, and no others.
  std::vector<std::string> steps_to_run() const;
  std::string session_path() const;
  std::string phase() const;

  /// Notes a step in the record's phase. Fails if the test wants that.
  Result<void> take_step(const std::string& step);

  StateDirectory directory;
  WorkerContext context;
  SessionId session{};
  IdleProcess seed;
  IdleProcess init;
  std::vector<std::string> steps;
  std::string step_to_fail;
  std::string filled;  ///< What came for memory files.
  std::function<void(const std::string& step)> on_step = [](const std::string&) {};
  int workers = 0;  ///< How often it became one.

  std::unique_ptr<ControlChannel> source;
  std::vector<CellEvent> cell_events;      ///< What the init will say.
  std::optional<Kept::Kind> kind_to_fail;  ///< What the init never keeps.
  UniqueFd userfault;                      ///< The cell's; none: memory cannot be registered.
  bool cell_ends = true;                   ///< When it is ended.
  CellOptions cell_options;                ///< With which it was made.
  StandInCell* cell = nullptr;             ///< The guest's.
  Mapping mark;                            ///< Of the record.
  std::unique_ptr<HomeRelay> home;
  std::optional<wire::RelayExited> exited;  ///< What the home heard.

  // What the source's half does; each to be called in its turn.
  void send_offer(const wire::Offer& offer) const;
  /// Waits for the reply, and connects for pages.
  void connect_pages();
  /// One message over the connection by which pages are pushed.
  void send_bulk(std::span<const std::byte> message) const;
  /// What comes back over it; empty: nothing, or it is broken.
  std::vector<std::byte> hear_bulk() const;
  void send_final() const { send_final(final_image()); }
  void send_final(const wire::Image& image) const;
  void send_run() const;
  /// Closes the connections for pages, as a source does that owes nothing.
  void close_pages() { pages_.clear(); }
  /// All of these until Run, which is not sent.
  void hand_over();
  /// What the guest's side says next; none if it has hung up.
  std::optional<wire::ControlMessage> hear() const;

 private:
  void connect(Purpose purpose);
  Result<NewCell> make_cell(const CellOptions& options);
  Result<std::unique_ptr<Channel>> call_home();

  std::vector<std::unique_ptr<Channel>> pages_;  // the source's ends
};

}  // namespace migrate
