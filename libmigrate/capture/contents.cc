#include "libmigrate/capture/contents.h"

#include <fcntl.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <algorithm>
#include <string>

#include "base/file.h"
#include "base/unique_fd.h"

namespace migrate {
namespace {

std::string descriptor_name(std::uint32_t number) {
  return "descriptor " + std::to_string(number);
}

Result<UniqueFd> fetch(int pidfd, std::uint32_t number) {
  const long fd = ::syscall(SYS_pidfd_getfd, pidfd, number, 0);
  if (fd < 0) {
    return fail(system_error("fetch", descriptor_name(number)));
  }
  return UniqueFd(static_cast<int>(fd));
}

// The bytes in a pipe, by tee(2), which leaves them there.
Result<std::string> peek_pipe(int fd, int capacity) {
  int ends[2];
  if (::pipe2(ends, O_CLOEXEC) != 0) {
    return fail(system_error("make a pipe"));
  }
  UniqueFd reader(ends[0]);
  UniqueFd writer(ends[1]);
  if (::fcntl(writer.get(), F_SETPIPE_SZ, std::max(capacity, static_cast<int>(kPageBytes))) < 0) {
    return fail(system_error("size a pipe", std::to_string(capacity) + " bytes"));
  }
  int waiting = 0;
  if (::ioctl(fd, FIONREAD, &waiting) != 0 || waiting == 0) {
    return std::string();
  }
  const ssize_t count =
      ::tee(fd, writer.get(), static_cast<std::size_t>(capacity), SPLICE_F_NONBLOCK);
  if (count != waiting) {
    return fail(system_error("copy the content of a pipe"));
  }
  writer.reset();
  return read_all(reader.get(), "read a pipe");
}

Result<std::string> read_memory_file(int fd, std::uint64_t size) {
  if (size > kMaxMemoryFileBytes) {
    return fail(
        make_error(ErrorCode::kRefused, "carry",
                   "a memfd of " + std::to_string(size) + " bytes that is open as a descriptor",
                   "close its descriptor after mapping it"));
  }
  std::string content(size, '\0');
  std::size_t done = 0;
  while (done < size) {
    const ssize_t count = ::pread(fd, content.data() + done, size - done, static_cast<off_t>(done));
    if (count <= 0) {
      return fail(system_error("read a memory file"));
    }
    done += static_cast<std::size_t>(count);
  }
  const auto last = content.find_last_not_of('\0');
  content.resize(last == std::string::npos ? 0 : last + 1);
  return content;
}

// O_RDONLY memory files can be read as they are; write-only ones through /proc.
Result<UniqueFd> readable(UniqueFd fd) {
  const int flags = ::fcntl(fd.get(), F_GETFL);
  if (flags >= 0 && (flags & O_ACCMODE) != O_WRONLY) {
    return fd;
  }
  return open_file("/proc/self/fd/" + std::to_string(fd.get()), O_RDONLY);
}

}  // namespace

Result<void> capture_contents(pid_t process, wire::Image& image) {
  UniqueFd pidfd;
  for (const wire::Descriptor& descriptor : image.descriptors()) {
    const wire::OpenFile& file = image.files(static_cast<int>(descriptor.file()));
    const bool pipe_reader =
        file.kind() == wire::OpenFile::PIPE && (file.flags() & O_ACCMODE) != O_WRONLY;
    if (!pipe_reader && file.kind() != wire::OpenFile::MEMFD) {
      continue;
    }
    if (!pidfd.valid()) {
      pidfd = UniqueFd(static_cast<int>(::syscall(SYS_pidfd_open, process, 0)));
      if (!pidfd.valid()) {
        return fail(system_error("open", "process " + std::to_string(process)));
      }
    }
    UniqueFd fd = MIGRATE_TRY(fetch(pidfd.get(), descriptor.number()));
    if (pipe_reader) {
      wire::Pipe& pipe = *image.mutable_pipes(static_cast<int>(file.object()));
      const int capacity = ::fcntl(fd.get(), F_GETPIPE_SZ);
      if (capacity < 0) {
        return fail(system_error("size", descriptor_name(descriptor.number())));
      }
      pipe.set_capacity_bytes(static_cast<std::uint32_t>(capacity));
      pipe.set_content(MIGRATE_TRY(peek_pipe(fd.get(), capacity)));
      continue;
    }
    wire::SharedMemory& memory = *image.mutable_shared_memories(static_cast<int>(file.object()));
    struct stat status {};
    if (::fstat(fd.get(), &status) != 0) {
      return fail(system_error("look at", descriptor_name(descriptor.number())));
    }
    memory.set_size_bytes(static_cast<std::uint64_t>(status.st_size));
    const int seals = ::fcntl(fd.get(), F_GET_SEALS);
    memory.set_seals(seals > 0 ? static_cast<std::uint32_t>(seals) : 0U);
    memory.set_open_descriptor(true);
    const UniqueFd source = MIGRATE_TRY(readable(std::move(fd)));
    memory.set_content(MIGRATE_TRY(read_memory_file(source.get(), memory.size_bytes())));
  }
  return {};
}

}  // namespace migrate
