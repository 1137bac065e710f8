#pragma once

#include <sys/types.h>

#include <chrono>
#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "base/assistant.h"
#include "base/realtime_scope.h"
#include "base/result.h"
#include "libmigrate/advisor/forecast.h"
#include "libmigrate/capture/frozen_process.h"
#include "libmigrate/carriers/memory_content.h"
#include "libmigrate/image/only_process.h"
#include "libmigrate/inspect/process_inspector.h"
#include "libmigrate/inspect/state_table.h"
#include "libmigrate/move/copy_ahead.h"
#include "libmigrate/move/kept_memory.h"
#include "libmigrate/move/move_report.h"
#include "libmigrate/move/source_move_options.h"
#include "libmigrate/move/travel_plan.h"
#include "libmigrate/pages/confirmed_pages.h"
#include "libmigrate/park/parked_process.h"
#include "libmigrate/program/program.h"
#include "libmigrate/proto/control.pb.h"
#include "libmigrate/rights/stand_in.h"

namespace migrate {

/// A process that is to leave, as the host that it leaves sees it: inspected, frozen, captured and
/// parked once, whoever it is handed over to. Whatever is in the way of that is a refusal. Owned by
/// one thread, which becomes the tracer of the process.
class FrozenSource final : public KeptMemory {
 public:
  /// `options` and `report` are borrowed and outlive this. `on_area` hears where the parking record
  /// will be. `handovers`: to how many destinations the process is handed over.
  FrozenSource(const SourceMoveOptions& options, std::function<void(std::uint64_t area)> on_area,
               MoveReport& report, std::size_t handovers = 1);
  ~FrozenSource() override;

  // In this order.

  /// Forgets what an earlier attempt found.
  void begin() {
    refusals_.clear();
    ahead_.reset();
    travel_.begin();
  }
  /// Looks at the running process, and asks the kernel whether who wants to move it may. The draft
  /// is draft() then. Errors: kRefused (see refusals(); they are of what the asker may not see,
  /// too, if it was the kernel that refused: then only that is said), kRetry (it is between two
  /// programs), kNotFound, kSystem.
  Result<void> inspect(bool in_rounds = false);
  /// What memory the running process has, and how much of it it writes within `time`, in which it
  /// runs on; after inspect(). Errors: those of `still_wanted`, as inspect().
  Result<MemoryFacts> sample(std::chrono::microseconds time,
                             const std::function<Result<void>()>& still_wanted);
  /// What is against sending it in rounds, as inspect(true) finds it; after inspect().
  Refusals against_rounds() const;
  /// Of memory files, which travels while it stands still; as of inspect().
  std::uint64_t content_bytes() const;
  /// As TravelPlan::learn() and ship(). Of what the policy refuses then, refusals() are there, and
  /// these are false.
  bool learn(const FilesNotThere& not_there);
  bool ship(const std::optional<FilesNotThere>& not_there);
  const TravelPlan& travel() const { return travel_; }
  /// What the offer says of the process: all but what concerns one destination. Errors: kSystem.
  Result<wire::Offer> describe(const ClockOffsets& offsets) const;
  /// What the destination says that it will not keep of what the draft tells; nothing of it, if it
  /// says nothing. Errors: kRefused (see refusals()).
  Result<void> heed_destination(const std::optional<wire::Unkept>& said);
  /// Stops the process for an instant, and follows what it writes from then on: ahead() is there.
  /// Errors: as freeze(), kUnsupported.
  Result<void> watch_writes();
  /// Null but after watch_writes(), until end_watch().
  CopyAhead* ahead() const { return ahead_.get(); }
  /// What was sent ahead counts no more, and what the process writes is not followed.
  void end_watch() { ahead_.reset(); }
  /// Freezes the process and takes its state into image(). On error it runs on, at the latest after
  /// end_freeze(). Errors: kRefused (see refusals()), kRetry (it changes), kNotFound, kSystem.
  Result<void> freeze();
  /// The rest of the image, of a kind that inspecting cannot refuse: contents of memory files and
  /// pipes, starter pages. Errors: as freeze().
  Result<void> complete_image(std::int64_t clock_offset_ns);
  /// Finds what of that which was sent ahead still counts, if anything was. After complete_image().
  /// Errors: kSystem.
  Result<void> find_kept();
  /// The kernel's word about the threads that are frozen. Before anything of the memory leaves.
  Result<void> take_judgement();
  /// The files whose content follows the image; borrowed. Until end_freeze().
  const carriers::ContentFiles& content_files() const { return content_files_; }
  /// Serialises the image, once: for the destination, and for the parking record. Borrowed, until
  /// end_freeze().
  std::string_view serialise_image();
  /// Checks what the image did not have to wait for, and writes the parking record of `session`.
  /// Errors: as freeze().
  Result<void> prepare_to_park(const SessionId& session);
  /// Parks the process: what decides that it may run elsewhere. Errors: as ParkedProcess::park().
  Result<void> park();
  /// Brings it back from where it is parked: no destination has run it or will. Logs errors.
  void unpark();
  /// The freeze is over for this host: the process is parked, or runs on from now on.
  void end_freeze();
  std::int64_t frozen_since_us() const { return freeze_->since_us; }
  /// What was needed to inspect it is needed no more.
  void forget_asker() { stand_in_.reset(); }

