#include "libmigrate/image/image_form.h"

#include <fmt/core.h>
#include <limits.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <time.h>

#include <limits>
#include <set>
#include <string>
#include <string_view>

#include "libmigrate/arch/arch.h"
#include "libmigrate/carriers/carriers.h"
#include "libmigrate/carriers/memory_content.h"
#include "libmigrate/image/only_process.h"
#include "libmigrate/proc/file_identity.h"
#include "pager/page_range.h"

namespace migrate {
namespace {

constexpr std::uint64_t kMaxWaitNs = ~0ULL >> 2U;    // 146 years
constexpr std::uint32_t kMaxId = 1U << 22U;          // PID_MAX_LIMIT
constexpr std::uint32_t kMaxDescriptor = 1U << 30U;  // The largest that nr_open can allow.
constexpr std::uint32_t kMaxPipeBytes = 1U << 31U;
constexpr std::size_t kMaxExtendedStateBytes = 65536;
constexpr std::size_t kMaxAffinityBytes = 4096;
constexpr std::size_t kMaxAuxiliaryBytes = 4096;
constexpr std::size_t kMaxMemoryNameBytes = 249;  // memfd_create(2)
constexpr std::uint32_t kPermissions = 0777;      // No memory file of ours is set-user-id.
constexpr int kIntervalTimers = 3;
constexpr int kMaxGroups = 64;
constexpr std::size_t kMaxGroupBytes = std::size_t{64} * 1024;
constexpr std::uint32_t kProtections = PROT_READ | PROT_WRITE | PROT_EXEC;
constexpr std::string_view kNoZero("\0", 1);

/// Finds the first thing wrong with an image. `member` names the part that is being looked at.
class FormChecker {
 public:
  FormChecker(const wire::Objects& objects, const wire::ProcessImage& image, ImageStage stage)
      : objects_(objects), image_(image), final_(stage == ImageStage::kFinal) {}

  Result<void> check() {
    process();
    threads();
    signals_and_timers();
    mappings();
    memories();
    files();
    descriptors();
    starter_pages();
    control_groups();
    if (wrong_.empty()) {
      return {};
    }
    return fail(make_error(ErrorCode::kCorrupt, "read an image", wrong_,
                           "the peer is not a libmigrate of this version"));
  }

 private:
  template <class... Arguments>
  void expect(bool condition, fmt::format_string<Arguments...> member, Arguments&&... arguments) {
    if (!condition && wrong_.empty()) {
      wrong_ = fmt::format(member, std::forward<Arguments>(arguments)...);
    }
  }

  // `index` is one into a repeated member of `count` elements.
  template <class... Arguments>
  void expect_index(std::uint64_t index, int count, fmt::format_string<Arguments...> member,
                    Arguments&&... arguments) {
    expect(index < static_cast<std::uint64_t>(count), member,
           std::forward<Arguments>(arguments)...);
  }

  void expect_path(const std::string& path, std::string_view member) {
    expect(is_path(path), "{}", member);
  }

  template <class Strings>
  void expect_siginfos(const Strings& signals, std::string_view member) {
    for (const std::string& signal : signals) {
      siginfo_t information{};
      expect(signal.size() == sizeof(information), "{}", member);
      signal.copy(reinterpret_cast<char*>(&information), sizeof(information));
      expect(information.si_signo >= 1 &&
                 static_cast<std::size_t>(information.si_signo) <= arch::kSignals,
             "{}", member);
    }
  }

  void process() {
    expect(image_.process_id() >= 1 && image_.process_id() < kMaxId, "process_id");
    expect_path(image_.executable().path(), "executable");
    expect_path(image_.working_directory(), "working_directory");
    expect(image_.memory().auxv().size() <= kMaxAuxiliaryBytes, "auxv");
    expect(image_.resource_limits_size() <= RLIM_NLIMITS, "resource_limits");
  }

  void threads() {
    expect(image_.threads_size() >= 1 && image_.threads(0).id() == image_.process_id(),
           "threads, of which the first is the process's");
    std::set<std::uint32_t> seen;
    for (const wire::Thread& thread : image_.threads()) {
      expect(thread.id() >= 1 && thread.id() < kMaxId && seen.insert(thread.id()).second,
             "id of thread {}", thread.id());
      expect(thread.extended_state().size() <= kMaxExtendedStateBytes,
             "extended_state of thread {}", thread.id());
      expect(thread.affinity().size() <= kMaxAffinityBytes, "affinity of thread {}", thread.id());
      expect(thread.credentials().groups_size() <= NGROUPS_MAX, "groups of thread {}", thread.id());
      expect(thread.wait_remaining_ns() <= kMaxWaitNs, "wait_remaining_ns of thread {}",
             thread.id());
      expect_siginfos(thread.pending_signals(), "pending_signals of a thread");
      if (final_) {
        expect(thread.general_registers().size() == sizeof(arch::GeneralRegisters),
               "general_registers of thread {}", thread.id());
        expect(thread.alternate_stack().size() == sizeof(stack_t), "alternate_stack of thread {}",
               thread.id());
      }
    }
  }

  void signals_and_timers() {
    const std::size_t actions = image_.signal_actions().size();
    expect(actions == arch::kSignals * arch::kSignalActionBytes || (actions == 0 && !final_),
           "signal_actions");
    expect_siginfos(image_.pending_signals(), "pending_signals");
    expect(image_.interval_timers_size() <= kIntervalTimers, "interval_timers");
    for (const wire::PosixTimer& timer : image_.posix_timers()) {
      expect(timer.id() <= std::numeric_limits<std::int32_t>::max(), "posix_timers");
    }
  }

