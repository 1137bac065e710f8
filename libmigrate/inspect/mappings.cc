#include "libmigrate/inspect/internal/mappings.h"

#include <fcntl.h>
#include <fmt/core.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <functional>
#include <map>
#include <tuple>

#include "base/file.h"
#include "libmigrate/arch/arch.h"
#include "libmigrate/image/address_space.h"
#include "libmigrate/inspect/internal/mapping_details.h"
#include "libmigrate/inspect/internal/mapping_flags.h"
#include "libmigrate/proc/file_identity.h"
#include "libmigrate/proc/pagemap.h"
#include "pager/page_range.h"

namespace migrate::inspect {
namespace {

constexpr std::uint64_t kMappedHashLimitBytes = std::uint64_t{1} << 28;
constexpr mode_t kPermissions = 0777;
constexpr std::string_view kDeleted = " (deleted)";
constexpr std::string_view kBeyondEnd = "a private mapping that goes beyond the end of its file";

struct RefusedName {
  std::string_view prefix;
  std::string_view code;
};
constexpr std::array kRefusedNames = std::to_array<RefusedName>({
    {"/SYSV", "SYSV_SHM"},
    {"/[aio]", "AIO"},
    {"anon_inode:[io_uring]", "IO_URING"},
    {"anon_inode:[perf_event]", "PERF"},
    {"anon_inode:kvm", "KVM"},
    {"anon_inode:bpf", "BPF"},
    {"socket:[", "SOCKET"},
});

bool is_kernel_mapping(const MapsEntry& entry) {
  return entry.inode == 0 && (entry.name == "[vdso]" || entry.name.starts_with("[vvar"));
}

// What this process has of the mappings that the kernel makes for every program: [vdso], and
// [vvar] with what belongs to it. They do not change while it runs.
std::uint64_t own_kernel_bytes(std::string_view name) {
  static const std::vector<MapsEntry> kOwn = [] {
    auto maps = read_file("/proc/self/maps");
    auto entries = maps ? parse_maps(*maps) : Result<std::vector<MapsEntry>>(fail(maps.error()));
    return entries ? std::move(*entries) : std::vector<MapsEntry>();
  }();
  std::uint64_t bytes = 0;
  for (const MapsEntry& entry : kOwn) {
    bytes += entry.name.starts_with("[" + std::string(name)) ? entry.end - entry.start : 0;
  }
  return bytes;
}

bool is_anonymous(const MapsEntry& entry) {
  return !entry.shared && (is_huge(entry.name) ||
                           (entry.inode == 0 && (entry.name.empty() || entry.name == "[heap]" ||
                                                 entry.name.starts_with("[stack") ||
                                                 entry.name.starts_with("[anon:"))));
}

bool is_memfd(std::string_view name) {
  return name.starts_with("/memfd:") && name.ends_with(kDeleted);
}

bool is_memory(const MapsEntry& entry) {
  return entry.shared && entry.inode != 0 &&
         (entry.name == "/dev/zero (deleted)" || is_huge(entry.name) ||
          entry.name.starts_with("[anon_shmem:") || is_memfd(entry.name));
}

// What a memfd or another file was called; nothing of shared anonymous memory.
std::optional<std::string> memory_name(std::string_view link) {
  constexpr std::string_view kMemfd = "/memfd:";
  constexpr std::size_t kMostBytes = 249;  // memfd_create(2)
  if (!link.starts_with('/') || link == "/dev/zero (deleted)" || is_huge(link)) {
    return std::nullopt;
  }
  link.remove_suffix(link.ends_with(kDeleted) ? kDeleted.size() : 0);
  link.remove_prefix(link.starts_with(kMemfd) ? kMemfd.size() : link.rfind('/') + 1);
  return std::string(link.substr(0, kMostBytes));
}

std::string map_files_name(const MapsEntry& entry) {
  return fmt::format("map_files/{:x}-{:x}", entry.start, entry.end);
}

std::string describe(const MapsEntry& entry) {
  return fmt::format("{:x}-{:x} {}", entry.start, entry.end,
                     entry.name.empty() ? "anonymous" : entry.name);
}

MappedKey key_of(const MapsEntry& entry) {
  return {entry.device, entry.inode, entry.name};
}

/// Whether smaps tells of the same mappings as maps.
bool same_mappings(const std::vector<MapsEntry>& smaps, const std::vector<MapsEntry>& maps) {
  const auto line_of = [](const MapsEntry& entry) {
    return std::tie(entry.start, entry.end, entry.protection, entry.shared, entry.offset,
                    entry.device, entry.inode, entry.name);
  };
  return std::ranges::equal(smaps, maps, {}, line_of, line_of);
}

bool is_shared(const wire::Mapping& mapping) {
  return mapping.kind() == wire::Mapping::SHARED_FILE ||
         mapping.kind() == wire::Mapping::SHARED_MEMORY;
}

// The advice that all draft mappings agree on which `entry` overlaps and which are of its nature.
std::optional<std::uint32_t> draft_advice(const MapsEntry& entry, const wire::ProcessImage& draft) {
  const auto& mappings = draft.mappings();
  auto mapping = std::partition_point(
      mappings.begin(), mappings.end(),
      [&entry](const wire::Mapping& candidate) { return candidate.end() <= entry.start; });
  std::optional<std::uint32_t> advice;
  for (; mapping != mappings.end() && mapping->start() < entry.end; ++mapping) {
    const bool anonymous = mapping->kind() == wire::Mapping::ANONYMOUS && !mapping->was_file();
    if (anonymous != is_anonymous(entry) || is_shared(*mapping) != entry.shared) {
      continue;
    }
    if (advice && *advice != mapping->advice()) {
      return std::nullopt;
    }
    advice = mapping->advice();
  }
  return advice;
}

}  // namespace

bool path_leads_to(const ProcessView& view, const std::string& path,
                   const wire::FileIdentity& identity) {
  struct stat status {};
  const char* name = path == "/" ? "." : path.c_str() + 1;
  if (!path.starts_with('/') || ::fstatat(view.root.get(), name, &status, 0) != 0) {
    return false;
  }
  const dev_t device =
      S_ISCHR(status.st_mode) || S_ISBLK(status.st_mode) ? status.st_rdev : status.st_dev;
  return status.st_ino == identity.inode() && major(device) == identity.device_major() &&
         minor(device) == identity.device_minor();
}

Result<std::uint32_t> add_memory(int directory, const std::string& name, const std::string& link,
                                 int fd, Findings& findings, SharedObjects& shared,
                                 wire::Objects& objects) {
  struct stat status {};
  if (::fstatat(directory, name.c_str(), &status, 0) != 0) {
    return fail(system_error("stat", link));
  }
  const std::uint64_t type = MIGRATE_TRY(filesystem_type_at(directory, name));
  const bool is_of_huge_pages = filesystem_class(type) == FilesystemClass::kHugePages;
  if (is_of_huge_pages && !is_huge(link) && !is_memfd(link)) {
    return fail(make_error(ErrorCode::kUnsupported, "carry huge pages of", link));
  }
  const StatKey key{status.st_dev, status.st_ino};
  const auto [place, added] =
      findings.memories.emplace(key, static_cast<std::uint32_t>(objects.shared_memories_size()));
  wire::SharedMemory& memory =
      added ? *objects.add_shared_memories()
            : *objects.mutable_shared_memories(static_cast<int>(place->second));
  memory.set_inode(status.st_ino);
  memory.set_size_bytes(static_cast<std::uint64_t>(status.st_size));
  memory.set_mode(status.st_mode & kPermissions);
  memory.set_owner(status.st_uid);
  memory.set_group(status.st_gid);
  memory.set_has_huge_pages(is_of_huge_pages);
  if (const auto name_of_file = memory_name(link)) {
    memory.set_name(*name_of_file);
    shared.memories.emplace(key, link);
    if (const int seals = fd >= 0 ? ::fcntl(fd, F_GET_SEALS) : -1; seals >= 0) {
      memory.set_seals(static_cast<std::uint32_t>(seals));
    }
  }
  return place->second;
}

// A running process unmaps what it likes between two looks at it.
bool MappingReader::refuse_unless_gone(const MapsEntry& entry, const Error& error) {
  if (draft_ == nullptr && error.sys_errno == ENOENT) {
    vanished_ = true;
    return false;
  }
  return refuse_mapping("UNKNOWN_MAPPING", entry, error.message());
}

bool MappingReader::refuse_mapping(std::string_view code, const MapsEntry& entry,
                                   std::string_view detail) {
  refuse(refusals_, code, describe(entry), detail);
  return false;
}

// The kernel writes smaps piece by piece: of a running process, what grows meanwhile is there
// twice.
Result<std::vector<MapsEntry>> MappingReader::read_smaps() const {
  constexpr int kReadings = 10;
  for (int reading = 0; reading < kReadings; ++reading) {
    std::vector<MapsEntry> entries =
        MIGRATE_TRY(parse_maps(MIGRATE_TRY(read_file_at(view_.directory.get(), "smaps"))));
    const auto overlap = std::adjacent_find(
        entries.begin(), entries.end(),
        [](const MapsEntry& one, const MapsEntry& next) { return one.end > next.start; });
    if (overlap == entries.end()) {
      return entries;
    }
  }
  return fail(make_error(ErrorCode::kRetry, "read the mappings of a process", "/proc/PID/smaps",
                         "they change all the time; try again"));
}

// While the kernel writes smaps it looks at all pages of a mapping, and nobody can change mappings.
Result<std::vector<MapsEntry>> MappingReader::read_details(const std::vector<MapsEntry>& shown) {
  auto details = view_.list ? details_of(*view_.list, view_.pid, shown) : std::nullopt;
  findings_.may_have_policies = !details || details->may_have_policies;
  return details ? std::move(details->entries) : read_smaps();
}

Result<void> MappingReader::read_all() {
  const std::size_t refused_before = refusals_.size();
  std::string before = MIGRATE_TRY(reread(view_.maps.get(), "/proc/PID/maps"));
  const std::vector<MapsEntry> shown = MIGRATE_TRY(parse_maps(before));
  const std::vector<MapsEntry> entries = MIGRATE_TRY(read_details(shown));
  const std::string after = MIGRATE_TRY(reread(view_.maps.get(), "/proc/PID/maps"));
  for (const MapsEntry& entry : entries) {
    add(entry, advice_of(entry), &entry);
  }
  check_ends();
  check_kernel_mappings();
  // Both readings of maps may be the same though a mapping was another one in between, when smaps
  // was read (memory that is protected and made writable again all the time).
  if (before == after && refusals_.size() == refused_before && !vanished_ &&
      same_mappings(entries, shown)) {
    findings_.maps_text = std::move(before);
  }
  return {};
}

Result<void> MappingReader::read_again(const wire::ProcessImage& draft, const std::string& text) {
  draft_ = &draft;
  if (text == findings_.maps_text) {
    keep_draft(draft);
    check_ends();
    return {};
  }
  const std::vector<MapsEntry> entries = MIGRATE_TRY(parse_maps(text));
  std::map<std::uint64_t, MapsEntry> details;  // of smaps, by start
  for (const MapsEntry& entry : entries) {
    std::optional<std::uint32_t> advice = draft_advice(entry, draft);
    const MapsEntry* flags = nullptr;
    if (!advice && (is_anonymous(entry) || entry.shared || entry.name.ends_with(kDeleted))) {
      if (details.empty()) {
        for (MapsEntry& detail : MIGRATE_TRY(read_details(entries))) {
          details.emplace(detail.start, std::move(detail));
        }
      }
      flags = &details[entry.start];
      advice = advice_of(*flags);
    }
    add(entry, advice.value_or(0), flags);
  }
  refresh_files();
  check_ends();
  return {};
}

// Not one line of maps has changed: what remains to be seen is whether pages of files were
// modified, and the files themselves.
void MappingReader::keep_draft(const wire::ProcessImage& draft) {
  *image_.mutable_mappings() = draft.mappings();
  for (wire::Mapping& mapping : *image_.mutable_mappings()) {
    if (mapping.kind() == wire::Mapping::FILE_LOCAL &&
        has_private_pages(view_.pagemap.get(), mapping.start(), mapping.end()).value_or(true)) {
      mapping.set_kind(wire::Mapping::FILE_COPY);
    }
    keep_guards(mapping.start(), mapping.end());
  }
  refresh_files();
}

void MappingReader::add(const MapsEntry& entry, std::uint32_t advice, const MapsEntry* flags) {
  if (entry.name == arch::kKernelPage) {
    return;
  }
  wire::Mapping mapping;
  mapping.set_start(entry.start);
  mapping.set_end(entry.end);
  mapping.set_protection(entry.protection);
  mapping.set_offset(entry.inode != 0 ? entry.offset : 0);
  mapping.set_name(entry.name);
  mapping.set_advice(advice);
  if (!classify(entry, mapping)) {
    return;
  }
  if (mapping.has_huge_pages() && !entry.shared) {
    mapping.set_advice(advice | wire::HUGE_PAGE);
  }
  if (flags != nullptr && !is_kernel_mapping(entry)) {
    check_flags(*flags, mapping);
    const int guards = image_.guards_size();
    if (mapping.kind() == wire::Mapping::ANONYMOUS) {
      add_guards(entry.start, entry.end);
    }
    if (image_.guards_size() != guards && (advice & wire::LOCKED) != 0) {
      refuse_mapping("GUARD_REGION", entry, "in locked memory");
    }
  } else {
    keep_guards(entry.start, entry.end);
  }
  *image_.add_mappings() = std::move(mapping);
}

bool MappingReader::classify(const MapsEntry& entry, wire::Mapping& mapping) {
  if (is_huge(entry.name) && !are_huge_pages(entry)) {
    return refuse_mapping("UNKNOWN_MAPPING", entry, "a deleted file of this name");
  }
  if (is_anonymous(entry)) {
    mapping.set_kind(wire::Mapping::ANONYMOUS);
    mapping.set_offset(0);
    mapping.set_has_huge_pages(is_huge(entry.name));
    return true;
  }
  if (is_kernel_mapping(entry)) {
    mapping.set_kind(entry.name == "[vdso]" ? wire::Mapping::VDSO : wire::Mapping::VVAR);
    return true;
  }
  if (is_memory(entry)) {
    return classify_memory(entry, mapping);
  }
  if (!entry.shared && is_memfd(entry.name)) {
    return classify_deleted(entry, mapping);
  }
  for (const RefusedName& refused : kRefusedNames) {
    const bool nameless = refused.prefix.front() == '/';
    if (entry.name.starts_with(refused.prefix) && (!nameless || entry.name.ends_with(kDeleted))) {
      return refuse_mapping(refused.code, entry);
    }
  }
  if (entry.name.starts_with('/') && entry.inode != 0) {
    return classify_file(entry, mapping);
  }
  return refuse_mapping("UNKNOWN_MAPPING", entry);
}

bool MappingReader::classify_memory(const MapsEntry& entry, wire::Mapping& mapping) {
  const auto known = findings_.mapped_memories.find(key_of(entry));
  std::uint32_t index = 0;
  if (known != findings_.mapped_memories.end()) {
    index = known->second;
  } else {
    const std::string name = map_files_name(entry);
    const UniqueFd file(entry.name.starts_with("/memfd:")
                            ? ::openat(view_.directory.get(), name.c_str(), O_RDONLY | O_CLOEXEC)
                            : -1);
    const auto added = add_memory(view_.directory.get(), name, entry.name, file.get(), findings_,
                                  shared_, objects_);
    if (!added) {
      return added.error().code == ErrorCode::kUnsupported
                 ? refuse_mapping("HUGETLB", entry)
                 : refuse_unless_gone(entry, added.error());
    }
    index = *added;
    findings_.mapped_memories.emplace(key_of(entry), index);
  }
  shared_.mappings.emplace(key_of(entry), SharedObjects::Mapped{true, describe(entry)});
  mapping.set_kind(wire::Mapping::SHARED_MEMORY);
  mapping.set_shared_memory(index);
  mapping.set_has_huge_pages(objects_.shared_memories(static_cast<int>(index)).has_huge_pages());
  return true;
}

bool MappingReader::classify_file(const MapsEntry& entry, wire::Mapping& mapping) {
  if (!entry.shared && entry.name == "/dev/zero") {
    mapping.set_kind(wire::Mapping::ANONYMOUS);
    mapping.set_offset(0);
    return true;
  }
  if (is_deleted(entry)) {
    return entry.shared ? classify_memory(entry, mapping) : classify_deleted(entry, mapping);
  }
  if (entry.shared && view_.files_as_memory.contains(entry.name)) {
    return classify_memory(entry, mapping);
  }
  std::uint32_t index = 0;
  if (!find_file(entry, index)) {
    return false;
  }
  mapping.set_file(index);
  const bool writable = (entry.protection & PROT_WRITE) != 0;
  if (entry.shared) {
    mapping.set_kind(wire::Mapping::SHARED_FILE);
    auto& shared = shared_.mappings[key_of(entry)];
    shared.writable |= writable;
    shared.description = describe(entry);
    return true;
  }
  // A scan that fails errs on the safe side: a copy is right in any case.
  const bool copy = writable || was_copy(entry) ||
                    has_private_pages(view_.pagemap.get(), entry.start, entry.end).value_or(true);
  mapping.set_kind(copy ? wire::Mapping::FILE_COPY : wire::Mapping::FILE_LOCAL);
  return true;
}

// A file that has no name any more.
bool MappingReader::is_deleted(const MapsEntry& entry) const {
  struct stat status {};
  return entry.name.ends_with(kDeleted) &&
         ::fstatat(view_.directory.get(), map_files_name(entry).c_str(), &status, 0) == 0 &&
         S_ISREG(status.st_mode) && status.st_nlink == 0;
}

// Any file may have had this name.
bool MappingReader::are_huge_pages(const MapsEntry& entry) const {
  const auto type = filesystem_type_at(view_.directory.get(), map_files_name(entry));
  return type && filesystem_class(*type) == FilesystemClass::kHugePages;
}

// The destination has no such file to copy from: all pages come from here.
bool MappingReader::classify_deleted(const MapsEntry& entry, wire::Mapping& mapping) {
  struct stat status {};
  if (::fstatat(view_.directory.get(), map_files_name(entry).c_str(), &status, 0) != 0) {
    return refuse_unless_gone(entry, system_error("stat", entry.name));
  }
  const std::uint64_t pages_end =
      (static_cast<std::uint64_t>(status.st_size) + kPageBytes - 1) & ~(kPageBytes - 1);
  if (entry.protection != PROT_NONE && entry.offset + (entry.end - entry.start) > pages_end) {
    return refuse_mapping("UNKNOWN_MAPPING", entry, kBeyondEnd);
  }
  mapping.set_kind(wire::Mapping::ANONYMOUS);
  mapping.set_offset(0);
  mapping.set_was_file(true);
  mapping.set_has_huge_pages(is_memfd(entry.name) && are_huge_pages(entry));
  return true;
}

// A program may unmap a part of them, or all.
void MappingReader::check_kernel_mappings() {
  const auto bytes_of = [this](wire::Mapping::Kind kind) {
    std::uint64_t bytes = 0;
    for (const wire::Mapping& mapping : image_.mappings()) {
      bytes += mapping.kind() == kind ? mapping.end() - mapping.start() : 0;
    }
    return bytes;
  };
  for (const auto& [kind, name] :
       {std::pair(wire::Mapping::VDSO, "vdso"), std::pair(wire::Mapping::VVAR, "vvar")}) {
    if (bytes_of(kind) < own_kernel_bytes(name)) {
      refuse(refusals_, "NO_VDSO", fmt::format("pid {}", view_.pid), name);
    }
  }
}

// A copy knows its pages only: beyond the end of the file the kernel raises SIGBUS, and shows what
// is appended.
void MappingReader::check_ends() {
  for (const wire::Mapping& mapping : image_.mappings()) {
    // Nobody sees what a mapping without rights holds, such as the gaps between a library's
    // segments.
    if (mapping.kind() != wire::Mapping::FILE_COPY || mapping.protection() == PROT_NONE) {
      continue;
    }
    const std::uint64_t size = objects_.mapped_files(static_cast<int>(mapping.file())).size_bytes();
    const std::uint64_t pages_end = (size + kPageBytes - 1) & ~(kPageBytes - 1);
    if (mapping.offset() + (mapping.end() - mapping.start()) > pages_end) {
      refuse(refusals_, "UNKNOWN_MAPPING",
             fmt::format("{:x}-{:x} {}", mapping.start(), mapping.end(), mapping.name()),
             kBeyondEnd);
    }
  }
}

// What was modified once stays so.
bool MappingReader::was_copy(const MapsEntry& entry) const {
  if (draft_ == nullptr) {
    return false;
  }
  const auto& mappings = draft_->mappings();
  const auto before =
      std::ranges::lower_bound(mappings, entry.start, std::less<>(), &wire::Mapping::start);
  return before != mappings.end() && before->start() == entry.start && before->end() == entry.end &&
         before->kind() == wire::Mapping::FILE_COPY;
}

bool MappingReader::find_file(const MapsEntry& entry, std::uint32_t& index) {
  const auto known = findings_.files.find(key_of(entry));
  const bool content_matters = !entry.shared || (entry.protection & PROT_WRITE) == 0;
  if (known != findings_.files.end()) {
    index = known->second;
    const auto& file = objects_.mapped_files(static_cast<int>(index));
    if (!content_matters || !file.build_id().empty() || !file.sha256().empty()) {
      return true;
    }
  }
  const std::string name = map_files_name(entry);
  auto identity = identify_at(view_.directory.get(), name, entry.name);
  if (!identity) {
    return refuse_unless_gone(entry, identity.error());
  }
  if (!S_ISREG(identity->mode())) {
    return refuse_mapping(
        S_ISCHR(identity->mode()) || S_ISBLK(identity->mode()) ? "DEVICE" : "UNKNOWN_MAPPING",
        entry);
  }
  const FilesystemClass kind = filesystem_class(identity->filesystem_type());
  if (kind == FilesystemClass::kKernel || kind == FilesystemClass::kHugePages) {
    return refuse_mapping(kind == FilesystemClass::kKernel ? "PROC_FILE" : "HUGETLB", entry);
  }
  if (kind == FilesystemClass::kUnknown) {
    return refuse_mapping("UNKNOWN_MAPPING", entry,
                          fmt::format("file system type {:#x}", identity->filesystem_type()));
  }
  if (!path_leads_to(view_, entry.name, *identity)) {
    return refuse_mapping("DELETED_FILE", entry);
  }
  if (content_matters) {
    const UniqueFd file(::openat(view_.directory.get(), name.c_str(), O_RDONLY | O_CLOEXEC));
    // Without it the destination has only device and inode to go by, and says so.
    if (file.valid()) {
      (void)add_content_identity(file.get(), kMappedHashLimitBytes, *identity);
    }
  }
  if (known == findings_.files.end()) {
    index = static_cast<std::uint32_t>(objects_.mapped_files_size());
    findings_.files.emplace(key_of(entry), index);
    *objects_.add_mapped_files() = std::move(*identity);
  } else {
    *objects_.mutable_mapped_files(static_cast<int>(index)) = std::move(*identity);
  }
  return true;
}

// Files that were written to since the draft have another size and time, perhaps another content.
void MappingReader::refresh_files() {
  for (wire::FileIdentity& file : *objects_.mutable_mapped_files()) {
    struct stat status {};
    if (::fstatat(view_.root.get(), file.path().c_str() + 1, &status, 0) != 0) {
      continue;  // The kernel has marked its mappings as deleted.
    }
    constexpr std::int64_t kSecond = 1'000'000'000;
    if (static_cast<std::uint64_t>(status.st_size) == file.size_bytes() &&
        status.st_mtim.tv_sec * kSecond + status.st_mtim.tv_nsec == file.mtime_ns()) {
      continue;
    }
    auto now = identify_at(view_.root.get(), file.path().substr(1), file.path());
    if (!now || !same_file(*now, file)) {
      continue;
    }
    if (!file.build_id().empty() || !file.sha256().empty()) {
      const UniqueFd opened(
          ::openat(view_.root.get(), file.path().c_str() + 1, O_RDONLY | O_CLOEXEC));
      if (opened.valid()) {
        (void)add_content_identity(opened.get(), kMappedHashLimitBytes, *now);
      }
    }
    file = std::move(*now);
  }
}

}  // namespace migrate::inspect
