#pragma once

#include <atomic>
#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <set>
#include <string>
#include <utility>
#include <vector>

#include "base/result.h"
#include "libmigrate/cell/cell.h"
#include "libmigrate/guest/core_watch.h"
#include "libmigrate/host/letter_request.h"
#include "libmigrate/host/worker_context.h"
#include "libmigrate/move/control_channel.h"
#include "libmigrate/move/doubt.h"
#include "libmigrate/move/page_transport.h"
#include "libmigrate/move/source_move.h"
#include "libmigrate/pages/drain_estimate.h"
#include "libmigrate/pages/one_sided_link.h"
#include "libmigrate/proto/session.pb.h"
#include "libmigrate/relay/guest_relay.h"
#include "libmigrate/relay/home_enquiry.h"
#include "libmigrate/requests/requests.h"
#include "libmigrate/restore/restorer.h"
#include "libmigrate/state/process_row.h"
#include "libmigrate/state/session_file.h"
#include "pager/pager.h"

namespace migrate {

/// The worker of a process that came from elsewhere: takes it in, keeps its pager and its link to
/// home, and moves it on when asked to. One thread, besides the pager's two.
class GuestWorker {
 public:
  GuestWorker(const WorkerContext& context, PeerTrust::Peer source, const SessionId& session,
              std::function<void(int connection)> become_worker);

  /// Does all of it. Returns when the move failed, or the process has ended or moved on.
  void run();
  /// The same from where a worker of this session ended that is dead.
  void run_adopted(SessionFile file);

 private:
  /// A request to be carried out when nothing is owed any more.
  struct PendingMove {
    MoveRequest request;
    EventSink sink;
  };

  Result<bool> take_in();
  Result<bool> receive_offer();
  Result<void> answer(const std::vector<wire::Refusal>& verdict);
  Result<void> prepare();
  Result<void> ask_clocks(CellOptions& options);
  Result<void> open_mailbox();
  Result<void> connect_home(int timeout_ms);
  Result<void> accept_data();
  Result<bool> await_connection(int timeout_ms);
  void accept_rdma();
  Result<void> restore();
  Result<void> check_untouched(const std::vector<PagerRegion>& regions) const;
  Result<void> check_final(const wire::Image& image);
  Result<void> start_pager(const wire::Image& image, const MappingPlan& plan);
  PagerOptions pager_options();
  Result<wire::Run> await_run();
  Result<wire::Run> run_process();
  void settle_in(const wire::Run& run);
  void give_up(const Error& error);
  // guest_adoption.cc: what a new worker needs, and how it goes on from it
  Result<void> note_image(const wire::Image& image);
  void note_change();
  void note_waits();
  void adopt_waits();
  Result<void> keep_relay_ends();
  Result<bool> adopt();
  Result<void> adopt_cell();
  Result<void> adopt_pager(std::vector<KeptDescriptor>& kept);
  Result<void> adopt_relay(std::vector<KeptDescriptor>& kept);
  void adopt_move();
  std::string cell_socket() const;
  void serve_until_end();
  void wait_for_events();
  void read_cell();
  void read_mailbox();
  void take_letter(Letter letter);
  void take_early_letter(Letter letter);
  void take_request(const std::string& text, EventSink sink, const PeerIdentity* home);
  void refuse_while_leaving(SourceMove& move, LetterRequest asked);
  void resolve_while_leaving(SourceMove& move, Resolution resolution, EventSink sink);
  void end_for_home(EventSink sink);
  void take_move(const nlohmann::json& request, Asker asker, EventSink sink);
  void check(const nlohmann::json& request, Asker asker, EventSink sink);
  // guest_rights.cc
  Result<Asker> believed(const nlohmann::json& request, const PeerIdentity* home) const;
  Result<void> may_use(const nlohmann::json& request, const PeerIdentity* home) const;
  Result<void> may_signal_now() const;
  void follow_pager();
  void report_end(int status, const std::string& lost);
  void end_children();
  void watch_core();
  void give_up_children(const std::string& reason);
  bool home_gave_up() const;
  Error ended_error() const;
  void end_given_up(const SourceMove& move);
  void hear_source();
  void await_goodbye();
  void follow_control();
  void record_exposure(const wire::Progress& progress);
  void follow_home();
  void resume_pages();
  void watch_waiting();
  void move_on();
  SourceMove::Hooks onward_hooks();
  void finish_move(SourceMove& move, EventSink& sink, MoveWait wait);
  bool settle_doubt(SourceMove& move, EventSink& sink);
  void ask_home(SourceMove& move);
  void serve_until_left(SourceMove& move, EventSink& sink, MoveWait wait);
  bool waits_too_long(const SourceMove& move) const;
  void read_mailbox_while_leaving(SourceMove& move);
  void send_verdict();
  void close_session();
  void deliver(std::span<const std::byte> siginfo);
  wire::Progress progress() const;
  KnownObjects known_objects() const;
  SourceMoveOptions onward_options(const MovePlan& plan) const;
  GuestPhase phase() const { return file_->mark().phase.guest(); }
  void enter(GuestPhase phase, int wait_status = SessionPhase::kKilled);
  void record();
  bool independent() const { return file_ && is_independent(phase()); }
  bool gone() const { return has_left(phase()); }
  bool children_left() const { return !cell_over_ && lost_.empty(); }