  /// Instead of all that: what a dead worker parked. Nothing: it was killed.
  void adopt(std::optional<ParkedProcess> parked, wire::Image image);

  const wire::Image& draft() const { return travel_.draft(); }
  const wire::Image& image() const { return image_; }
  const std::vector<wire::Refusal>& refusals() const { return refusals_; }
  /// What it loses: as of inspect(), and once it is frozen as of prepare_to_park(). Not known of
  /// one that was adopted.
  const std::optional<std::vector<Loss>>& losses() const { return losses_; }
  /// Whether the program has hooks, which it calls before a move; as of inspect().
  bool has_hooks() const { return has_hooks_; }
  /// What makes its move longer than those of most, as of inspect().
  std::vector<Loss> notes() const;
  /// They are of what was left of a process that has ended.
  void clear_refusals() { refusals_.clear(); }

  // Once it is parked.

  bool is_parked() const { return parked_.has_value(); }
  ParkedProcess& parked() { return *parked_; }
  /// `keeper`, which shares the memory, stands in its place from now on; gives that back, to be
  /// ended.
  ParkedProcess replace(ParkedProcess keeper);
  Original original() const { return original_; }
  /// Lets it run here again, or ends it if it was only to start. Errors: as
  /// ParkedProcess::unpark().
  Result<void> resume();

  Result<std::unique_ptr<PageFeed>> make_feed(const PageServerOptions& options) override;
  void note_confirmed(std::size_t handover, const std::vector<PageRange>& ranges) override;
  void leave(std::size_t handover) override;

 private:
  /// What exists only while the process stands still.
  struct Freeze {
    std::unique_ptr<Assistant> assistant;
    RealtimeScope realtime;
    std::int64_t since_us;
    std::optional<FrozenProcess> process;
  };

  Result<void> judge_running();
  Result<std::uint64_t> find_system_call();
  void make_room_for_image();
  Result<std::vector<WaitRecord>> stop(std::uint64_t system_call);
  Result<void> stop_to_watch(std::uint64_t system_call);
  Result<void> watch(FrozenProcess& frozen);
  /// Before the threads are let go on, which hides from the next stop what they wait for.
  Result<void> clear_away(FrozenProcess& frozen, const std::vector<WaitRecord>& waits);
  Result<std::vector<ServedRegion>> regions_to_watch() const;
  Result<void> open_area(FrozenProcess& frozen, std::uint64_t record_bytes);
  Result<void> capture(const std::vector<WaitRecord>& waits);
  void find_losses(const wire::Image& image, bool frozen);
  void refuse_losses(const std::vector<Loss>& losses);
  std::vector<ProgramAdvice> look_at_program();
  Result<void> travel_frozen();
  Result<void> heed_wish();
  Error refused() const;
  std::string name() const { return "process " + std::to_string(options_.pid); }

  const SourceMoveOptions& options_;
  const std::function<void(std::uint64_t)> on_area_;
  MoveReport& report_;
  std::optional<ProcessInspector> inspector_;
  std::optional<StandIn> stand_in_;  // of who asks
  TravelPlan travel_;
  wire::Image image_;
  std::string image_bytes_;
  carriers::ContentFiles content_files_;
  std::vector<wire::Refusal> refusals_;
  std::optional<std::vector<Loss>> losses_;
  bool has_hooks_ = false;
  std::vector<Loss> losses_there_;   // that the destination told
  std::optional<ProgramWish> wish_;  // of the frozen process
  std::vector<WaitRecord> waits_;    // as the threads came here, or were last let go
  std::unique_ptr<CopyAhead> ahead_;
  std::optional<Freeze> freeze_;
  std::optional<ParkedProcess> parked_;
  ConfirmedPages confirmed_;
  Original original_ = Original::kHere;
};

}  // namespace migrate
