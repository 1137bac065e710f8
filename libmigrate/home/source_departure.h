#pragma once

#include <memory>
#include <optional>

#include "libmigrate/home/departed.h"
#include "libmigrate/home/home_record.h"
#include "libmigrate/home/real_files.h"
#include "libmigrate/home/remains.h"
#include "libmigrate/host/worker_context.h"
#include "libmigrate/move/source_move.h"

namespace migrate {

/// A process that SourceMove moves away from its home. Owned by one thread, which becomes the
/// tracer of the process; all that it is given is borrowed.
class SourceLeaving : public HomeLeaving {
 public:
  /// Errors: kInvalid (the destination is no address).
  static Result<std::unique_ptr<SourceLeaving>> create(const WorkerContext& context,
                                                       const MoveRequest& request,
                                                       HomeRecord& record, RealFiles& files,
                                                       EventSink& client);

  MoveOutcome attempt() override { return source_->attempt_for(retry_seconds_); }
  Departed depart() override;
  void tell_not_moved(EventSink& client, MoveOutcome outcome) override;

 private:
  SourceLeaving(SourceMoveOptions options, HomeRecord& record, RealFiles& files, EventSink& client,
                double retry_seconds);

  HomeRecord& record_;
  std::unique_ptr<SourceMove> move_;  // until depart()
  SourceMove* const source_;          // the same, whose owner then is the Departed
  const double retry_seconds_;
};

/// What a dead worker left of a process that SourceMove moved away. As SourceLeaving.
class SourceRemains : public HomeRemains {
 public:
  SourceRemains(const WorkerContext& context, HomeRecord& record, EventSink& client)
      : context_(context), record_(record), client_(client) {}

  Result<Found> find() override;
  Result<bool> find_keeper() override;
  Result<Departed> go_on() override;
  Result<wire::Verdict> ask_verdict() override;

 private:
  Result<SourceMoveOptions> options() const;
  SessionId session() const;

  const WorkerContext& context_;
  HomeRecord& record_;
  EventSink& client_;
  wire::Image image_;  // of parked_
  std::optional<ParkedProcess> parked_;
  bool is_keeper_ = false;
  std::unique_ptr<SourceMove> asking_;
};

}  // namespace migrate