  const WorkerContext& context_;
  const SessionId session_;
  PeerIdentity source_;  // who offered the process
  const std::function<void(int connection)> become_worker_;
  std::unique_ptr<ControlChannel> control_;
  wire::Offer offer_;
  MovePlan plan_;
  bool trusted_ = false;  // the source may bring root's processes
  wire::HostFacts own_facts_;
  ClockOffsets host_clocks_;
  std::int64_t cell_offset_ns_ = 0;  // CLOCK_MONOTONIC of the cell minus ours
  SessionId process_{};
  std::optional<SessionFile> file_;
  wire::CellSession noted_;  // the file's text
  std::set<std::pair<Kept::Kind, std::uint32_t>> kept_ends_;
  std::optional<Mailbox> mailbox_;
  EarlyLetters early_;
  std::optional<ProcessRow> row_;
  std::optional<Cell> cell_;
  std::optional<Restorer> restorer_;
  UniqueFd userfault_copy_;                    // for the cell's init
  std::atomic<std::uint64_t> pages_read_ = 0;  // by RDMA READ
  std::unique_ptr<Pager> pager_;
  UniqueFd pager_events_;
  std::atomic<bool> pager_done_ = false;
  std::atomic<bool> link_lost_ = false;
  std::unique_ptr<RdmaListener> rdma_;  // until nothing is owed
  int rdma_refusals_ = 0;
  std::unique_ptr<Channel> urgent_;
  std::unique_ptr<Channel> bulk_;
  std::unique_ptr<Channel> home_channel_;
  std::unique_ptr<GuestRelay> relay_;
  std::unique_ptr<HomeEnquiry> enquiry_;  // while it is in doubt where the process runs
  std::map<std::uint64_t, std::uint64_t> relay_inodes_;
  std::vector<WaitRecord> waits_;  // of the threads when they came
  std::vector<PendingMove> pending_moves_;
  std::map<std::uint64_t, UniqueFd> shared_files_;  // by OpenFile.shared_id
  wire::Progress last_progress_;
  DrainEstimate drain_;
  std::int64_t next_progress_us_ = 0;
  std::int64_t next_home_us_ = 0;
  std::int64_t last_heard_us_ = 0;  // on control_
  std::int64_t over_since_us_ = 0;  // when cell_over_ became true
  bool source_knows_ = false;       // that nothing is owed to it
  bool cell_kept_ = false;          // the init is there and holds what a new worker needs
  bool cell_over_ = false;
  bool exited_ = false;      // and its home was told how
  Decision decision_;        // of an operator, about a doubt
  bool home_ended_ = false;  // its home says that it is over
  bool give_up_ = false;     // an operator knows that the destination is lost
  std::int64_t waits_since_us_ = 0;
  std::int64_t home_lost_us_ = 0;  // when the link to the home was lost; 0: it is there
  CoreWatch core_watch_;
  std::string lost_;  // why the process did not end by itself
};

}  // namespace migrate
