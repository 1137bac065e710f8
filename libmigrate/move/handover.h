#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "base/clock.h"
#include "base/result.h"
#include "libmigrate/advisor/forecast.h"
#include "libmigrate/carriers/memory_content.h"
#include "libmigrate/host/worker_context.h"
#include "libmigrate/move/clocks.h"
#include "libmigrate/move/control_channel.h"
#include "libmigrate/move/copy_ahead.h"
#include "libmigrate/move/farewell.h"
#include "libmigrate/move/handover_options.h"
#include "libmigrate/move/handover_phase.h"
#include "libmigrate/move/keep_alive.h"
#include "libmigrate/move/kept_memory.h"
#include "libmigrate/move/move_outcome.h"
#include "libmigrate/move/move_report.h"
#include "libmigrate/move/outage.h"
#include "libmigrate/move/page_connections.h"
#include "libmigrate/pages/confirmed_pages.h"
#include "libmigrate/policy/travel.h"
#include "libmigrate/proto/session.pb.h"

namespace migrate {

/// The handover of a frozen process to one destination, from the offer until nothing is owed: the
/// session, what the destination says of the process, and the pages, over as many connections as it
/// takes. It knows nothing of the process here but its memory. Owned by one thread.
class Handover {
 public:
  /// The world around it; tests have another.
  struct World {
    /// Opens a connection of a session to the destination, and proves there what is to be proved.
    /// Blocks for a few seconds at most.
    std::function<Result<std::unique_ptr<Channel>>(Purpose, const SessionId&)> connect;
    /// What a new worker must know: before the freeze, once it runs there, when nothing is owed.
    std::function<Result<void>(const wire::Outgoing&)> note;
    /// kCancelled once whoever asked for the move wants it no more.
    std::function<Result<void>()> still_wanted = [] { return Result<void>(); };
    /// Microseconds; only grows.
    std::function<std::int64_t()> clock = now_us;
  };

  /// `memory` and `report` are borrowed and outlive this.
  Handover(HandoverOptions options, World world, KeptMemory& memory, MoveReport& report);
  Handover(const Handover&) = delete;
  Handover& operator=(const Handover&) = delete;

  // In this order, before Run. After an error it is of no further use but for refusals().

  /// Draws a session and connects. Errors: those of World::connect, kSystem.
  Result<void> open();
  /// Makes the offer, whose mode and transport are filled in here, and waits for the answer.
  /// `offsets`: the process's clocks, minus this host's, which the destination may ask for. Errors:
  /// kRefused (see refusals(), if it has given any), kCorrupt, kRetry (silence), kUnsupported
  /// (a transport must be and is not there), kPeerLost.
  Result<void> offer(wire::Offer offer, const ClockOffsets& offsets);
  /// What the way there carries, after offer() was answered by a refusal, or only asked. Nothing:
  /// the destination does not answer that, or not in time.
  std::optional<LinkSpeed> probe();
  /// Opens the page connections and waits until the destination has them; notes the session.
  /// Errors: as offer(), and those of World::note.
  Result<void> connect_pages();
  /// Sends pages in rounds, while the process runs. Errors: as CopyAhead::run(), kRefused (the
  /// destination says why it takes no more).
  Result<void> copy_ahead(CopyAhead& ahead);
  /// Says which of them count, before send_image(). Errors: kPeerLost.
  Result<void> send_kept(CopyAhead& ahead);
  /// Sends the frozen process. `image`: serialised, borrowed for the call. Errors: as
  /// Channel::send().
  Result<void> send_image(std::string_view image, wire::RelayState relay);
  /// What the memory files of the image have, after it. Errors: kCancelled, kPeerLost, kRetry,
  /// kSystem.
  Result<void> send_content(const wire::Objects& objects, const carriers::ContentFiles& files);
  /// Answers faults from now on. Errors: as KeptMemory::make_feed().
  Result<void> serve();
  /// Pushes pages, and waits for nothing.
  void push() { pages_.push(std::chrono::microseconds(0)); }
  /// Waits until the destination is ready to run the process. Errors: as offer().
  Result<void> await_restored();
  /// Ends all of it before Run was sent: closes the connections.
  void abandon();

