#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <nlohmann/json.hpp>
#include <optional>
#include <string>
#include <vector>

#include "base/result.h"
#include "libmigrate/host/event_sink.h"
#include "libmigrate/inspect/process_inspector.h"
#include "libmigrate/move/clocks.h"
#include "libmigrate/move/control_channel.h"
#include "libmigrate/move/departure.h"
#include "libmigrate/move/farewell.h"
#include "libmigrate/move/move_outcome.h"
#include "libmigrate/move/move_report.h"
#include "libmigrate/move/page_transport.h"
#include "libmigrate/move/source_move_options.h"
#include "libmigrate/pages/confirmed_pages.h"
#include "libmigrate/pages/page_feed.h"
#include "libmigrate/park/parked_process.h"
#include "libmigrate/proto/session.pb.h"
#include "libmigrate/rights/stand_in.h"

namespace migrate {

/// The source's side of one move, up to the moment when nothing is owed. Owned by one thread, which
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

  /// Tries once.
  MoveOutcome attempt();
  /// Tries until the time is over while all that is in the way is transient, and for two seconds at
  /// least while the process changes too quickly.
  MoveOutcome attempt_for(double seconds);

  const std::vector<wire::Refusal>& refusals() const { return refusals_; }
  const Error& error() const override { return error_; }
  const SessionId& session() const override { return session_; }
  const wire::Image& image() const { return image_; }

  /// After the commit: what is left here, and the link to the other side.
  ParkedProcess& parked() { return *parked_; }
  /// Serves from now on what `keeper` keeps, which shares the memory of the parked process; gives
  /// that back, to be ended.
  ParkedProcess serve_from(ParkedProcess keeper);
  int control_fd() const override;
  std::string destination() const override { return options_.destination.to_string(); }
  Remains handle() override;
  Fate fate() const override { return fate_; }
  int wait_status() const override { return wait_status_; }
  void ask_once_more() override;
  /// Asks the destination what became of `session`, of which nothing else is left here;
  /// `incarnation` is that of its offer. Blocks for up to eight seconds.
  Result<wire::Verdict> ask_verdict(const SessionId& session, const std::string& incarnation);
  void confirm_runs() override { take_fate(Fate::kRuns); }
  Result<void> resume_here() override;
  const std::string& waits_for() const override { return waits_for_; }
  std::int64_t waits_since_us() const override { return waits_since_us_; }
  void stop_serving() override;
  Result<void> hide() override { return parked_->hide(); }
  bool done() const override { return done_ && farewell_.over(); }
  std::uint64_t owed_pages() const override { return report_.progress().owed_pages(); }
  nlohmann::json result() const override;
  nlohmann::json progress_event() const override;

 private:
  static constexpr std::size_t kMaxReplyBytes = std::size_t{4} << 20U;  // It says little.

  Result<std::unique_ptr<Channel>> connect(Purpose purpose);
  Result<void> inspect();
  Result<void> judge_running();
  Result<void> take_judgement();
  Result<void> offer();
  Result<wire::ControlMessage> await_reply(const ClockOffsets& offsets);
  Result<void> connect_data();
  Result<std::shared_ptr<Channel>> connect_pages(Purpose purpose);
  Result<std::uint64_t> find_system_call();
  Result<void> freeze_and_run();
  Result<void> run_there(FrozenProcess& frozen, std::int64_t frozen_since_us);
  Result<void> park(FrozenProcess& frozen);
  void unpark();
  Result<void> send_run();
  Result<std::unique_ptr<PageFeed>> make_feed() const;
  void free_confirmed();
  void read_control();
  void take(const wire::ControlMessage& message);
  void take_verdict(const wire::Verdict& verdict);
  void take_fate(Fate fate);
  void lose_control(const Error& error);
  void keep_alive();
  void reconnect();
  Result<void> connect_again();
  void start_push(std::chrono::microseconds pause);
  wire::Outgoing outgoing() const;
  void event(const char* phase, std::int64_t start_us);
  std::uint64_t wire_bytes() const;
  void finish();

  const SourceMoveOptions options_;
  const Hooks hooks_;
  EventSink& sink_;
  MoveReport report_;
  std::optional<ProcessInspector> inspector_;
  std::optional<StandIn> stand_in_;  // of who asks
  SessionId session_{};
  wire::Image draft_;
  wire::Image image_;
  std::vector<wire::Refusal> refusals_;
  Error error_;
  std::unique_ptr<ControlChannel> control_;
  Farewell farewell_;
  std::shared_ptr<Channel> urgent_;
  std::shared_ptr<Channel> bulk_;
  RdmaRoute rdma_;
  const char* page_transport_ = "tcp";
  std::unique_ptr<PageFeed> feed_;
  ConfirmedPages confirmed_{1};
  Remains remains_ = Remains::kHere;
  std::optional<ParkedProcess> parked_;
  std::int64_t clock_offset_ns_ = 0;  // CLOCK_MONOTONIC of the process minus ours
  std::int64_t next_reconnect_us_ = 0;
  std::int64_t reconnect_pause_us_ = 0;
  std::int64_t last_heard_us_ = 0;
  std::int64_t last_sent_us_ = 0;
  std::string waits_for_;
  std::int64_t waits_since_us_ = 0;
  std::string incarnation_;  // of the destination
  Fate fate_ = Fate::kUnknown;
  int wait_status_ = 0;
  bool changes_ = false;  // the process did, while it was inspected or stopped
  bool run_sent_ = false;
  bool linked_ = false;  // urgent and bulk are up, or the first ones were not seen broken
  bool done_ = false;
  bool serving_stopped_ = false;
};

/// Refusals as JSON objects for clients.
nlohmann::json to_json(const std::vector<wire::Refusal>& refusals);

}  // namespace migrate