  void mappings() {
    std::uint64_t from = 0;
    for (const wire::Mapping& mapping : image_.mappings()) {
      expect(mapping.start() % kPageBytes == 0 && mapping.end() % kPageBytes == 0 &&
                 mapping.start() >= from && mapping.start() < mapping.end() &&
                 mapping.end() <= kAddressLimit,
             "mapping {:x}-{:x}", mapping.start(), mapping.end());
      from = mapping.end();
      expect(mapping.offset() % kPageBytes == 0 && mapping.offset() < (1ULL << 62U) &&
                 (mapping.protection() & ~kProtections) == 0,
             "offset or protection of mapping {:x}", mapping.start());
      mapping_object(mapping);
    }
    for (const wire::AddressRange& guard : image_.guards()) {
      expect(guard.start() % kPageBytes == 0 && guard.end() % kPageBytes == 0 &&
                 guard.start() < guard.end() && guard.end() <= kAddressLimit,
             "guard {:x}-{:x}", guard.start(), guard.end());
    }
    advised();
    access();
  }

  void access() {
    std::uint64_t from = 0;
    for (const wire::AccessRange& range : image_.access()) {
      expect(range.start() % kPageBytes == 0 && range.end() % kPageBytes == 0 &&
                 range.start() >= from && range.start() < range.end() &&
                 range.end() <= kAddressLimit,
             "access {:x}-{:x}", range.start(), range.end());
      from = range.end();
    }
  }

  void advised() {
    std::uint64_t from = 0;
    for (const wire::AdvisedRange& range : image_.advised()) {
      expect(range.start() % kPageBytes == 0 && range.end() % kPageBytes == 0 &&
                 range.start() >= from && range.start() < range.end() &&
                 range.end() <= kAddressLimit,
             "advised {:x}-{:x}", range.start(), range.end());
      from = range.end();
    }
  }

  void mapping_object(const wire::Mapping& mapping) {
    switch (mapping.kind()) {
      case wire::Mapping::FILE_LOCAL:
      case wire::Mapping::FILE_COPY:
      case wire::Mapping::SHARED_FILE:
        expect_index(mapping.file(), objects_.mapped_files_size(), "file of mapping {:x}",
                     mapping.start());
        break;
      case wire::Mapping::SHARED_MEMORY:
        expect_index(mapping.shared_memory(), objects_.shared_memories_size(),
                     "shared_memory of mapping {:x}", mapping.start());
        break;
      case wire::Mapping::ANONYMOUS:
      case wire::Mapping::VDSO:
      case wire::Mapping::VVAR:
        break;
      default:
        expect(false, "kind of mapping {:x}", mapping.start());
    }
  }

  void memories() {
    for (const wire::FileIdentity& file : objects_.mapped_files()) {
      expect_path(file.path(), "mapped_files");
    }
    for (const wire::SharedMemory& memory : objects_.shared_memories()) {
      expect(memory.size_bytes() < (1ULL << 62U), "size of shared_memories");
      expect(carriers::has_sound_extents(memory) &&
                 (memory.open_descriptor() || memory.extents().empty()),
             "content of shared_memories");
      expect(memory.mode() <= kPermissions, "mode of shared_memories");
      expect(memory.name().size() <= kMaxMemoryNameBytes &&
                 memory.name().find(kNoZero) == std::string::npos,
             "name of shared_memories");
    }
    for (const wire::Pipe& pipe : objects_.pipes()) {
      expect(pipe.capacity_bytes() >= 1 && pipe.capacity_bytes() <= kMaxPipeBytes &&
                 pipe.content().size() <= pipe.capacity_bytes() && pipe.mode() <= kPermissions,
             "pipes");
    }
  }

  void files() {
    for (const wire::OpenFile& file : objects_.files()) {
      const char* flaw = carriers::flaw_of(objects_, file);
      expect(flaw == nullptr, "{}", flaw == nullptr ? "" : flaw);
      // The worker opens it: of another process it would show what that may not see.
      expect(file.kind() != wire::OpenFile::PROC_FILE || file.object() == image_.process_id(),
             "process of a file of /proc");
    }
  }

  void descriptors() {
    std::int64_t before = -1;
    for (const wire::Descriptor& descriptor : image_.descriptors()) {
      expect(descriptor.number() > before && descriptor.number() < kMaxDescriptor,
             "number of descriptor {}", descriptor.number());
      before = descriptor.number();
      expect_index(descriptor.file(), objects_.files_size(), "file of descriptor {}",
                   descriptor.number());
    }
  }

  void starter_pages() {
    for (const wire::StarterPage& page : image_.starter_pages()) {
      expect(page.address() % kPageBytes == 0 && page.address() < kAddressLimit &&
                 page.content().size() == kPageBytes,
             "starter page {:x}", page.address());
    }
  }

  void control_groups() {
    const wire::ControlGroups& groups = image_.control_groups();
    expect(groups.places_size() <= kMaxGroups && groups.limits_size() <= kMaxGroups &&
               groups.ByteSizeLong() <= kMaxGroupBytes,
           "control_groups");
  }

  const wire::Objects& objects_;
  const wire::ProcessImage& image_;
  const bool final_;
  std::string wrong_;
};

}  // namespace

Result<void> check_form(const wire::Image& image, ImageStage stage) {
  if (image.processes_size() != 1) {
    return fail(make_error(ErrorCode::kCorrupt, "read an image",
                           fmt::format("{} processes", image.processes_size()),
                           "this version moves one process at a time"));
  }
  return FormChecker(image.objects(), only_process(image), stage).check();
}

}  // namespace migrate
