// A memory file (memfd_create(2)) that is open as a descriptor, or a file on a disk that has no
// name any more: its bytes follow the image.
#include "libmigrate/carriers/internal/memory_file.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <string>
#include <utility>

#include "base/file.h"
#include "libmigrate/carriers/internal/table.h"
#include "libmigrate/carriers/internal/tools.h"
#include "libmigrate/carriers/memory_content.h"

namespace migrate::carriers {
namespace {

// The extents of the final image: of each page one at most, and some that the program writes
// between two looks at it.
std::uint64_t most_extent_bytes(const wire::Objects& objects) {
  constexpr std::uint64_t kMeanwhile = 1000;
  constexpr std::uint64_t kExtentBytes = 12;  // Two numbers, of files below 4 TiB.
  constexpr std::uint64_t kFileBlockBytes = 4096;
  std::uint64_t bytes = 0;
  for (const wire::SharedMemory& memory : objects.shared_memories()) {
    if (memory.open_descriptor()) {
      const std::uint64_t pieces = memory.data_bytes() / kFileBlockBytes + kMeanwhile;
      bytes += std::min<std::uint64_t>(
                   {pieces, memory.size_bytes() / kFileBlockBytes + 1, kMaxExtents}) *
               kExtentBytes;
    }
  }
  return bytes;
}

// The open file that is there is the process's, whose position must stay; and it may be for writing
// only.
Result<UniqueFd> open_again(int fd) {
  return open_file("/proc/self/fd/" + std::to_string(fd), O_RDONLY);
}

bool find_memory_file(FindContext& context, const Sighting& seen, wire::OpenFile& file) {
  const UniqueFd opened = context.fetch(seen.number);
  const auto index = context.add_memory(seen, opened.get());
  if (!index) {
    return index.error().code == ErrorCode::kUnsupported
               ? context.refuse("HUGETLB", seen)
               : context.refuse("UNKNOWN_DESCRIPTOR", seen, index.error().message());
  }
  wire::SharedMemory& memory = *context.objects().mutable_shared_memories(static_cast<int>(*index));
  memory.set_open_descriptor(true);
  const auto source = open_again(opened.get());
  const auto data =
      source ? data_of(source->get(), memory.size_bytes()) : Result<Extents>(fail(source.error()));
  if (!data) {
    return context.refuse("UNKNOWN_DESCRIPTOR", seen, data.error().message());
  }
  memory.set_data_bytes(bytes_in(*data));
  if (data->size() > kMaxExtents) {
    return context.refuse("LARGE_MEMFD", seen);
  }
  file.set_object(*index);
  return true;
}

// Its user can open it again by its name in /proc, where it is made anew: so he must be able to
// read it now.
void settle_memory_file(FindContext& context, std::uint32_t number, wire::OpenFile& file) {
  const auto is_readable = [&](const wire::OpenFile& other) {
    return other.kind() == wire::OpenFile::MEMFD && other.object() == file.object() &&
           (other.flags() & O_ACCMODE) != O_WRONLY;
  };
  const wire::Objects& objects = context.objects();
  const wire::SharedMemory& memory = objects.shared_memories(static_cast<int>(file.object()));
  struct stat process {};
  const std::string folder = "/proc/" + std::to_string(context.process());
  const bool owned = ::stat(folder.c_str(), &process) == 0 && process.st_uid == memory.owner() &&
                     (memory.mode() & S_IRUSR) != 0;
  if (process.st_uid != 0 && !owned && (memory.mode() & S_IROTH) == 0 &&
      std::none_of(objects.files().begin(), objects.files().end(), is_readable)) {
    context.refuse("NOT_READABLE", {.number = number, .link = memory.name()},
                   "it is open for writing only, and its user may not read it");
  }
}

std::uint64_t nanoseconds_of(const timespec& time) {
  constexpr std::int64_t kSecond = 1'000'000'000;
  return static_cast<std::uint64_t>(
      std::max<std::int64_t>(time.tv_sec * kSecond + time.tv_nsec, 0));
}

Result<void> capture_memory_file(CaptureContext& context, std::uint32_t number,
                                 const wire::OpenFile& file) {
  UniqueFd fd = MIGRATE_TRY(context.fetch(number));
  wire::SharedMemory& memory =
      *context.objects().mutable_shared_memories(static_cast<int>(file.object()));
  struct stat status {};
  if (::fstat(fd.get(), &status) != 0) {
    return fail(system_error("look at", descriptor_name(number)));
  }
  memory.set_size_bytes(static_cast<std::uint64_t>(status.st_size));
  memory.set_modified_ns(nanoseconds_of(status.st_mtim));
  memory.set_accessed_ns(nanoseconds_of(status.st_atim));
  const int seals = ::fcntl(fd.get(), F_GET_SEALS);
  memory.set_seals(static_cast<std::uint32_t>(seals >= 0 ? seals : F_SEAL_SEAL));
  memory.set_open_descriptor(true);
  UniqueFd source = MIGRATE_TRY(open_again(fd.get()));
  const Extents data = MIGRATE_TRY(data_of(source.get(), memory.size_bytes()));
  if (data.size() > kMaxExtents) {
    return fail(make_error(ErrorCode::kRetry, "carry", "a memory file",
                           "it came to be in more pieces while it was being moved; try again"));
  }
  set_extents(data, memory);
  context.follow(file.object(), std::move(source));
  return {};
}

const char* flaw_of_memory_file(const wire::Objects& objects, const wire::OpenFile& file) {
  return file.object() < static_cast<std::uint64_t>(objects.shared_memories_size())
             ? nullptr
             : "shared memory of files";
}

// The open file that memfd_create(2) gave stops nobody from executing the memory (ETXTBSY), as one
// that was opened for writing by its name in /proc does.
Result<UniqueFd> open_memory(MakeContext& context, const wire::OpenFile& file) {
  const int memory = context.memory(file.object());
  constexpr std::uint32_t kSetByOpening = O_SYNC;
  if ((file.flags() & O_ACCMODE) != O_RDWR || (file.flags() & kSetByOpening) != 0 ||
      !context.is_first_of_memory(file.object())) {
    return reopen(memory, file.flags());
  }
  UniqueFd fd(::fcntl(memory, F_DUPFD_CLOEXEC, 0));
  if (!fd.valid()) {
    return fail(system_error("duplicate a memory file"));
  }
  MIGRATE_TRY(set_flags(fd.get(), file.flags()));
  return fd;
}

Result<UniqueFd> make_memory_file(MakeContext& context, const wire::OpenFile& file) {
  const int memory = context.memory(file.object());
  UniqueFd fd = MIGRATE_TRY(open_memory(context, file));
  ::lseek(fd.get(), static_cast<off_t>(file.position()), SEEK_SET);
  const std::uint32_t seals =
      context.objects().shared_memories(static_cast<int>(file.object())).seals();
  // F_SEAL_SEAL is always set on a memfd made without MFD_ALLOW_SEALING.
  if (seals != 0 && ::fcntl(memory, F_ADD_SEALS, seals) != 0 && errno != EPERM) {
    return fail(system_error("seal a memory file"));
  }
  return fd;
}

constexpr std::array kMemoryFileLines = std::to_array<ShownLine>({
    {.name = "seals", .how = "of a memfd, by F_GET_SEALS"},
});

}  // namespace

bool is_deleted(const FindContext& context, const Sighting& seen) {
  struct stat status {};
  return ::fstatat(context.directory(), std::to_string(seen.number).c_str(), &status, 0) == 0 &&
         S_ISREG(status.st_mode) && status.st_nlink == 0;
}

bool find_deleted_file(FindContext& context, const Sighting& seen, wire::OpenFile& file) {
  if ((seen.flags & O_DIRECT) != 0) {
    return context.refuse("DELETED_FILE", seen, "memory in its place has no O_DIRECT");
  }
  file.set_kind(wire::OpenFile::MEMFD);
  file.clear_identity();
  file.set_flags(file.flags() & ~static_cast<std::uint32_t>(O_TMPFILE));
  return find_memory_file(context, seen, file);
}

constinit const Carrier kMemoryFile{
    .kind = wire::OpenFile::MEMFD,
    .name = "memory file",
    .lines = kMemoryFileLines,
    .claims_link =
        [](const FindContext& /*context*/, const Sighting& seen) {
          return seen.link.starts_with("/memfd:") && seen.link.ends_with(" (deleted)");
        },
    .find = find_memory_file,
    .settle = settle_memory_file,
    .capture = capture_memory_file,
    .most_content_bytes = most_extent_bytes,
    .flaw = flaw_of_memory_file,
    .make = make_memory_file,
};

}  // namespace migrate::carriers
