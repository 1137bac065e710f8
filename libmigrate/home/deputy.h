#pragma once

#include <array>
#include <cstdint>
#include <memory>
#include <nlohmann/json.hpp>
#include <optional>
#include <vector>

#include "base/idle_pause.h"
#include "libmigrate/home/departed.h"
#include "libmigrate/home/forwards.h"
#include "libmigrate/home/process_end.h"
#include "libmigrate/home/real_files.h"
#include "libmigrate/policy/firewall.h"
#include "libmigrate/relay/home_relay.h"

namespace migrate {

/// Stands at home for a process that runs elsewhere: its relay, the requests that are passed on to
/// it, the clients who wait for its end, its pages and its deputy, and how it ended. The phases
/// HomeServing, HomeChildrenLeft and HomeEnded work with it in turn. Owned by the worker's thread.
class Deputy {
 public:
  /// Enters kServing, or kIndependent where nothing is owed. `caller`: a link to the process, if
  /// there is one. What the record tells of the relay is gone on with. `is_taken_over`: the worker
  /// before has told what it knew of the move, which is not told again.
  Deputy(const HomeSurroundings& around, HomeRecord& record, Asking& asking, Departed departed,
         RealFiles files, std::unique_ptr<Channel> caller, bool is_taken_over);
  Deputy(const Deputy&) = delete;
  Deputy& operator=(const Deputy&) = delete;
  ~Deputy() = default;

  /// Makes the parked process the deputy, and tells who waits that the process runs elsewhere. Was
  /// it killed, so is the process.
  Result<void> settle();

  /// Polls for the move, the relay and the forwards. Returns the longest time to wait in ms.
  int collect_poll_fds(std::vector<pollfd>& polled);
  /// The same, and for the signals of the deputy.
  int collect_poll_fds_of_deputy(std::vector<pollfd>& polled);
  /// Passes on to the process what stopped or killed the deputy, and the signals it got.
  void watch();
  /// Hears of the move, and shows and tells what is news of it.
  void follow_move();
  /// Only hears of it, so that the destination hears that we know.
  void hear_move();
  /// Moves what there is to move between clients, deputy and process.
  void pump();

  void attach(std::unique_ptr<Channel> channel) { relay_->attach(std::move(channel)); }
  void pass_on(nlohmann::json request, EventSink client);
  /// Errors: `asker` may not decide about the process.
  Result<void> may_resolve(const Asker& asker) const;
  /// Answers an operator; true if he may give the process up: its place does not answer, for which
  /// this blocks for up to ten seconds.
  bool lets_give_up(EventSink client, Resolution resolution);

  /// How the process ended; nothing while that is not known.
  const std::optional<ProcessEnd>& end() const { return end_; }
  /// It has ended so, if nobody knew before.
  void note_end(ProcessEnd end);
  /// The process has ended, see end(): so does its deputy, and everybody hears of it who waits.
  /// True: it left children, who are served further.
  bool end_deputy();
  /// Ends the keeper of its children, if there is one.
  void end_keeper();
  /// Enters kEnded: its children have ended, or are given up.
  void end_children();
  /// Nothing more is to be said to the place where it was.
  bool was_heard() const;
  /// Whoever still waits for a place's answer hears that the process has ended.
  void end_forwards() { forwards_.end(); }

  const HomeSurroundings& around() const { return around_; }
  HomeRecord& record() { return record_; }
  Departed& departed() { return departed_; }
  HomeRelay& relay() { return *relay_; }

 private:
  HomeRelay::Handlers relay_handlers();
  bool lets(LinkDirection direction, LinkProtocol protocol, const SocketName& local,
            const SocketName& peer);
  void note_rules();
  void read_signals();
  void pump_forwards();
  void note_relay();
  void close_stream(std::uint32_t id);
  void close_accepted(std::uint32_t descriptor);
  bool place_answers() const;
  ParkedHere* parked() const;
  bool serves_children() const;
  void leave_to_keeper();
  int look_in_ms();
  LastMove last_move() const;
  nlohmann::json outcome() const;
  void log_end() const;
  void tell_everybody();

  const HomeSurroundings& around_;
  HomeRecord& record_;
  Asking& asking_;
  Departed departed_;
  RealFiles files_;
  Forwards forwards_;
  std::unique_ptr<HomeRelay> relay_;
  std::vector<EndClient> end_clients_;
  std::optional<ProcessEnd> end_;
  std::int64_t next_progress_us_ = 0;
  IdlePause pause_;
  Firewall firewall_;
  std::uint64_t rules_noted_ = 0;  // how often they had been applied
  std::int64_t next_rules_us_ = 0;
  bool reported_done_ = false;  // that nothing is owed
};

/// siginfo of a signal that no one sent in words, such as a stop seen by wait(2).
std::array<std::byte, kSiginfoBytes> plain_siginfo(int signal);

}  // namespace migrate
