#pragma once

#include <sys/types.h>

#include <map>
#include <vector>

#include "base/result.h"
#include "libmigrate/arch/arch.h"
#include "libmigrate/carriers/carrier.h"
#include "libmigrate/cell/cell.h"
#include "libmigrate/proto/image.pb.h"
#include "libmigrate/restore/file_user.h"
#include "libmigrate/restore/mappings.h"
#include "libmigrate/restore/process_state.h"
#include "libmigrate/restore/seed_restorer.h"
#include "libmigrate/restore/self_made.h"
#include "libmigrate/trace/script.h"

namespace migrate {

/// The SeedRestorer that there is: by scripts in the seed, which it traces.
class Restorer final : public SeedRestorer {
 public:
  /// Takes hold of the cell's seed. The cell is borrowed. `trusted`: see FileUser.
  static Result<Restorer> create(Cell& cell, bool trusted);

  Result<void> prepare(const wire::Image& draft) override;
  const FileUser& file_user() const override { return file_user_; }
  MappingPlan plan(const wire::Image& image) const override {
    return plan_mappings(mapped_, image);
  }
  Result<void> adapt(const wire::Image& image, const MappingPlan& plan) override;
  Result<void> discard(const PageSet& pages) override;
  Result<void> fill(carriers::ContentPlace& place, std::string_view bytes) override {
    return carriers::write_content(place, memories_, bytes);
  }
  Result<void> finish(const wire::Image& image,
                      const std::map<std::uint64_t, int>& relays) override;
  std::map<std::uint64_t, UniqueFd> take_shared_files() override {
    return std::move(shared_files_);
  }
  std::vector<pid_t> host_threads() const override;
  Result<void> release() override;
  Result<void> run() override;

 private:
  struct RestoredThread {
    std::uint32_t id = 0;  // in the cell
    pid_t host_id = 0;
    std::size_t age = 0;                 // when it was first traced, in their order
    arch::GeneralRegisters registers{};  // of the image, to be set at the very end
  };

  struct Sleeper {
    RestoredThread* thread;
    std::int64_t call;
  };

  Restorer(Cell& cell, bool trusted) : cell_(&cell), trusted_(trusted) {}

  Result<void> map_area(const wire::ProcessImage& image);
  Result<void> empty_seed(const wire::ProcessImage& draft);
  Result<void> take_on(const wire::ProcessImage& draft);
  Result<void> map(const wire::Image& image, const MappingPlan& plan);
  Result<std::size_t> map_some(const wire::Image& image,
                               std::span<const wire::Mapping* const> mappings);
  Result<SelfMade> make_by_itself(const wire::Image& image);
  Result<void> make_leader(const wire::Image& image, const std::map<std::uint64_t, int>& relays);
  Result<void> match_threads(const wire::ProcessImage& image);
  Result<void> sleep_on(const wire::ProcessImage& image);
  Result<void> interrupt_sleepers(const std::vector<Sleeper>& sleepers);
  Result<Stop> await_stop(pid_t thread) const;
  Result<void> show_to_user(const wire::ProcessImage& image);
  Result<void> set_registers(const wire::ProcessImage& image);

  Cell* cell_;
  bool trusted_;
  FileUser file_user_;
  arch::GeneralRegisters base_{};
  std::uint64_t system_call_ = 0;
  ScriptArea area_;
  wire::Credentials own_;  // of the seed
  ProcessLimits limits_;   // of the seed
  wire::Image draft_;
  wire::Image mapped_;  // whose mappings the seed has
  std::vector<UniqueFd> memories_;
  std::map<std::uint64_t, UniqueFd> shared_files_;
  std::vector<RestoredThread> threads_;
  std::size_t traced_ = 1;
};

}  // namespace migrate
