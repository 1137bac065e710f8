#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <nlohmann/json.hpp>
#include <span>
#include <string>
#include <vector>

#include "base/clock.h"
#include "base/result.h"
#include "libmigrate/cell/cell_control.h"
#include "libmigrate/guest/core_watch.h"
#include "libmigrate/guest/guest_objects.h"
#include "libmigrate/guest/guest_record.h"
#include "libmigrate/guest/home_link.h"
#include "libmigrate/guest/owed_pages.h"
#include "libmigrate/guest/source_link.h"
#include "libmigrate/host/worker_context.h"
#include "libmigrate/move/clocks.h"
#include "libmigrate/pages/drain_estimate.h"
#include "libmigrate/rights/asker.h"
#include "transport/peer_trust.h"

namespace migrate {

/// A process that came from elsewhere, as its worker has it, whatever phase it is in: what is
/// written down of it, its cell, its pages, its links, and how it ended. The phases that the worker
/// runs (GuestServing, GuestInDoubt, GuestLeaving) decide; this does. Owned by the worker's thread.
class Guest {
 public:
  /// `source`: who offered it. `clock` gives microseconds that only grow.
  Guest(const WorkerContext& context, const SessionId& session, const SessionId& process,
        PeerIdentity source, GuestRecord record, std::function<std::int64_t()> clock = now_us);
  Guest(const Guest&) = delete;
  Guest& operator=(const Guest&) = delete;
  ~Guest();

  // What it is made of, which whoever takes it in or over sets.
  void set_cell(std::unique_ptr<CellControl> cell) { cell_ = std::move(cell); }
  void set_pages(std::unique_ptr<OwedPages> pages) { pages_ = std::move(pages); }
  void set_home(std::unique_ptr<HomeLink> home) { home_ = std::move(home); }
  /// A dead worker has told its home of its end.
  void note_exited() { in_cell_ = InCell::kChildren; }
  /// The relay's calls to this.
  GuestRelay::Handlers relay_handlers();

  const WorkerContext& context() const { return context_; }
  const SessionId& session() const { return session_; }
  const SessionId& process() const { return process_; }
  const PeerIdentity& source_host() const { return source_host_; }
  const std::string& name() const { return record_.noted().command(); }
  GuestRecord& record() { return record_; }
  GuestPhase phase() const { return record_.phase(); }
  CellControl* cell() const { return cell_.get(); }
  OwedPages& pages() const { return *pages_; }
  SourceLink& source() { return source_; }
  HomeLink& home() const { return *home_; }
  GuestObjects& objects() { return objects_; }
  std::int64_t now() const { return clock_(); }

  bool independent() const { return is_independent(phase()); }
  /// It has ended, and its home is told how. Children of it may live.
  bool exited() const { return in_cell_ != InCell::kProcess; }
  /// Nothing of it is in the cell any more.
  bool cell_over() const { return in_cell_ == InCell::kNothing; }
  /// Nothing is left to do but to close(): its end is known at home, and its source, which would
  /// serve pages for ever, has heard of it or had the time to come back.
  bool is_over() const;

  // Steps of whoever runs it. None blocks but follow_home(), as HomeLink::follow() does.
  void read_cell();
  void watch_core();
  void follow_pages();
  void watch_waiting();
  void tell_source();
  void hear_source();
  void follow_home();

  /// Delivers a signal of its home, a siginfo_t, as kill(2) would.
  void deliver(std::span<const std::byte> siginfo);
  /// It has ended with `status` of wait(2). `lost`: why it did not end by itself, if so.
  void report_end(int status, const std::string& lost);
  /// The source has come again, on a new connection.
  void answer_source(std::unique_ptr<ControlChannel> control, bool wants_all);
  /// Notes what a new worker needs, whenever the relay has changed.
  void note_change();
  /// Nothing is owed any more: its init is to close what it holds of its memory. Where it does not
  /// take that, it is told again by follow_pages().
  void let_go_of_pages();
  /// Nobody needs to take over. Unless the source knows all, a note of what became of the process
  /// stays for it: whoever finds none may say that the process never ran.
  void close();
  /// For a request to a process that has ended.
  Error ended_error() const;

  // guest_rights.cc
  /// In whose name a request is made. Of a client here the daemon says who he is. A home from which
  /// root's processes are taken is believed; any other (`home`) speaks for nobody but the process's
  /// own user, its root included. Errors: kRefused, kInvalid.
  Result<Asker> believed(const nlohmann::json& request, const PeerIdentity* home) const;
  /// Whether whoever makes the request could attach a debugger to the process.
  Result<void> may_use(const nlohmann::json& request, const PeerIdentity* home) const;
  /// Whether the user that the process had when it came could send it any signal now.
  Result<void> may_signal_now() const;
  /// Whether the process is still wholly that user's, and nobody else's to be told tales: the user
  /// can make his deputy say that a signal is of anybody.
  bool is_its_users() const;
  /// The same of everything that is left in its cell once it has ended.
  Result<void> may_end_children();

 private:
  /// What is in the cell, as far as this worker has taken note: the init is the first to know that
  /// the process has ended, and says so in the record.
  enum class InCell : std::uint8_t {
    kProcess,   ///< The process, as nobody has said that it has ended.
    kChildren,  ///< It has ended; children of it may be there.
    kKilled,    ///< It has ended, and its cell is being ended with it, children and all.
    kNothing,
  };

  void note_event(const CellEvent& event);
  void become_independent();
  void drop_again();
  void end_children();
  void give_up_children(const std::string& reason);
  /// Once it has ended. Before, nobody knows.
  bool children_left() const {
    return in_cell_ == InCell::kProcess || in_cell_ == InCell::kChildren;
  }
  bool home_gave_up() const;
  bool reports_wait(std::int64_t now);
  void record_exposure(const wire::Progress& progress);
  wire::Progress progress() const;

  const WorkerContext& context_;
  const SessionId session_;
  const SessionId process_;
  const PeerIdentity source_host_;
  const std::function<std::int64_t()> clock_;
  GuestRecord record_;
  std::unique_ptr<CellControl> cell_;
  std::unique_ptr<OwedPages> pages_;
  SourceLink source_;
  std::unique_ptr<HomeLink> home_;
  GuestObjects objects_;
  CoreWatch core_watch_;
  DrainEstimate drain_;
  wire::Progress last_progress_;     // when nothing was owed any more
  std::int64_t waits_since_us_ = 0;  // for its pages; 0: it does not
  InCell in_cell_ = InCell::kProcess;
  std::int64_t over_since_us_ = 0;  // since when kNothing
  std::string lost_;                // why the process did not end by itself
  std::vector<Kept> to_drop_;       // what its init holds and must not any more
};

}  // namespace migrate
