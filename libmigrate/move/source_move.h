#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <nlohmann/json.hpp>
#include <optional>
#include <string>
#include <vector>

#include "base/result.h"
#include "libmigrate/advisor/forecast.h"
#include "libmigrate/advisor/past_moves.h"
#include "libmigrate/host/event_sink.h"
#include "libmigrate/move/departure.h"
#include "libmigrate/move/frozen_source.h"
#include "libmigrate/move/handover.h"
#include "libmigrate/move/link_refusals.h"
#include "libmigrate/move/move_outcome.h"
#include "libmigrate/move/move_report.h"
#include "libmigrate/move/source_move_options.h"
#include "libmigrate/park/parked_process.h"
#include "libmigrate/proto/session.pb.h"

namespace migrate {

/// The source's side of one move, up to the moment when nothing is owed: a process that is frozen
/// here (FrozenSource) and handed over to one destination (Handover). Owned by one thread, which
/// becomes the tracer of the process.
class SourceMove : public Departure {
 public:
  /// Called while the process is frozen.
  struct Hooks {
    /// The relay's state for the image.
    std::function<wire::RelayState(const wire::Image&)> freeze_relay;
    /// The image is on its way: what must be taken from the process before it is parked.
    std::function<Result<void>(const wire::Image&)> on_captured = [](const wire::Image&) {
      return Result<void>();
    };
    /// The move came to nothing after freeze_relay.
    std::function<void()> thaw_relay = [] {};
    /// What a new worker must know: before the process is frozen, and once it runs there.
    std::function<Result<void>(const wire::Outgoing&)> on_outgoing = [](const wire::Outgoing&) {
      return Result<void>();
    };
    /// Where the parking record will be.
    std::function<void(std::uint64_t area)> on_area = [](std::uint64_t) {};
  };

  SourceMove(SourceMoveOptions options, Hooks hooks, EventSink& sink);
  ~SourceMove() override;

  /// Goes on with a move that a dead worker had decided, or may have. Without `parked`, which was
  /// killed, only listens until the destination is done.
  static std::unique_ptr<SourceMove> adopt(SourceMoveOptions options, Hooks hooks, EventSink& sink,
                                           std::optional<ParkedProcess> parked, wire::Image image,
                                           const wire::Outgoing& outgoing);

  /// Only asks: the refusals of this side, and if there are none those of the destination.
  Result<std::vector<wire::Refusal>> check();

  /// Tries until the time is over while all that is in the way is transient or the destination's
  /// daemon does not answer, and for two seconds at least while the process changes too quickly.
  MoveOutcome attempt_for(double seconds);

  /// What the process loses, so far as that is known (FrozenSource::losses()).
  const std::optional<std::vector<Loss>>& losses() const { return source_.losses(); }
  /// Whether the program has hooks, which may clear what is in the way.
  bool has_hooks() const { return source_.has_hooks(); }
  std::vector<Loss> notes() const { return source_.notes(); }
  /// Of FrozenSource.
  const std::optional<Travels>& travels() const { return source_.travel().travels(); }
  const FilesNotThere& not_there() const { return source_.travel().not_there(); }
  /// Whether the destination has said which files those are.
  bool destination_told_files() const { return source_.travel().asked(); }
  /// The mode that was chosen, or would be; nothing: that was not asked for.
  const std::optional<ModeChoice>& choice() const { return choice_; }
  const wire::Image& seen() const { return source_.travel().seen(); }
  /// Rules of its home about its links, if that is here.
  Firewall link_rules() const { return rules_of_links(options_, seen()); }
  /// Of this side, or else those of the destination.
  const std::vector<wire::Refusal>& refusals() const;
  /// Before Run was sent: why the last attempt failed.
  const Error& error() const override;
  pid_t pid() const { return options_.pid; }
  const SessionId& session() const override { return handover_->session(); }
  const wire::Image& image() const { return source_.image(); }

  /// After the commit: what is left here, and the link to the other side.
  ParkedProcess& parked() { return source_.parked(); }
  /// Serves from now on what `keeper` keeps, which shares the memory of the parked process; gives
  /// that back, to be ended.
  ParkedProcess serve_from(ParkedProcess keeper);
  int control_fd() const override { return handover_->poll_fd(); }
  std::string destination() const override { return options_.destination.to_string(); }
  Original handle() override;
  Fate fate() const override { return handover_->fate(); }
  int wait_status() const override { return handover_->wait_status(); }
  void ask_once_more() override { handover_->ask_once_more(); }
  /// Asks the destination what became of `session`, of which nothing else is left here;
  /// `incarnation` is that of its offer. Blocks for up to eight seconds.
  Result<wire::Verdict> ask_verdict(const SessionId& session, const std::string& incarnation) {
    return handover_->ask_verdict(session, incarnation);
  }
  void confirm_runs() override { handover_->confirm_runs(); }
  Result<void> resume_here() override;
  const std::string& waits_for() const override { return handover_->outage().reason(); }
  std::int64_t waits_since_us() const override { return handover_->outage().since_us(); }
  void stop_serving() override { handover_->stop_serving(); }
  Result<void> hide() override;
  bool done() const override { return handover_->done(); }
  std::uint64_t owed_pages() const override { return report_.progress().owed_pages(); }
  nlohmann::json result() const override;
  nlohmann::json progress_event() const override;

 private:
  /// How one attempt ended, and whether it failed because the process changed meanwhile.
  struct Attempt {
    MoveOutcome outcome;
    bool process_changed;
  };

  std::unique_ptr<Handover> make_handover(const MovePlan& plan);
  Attempt attempt();
  Result<void> still_wanted();
  Result<void> inspect();
  Result<ClockOffsets> process_clocks() const;
  PastMoves past_moves() const;
  Result<void> choose();
  Result<void> advise(const std::optional<LinkSpeed>& link);
  void note_past() const;
  Result<ClockOffsets> offer();
  Result<void> ask_for_files(const ClockOffsets& offsets);
  Result<void> offer_draft(const ClockOffsets& offsets);
  Result<void> copy_ahead();
  Result<void> freeze_and_run(const ClockOffsets& offsets);
  Result<void> freeze_and_hand_over(const ClockOffsets& offsets);
  Result<void> hand_over(std::int64_t image_since_us);
  Result<void> run_there();
  void take_back();
  void event(const char* phase, std::int64_t start_us);

  const SourceMoveOptions options_;
  const Hooks hooks_;
  EventSink& sink_;
  MovePlan plan_;                     // of this attempt
  std::optional<ModeChoice> choice_;  // by which plan_ was chosen
  MoveReport report_;
  FrozenSource source_;
  std::unique_ptr<Handover>
      handover_;  // of the last attempt; ends before the memory that it serves
  Error error_;
};

}  // namespace migrate
