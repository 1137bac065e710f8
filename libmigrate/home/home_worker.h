#pragma once

#include <sys/types.h>

#include <array>
#include <cstddef>
#include <map>
#include <memory>
#include <optional>
#include <set>
#include <string>
#include <vector>

#include "base/result.h"
#include "libmigrate/home/forwards.h"
#include "libmigrate/home/real_files.h"
#include "libmigrate/host/mailbox.h"
#include "libmigrate/host/worker_context.h"
#include "libmigrate/move/doubt.h"
#include "libmigrate/move/source_move.h"
#include "libmigrate/proto/session.pb.h"
#include "libmigrate/relay/guest_relay.h"
#include "libmigrate/relay/home_relay.h"
#include "libmigrate/requests/requests.h"
#include "libmigrate/state/pid_lock.h"
#include "libmigrate/state/process_row.h"
#include "libmigrate/state/session_file.h"

namespace migrate {

/// The worker of a process at its home: moves it away for the first time, then is its deputy's
/// keeper until the process ends, wherever that is. One thread; the tracer of the process.
class HomeWorker {
 public:
  HomeWorker(const WorkerContext& context, UniqueFd client, MoveRequest request);

  /// Does all of it. Returns when the move was refused or failed, or the process has ended.
  void run();
  /// The same from where a worker of this process ended that is dead.
  void run_adopted(SessionFile file, const SessionId& process);

 private:
  Result<void> prepare();
  SourceMove::Hooks hooks();
  SourceMoveOptions move_options(const Address& destination) const;
  Result<void> open_mailbox();
  void take_children();
  bool settle_doubt();
  void note_change();
  void signal_deputy(int signal) const;
  void show_waiting();

  void close_stream(std::uint32_t id);

  // home_adoption.cc
  Result<bool> adopt();
  // home_children.cc
  bool serves_children() const;
  void leave_to_keeper(int wait_status);
  void follow_children();
  void watch_keeper();
  void watch_silence();
  void end_keeper();

  enum class Adopted {
    kRunsHere,  ///< Its move was not decided.
    kAway,
    kOver,
  };
  Result<Adopted> adopt_deputy();
  Result<Adopted> adopt_keeper(const SessionId& session);
  Adopted adopt_killed(const SessionId& session);
  Result<wire::Verdict> end_there(const SessionId& session);
  std::optional<wire::Verdict> ask_about_killed(const SessionId& session);
  void report_not_moved(MoveOutcome outcome);
  Result<void> become_deputy();
  void serve_until_end();
  void wait_for_events();
  void read_signals();
  void read_mailbox();
  void take_letter(Letter letter);
  void forward_request(Letter letter);
  Result<std::unique_ptr<Channel>> send_request(const Whereabouts& where,
                                                const nlohmann::json& request) const;
  bool place_answers() const;
  Result<void> may_resolve(const nlohmann::json& request) const;
  void resolve(EventSink client, Resolution resolution);
  void pump_forwards();
  void refuse_requests();
  void follow_move();
  void watch_deputy();
  void hear_of_end();
  void take_exit(const wire::RelayExited& exited);
  void hear_caller();
  void end_deputy(int wait_status);
  void add_core(nlohmann::json& result) const;
  nlohmann::json outcome() const;
  void tell_end(EventSink& client, nlohmann::json result) const;
  // home_phase.cc
  HomePhase phase() const { return file_->mark().phase.home(); }
  void enter(HomePhase phase, int wait_status = SessionPhase::kKilled);
  void record();

  const WorkerContext& context_;
  MoveRequest request_;
  EventSink sink_;
  SessionId process_{};
  std::string token_;
  std::string command_;
  Whereabouts where_;
  std::optional<PidLock> pid_lock_;
  std::optional<SessionFile> file_;
  wire::HomeSession noted_;  // the file's text
  std::optional<Mailbox> mailbox_;
  std::optional<ProcessRow> row_;
  std::unique_ptr<SourceMove> move_;
  std::optional<ParkedProcess> ending_;  // the deputy, when the keeper has taken its place
  RealFiles files_;
  std::unique_ptr<HomeRelay> relay_;
  std::unique_ptr<Channel> caller_;  // from where the process may be, before there is a relay
  std::optional<Forwards> forwards_;
  std::vector<EndClient> end_clients_;
  UniqueFd child_signals_;
  std::int64_t next_progress_us_ = 0;
  std::optional<int> exit_status_;
  std::string lost_;  // why it did not end by itself
  IncompleteCore core_;
  std::int64_t told_ended_us_ = 0;  // when the destination said so, other than by the relay
  Decision decision_;               // of an operator, about a doubt
  bool give_up_ = false;            // an operator knows that the destination is lost
  bool deputy_gone_ = false;
  bool children_ = false;       // descendants of it lived when it ended
  bool children_left_ = false;  // and are looked after
  bool keeper_lives_ = false;   // of their memory: move_->parked(), instead of the deputy
  bool keeper_lost_ = false;    // and they are told so
  std::int64_t heard_us_ = 0;   // of where they are
  bool reported_done_ = false;
};

/// siginfo of a signal that no one sent in words, such as a stop seen by wait(2).
std::array<std::byte, kSiginfoBytes> plain_siginfo(int signal);

/// The command line of a process with spaces between its words, or its name.
std::string command_line(pid_t pid);

/// Source side of `move`: runs in a forked worker; writes JSON event lines to `client` (a stream
/// socket or a pipe: use write, not send), returns when the process has been moved and has ended
/// (worker lives as deputy), closing `client` by itself once the wanted wait state was reported.
void run_source_worker(const WorkerContext& context, UniqueFd client, const MoveRequest& request);

/// Takes over, as a worker, what a dead one left in a session file.
void run_adopted_home(const WorkerContext& context, SessionFile file, const SessionId& process);

}  // namespace migrate