  /// Tells the destination to run the process, which is parked, with the `signals` (siginfo_t) that
  /// came since its image was taken; waits for the answer. After an error it is in doubt what
  /// became of it, unless fate() is known: see error(), and call handle().
  Result<void> run(const std::vector<std::string>& signals);

  /// Goes on with a handover of which a dead worker has sent Run, or may have. kGone: its memory is
  /// no more, and this only listens until the destination has said its last word.
  void adopt(const wire::Outgoing& outgoing, Original original);
  /// Asks the destination what became of `session`, of which nothing else is left here;
  /// `incarnation` is that of its offer. Blocks. Errors: those of connecting, kRetry (silence),
  /// kCorrupt, kPeerLost (it cannot know).
  Result<wire::Verdict> ask_verdict(const SessionId& session, const std::string& incarnation);

  // Once Run was sent.

  /// Reads what the destination says, hands on what it confirmed, and re-makes broken connections,
  /// which blocks for some seconds at most. Call now and then, and when poll_fd() is readable.
  void handle();
  /// -1: nothing to poll.
  int poll_fd() const { return control_ ? control_->channel().poll_fd() : farewell_.poll_fd(); }
  /// Asks what became of the process, by a new connection if there is none. Blocks for the time of
  /// a connection and two seconds.
  void ask_once_more();
  /// It is known otherwise that the process runs there.
  void confirm_runs() { take_fate(Fate::kRuns); }
  /// Another process holds the memory, too, and the first may end.
  void follow(pid_t process) { pages_.follow(process); }
  /// The memory is gone, or gives way; what the destination says is listened to further on.
  void stop_serving() { pages_.stop(); }
  /// stop_serving(), and nothing uses the memory any more, nor is a connection left.
  void close();

  HandoverPhase phase() const { return phase_; }
  /// Run was sent, or may have been.
  bool run_sent() const { return phase_ >= HandoverPhase::kRunSent; }
  /// It has said its last word, and knows that we know, or did not say so in time.
  bool done() const { return phase_ == HandoverPhase::kOver && farewell_.over(); }
  const SessionId& session() const { return session_; }
  const std::vector<wire::Refusal>& refusals() const { return refusals_; }
  /// Files that the destination lacks; nothing: it has not answered, or refused for other reasons,
  /// and may not have looked for all of them.
  const std::optional<FilesNotThere>& not_there() const { return not_there_; }
  /// What the process would not have there; nothing: it does not say so.
  const std::optional<wire::Unkept>& unkept() const { return unkept_; }
  Fate fate() const { return fate_; }
  int wait_status() const { return wait_status_; }
  /// Why it is in doubt, or how the process was lost.
  const Error& error() const { return error_; }
  const Outage& outage() const { return outage_; }
  const PageConnections& pages() const { return pages_; }

 private:
  Result<wire::ControlMessage> await_reply(const ClockOffsets& offsets);
  Result<void> connect_control(Purpose purpose);
  PageServerOptions page_server_options() const;
  bool linked() const;
  void read_control();
  void take(const wire::ControlMessage& message);
  void take_verdict(const wire::Verdict& verdict);
  void take_fate(Fate fate);
  void hand_on_confirmed();
  void lose_control(const Error& error);
  void keep_alive();
  void reconnect();
  Result<void> connect_again();
  void finish();
  wire::Outgoing outgoing() const;
  void note();
  Error forgotten_error(const std::string& remedy) const;
  std::string name() const { return options_.destination.to_string(); }

  const HandoverOptions options_;
  const World world_;
  KeptMemory& memory_;
  MoveReport& report_;
  SessionId session_{};
  std::string incarnation_;         // of the destination
  std::uint64_t staged_pages_ = 0;  // that it takes before the image
  std::vector<wire::Refusal> refusals_;
  std::optional<FilesNotThere> not_there_;
  std::optional<wire::Unkept> unkept_;
  bool answers_probes_ = false;
  std::unique_ptr<ControlChannel> control_;
  KeepAlive keep_alive_;
  Outage outage_;
  Farewell farewell_;
  PageConnections pages_;
  HandoverPhase phase_ = HandoverPhase::kOffering;
  Fate fate_ = Fate::kUnknown;
  int wait_status_ = 0;
  Error error_;
};

}  // namespace migrate
