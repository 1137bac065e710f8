#include "libmigrate/restore/descriptors.h"

#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/signalfd.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/timerfd.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <string>

#include "base/clock.h"
#include "base/file.h"

#ifndef TFD_IOC_SET_TICKS
// NOLINTNEXTLINE(readability-identifier-naming): the kernel's name
#define TFD_IOC_SET_TICKS _IOW('T', 0, std::uint64_t)
#endif

namespace migrate {
namespace {

constexpr std::size_t kDescriptorsPerMessage = 250;
constexpr std::size_t kMessageBytes = 256;  // More than a cell's message.
constexpr std::uint32_t kCreationFlags = O_CREAT | O_EXCL | O_TRUNC | O_NOCTTY | O_CLOEXEC;
constexpr int kExpiryMs = 100;  // For a timer of one nanosecond.

Result<UniqueFd> owned(int fd, const char* operation, const std::string& object = {}) {
  if (fd < 0) {
    return fail(system_error(operation, object));
  }
  return UniqueFd(fd);
}

// F_SETFL covers what creation calls have no flag for.
Result<void> set_flags(int fd, std::uint32_t flags) {
  if (::fcntl(fd, F_SETFL, flags & (O_APPEND | O_NONBLOCK | O_DIRECT | O_NOATIME)) != 0) {
    return fail(system_error("set the flags of a descriptor"));
  }
  return {};
}

bool is_by_path(const wire::OpenFile& file) {
  return file.kind() == wire::OpenFile::REGULAR || file.kind() == wire::OpenFile::DIRECTORY ||
         file.kind() == wire::OpenFile::DEVICE;
}

Result<UniqueFd> open_by_path(const wire::OpenFile& file, FileUser::Scope& as_user) {
  const std::string& path = file.identity().path();
  UniqueFd fd =
      MIGRATE_TRY(as_user.open(file.identity(), static_cast<int>(file.flags() & ~kCreationFlags)));
  const bool positioned =
      file.kind() == wire::OpenFile::REGULAR || file.kind() == wire::OpenFile::DIRECTORY;
  if (positioned && file.position() != 0 &&
      ::lseek(fd.get(), static_cast<off_t>(file.position()), SEEK_SET) < 0) {
    return fail(system_error("seek in", path));
  }
  return fd;
}

Result<UniqueFd> make_eventfd(const wire::OpenFile& file) {
  UniqueFd fd = MIGRATE_TRY(
      owned(::eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK | (file.event_semaphore() ? EFD_SEMAPHORE : 0)),
            "make an eventfd"));
  const std::uint64_t count = file.event_count();
  if (count != 0 && ::write(fd.get(), &count, sizeof(count)) != sizeof(count)) {
    return fail(system_error("fill an eventfd"));
  }
  MIGRATE_TRY(set_flags(fd.get(), file.flags()));
  return fd;
}

Result<UniqueFd> make_timerfd(const wire::OpenFile& file) {
  UniqueFd fd = MIGRATE_TRY(
      owned(::timerfd_create(static_cast<int>(file.clock()), TFD_CLOEXEC), "make a timerfd"));
  // The remaining time is relative, so that the flag for absolute times is left out.
  // One that has expired and was not read yet has no time left; it starts again when it is read.
  const bool expired = file.ticks() != 0 && file.value_ns() == 0 && file.interval_ns() != 0;
  const itimerspec setting{to_timespec(file.interval_ns()),
                           to_timespec(expired ? 1 : file.value_ns())};
  if (::timerfd_settime(fd.get(), 0, &setting, nullptr) != 0) {
    return fail(system_error("set a timerfd"));
  }
  if (expired) {
    pollfd polled{fd.get(), POLLIN, 0};
    ::poll(&polled, 1, kExpiryMs);
  }
  std::uint64_t ticks = file.ticks();
  std::uint64_t since =
      0;  // It may have expired already, of which the ticks that are set say nothing.
  if (pollfd polled{fd.get(), POLLIN, 0};
      ticks != 0 && !expired && ::poll(&polled, 1, 0) == 1 &&
      ::read(fd.get(), &since, sizeof(since)) == sizeof(since)) {
    ticks += since;
  }
  if (ticks != 0 && ::ioctl(fd.get(), TFD_IOC_SET_TICKS, &ticks) != 0) {
    return fail(system_error("set the ticks of a timerfd", {},
                             "the kernel needs CONFIG_CHECKPOINT_RESTORE"));
  }
  MIGRATE_TRY(set_flags(fd.get(), file.flags()));
  return fd;
}

Result<UniqueFd> make_signalfd(const wire::OpenFile& file) {
  const std::uint64_t mask = file.signal_mask();
  // The raw call: glibc's wrapper takes its own, larger sigset_t.
  const long fd = ::syscall(SYS_signalfd4, -1, &mask, sizeof(mask), SFD_CLOEXEC);
  UniqueFd made = MIGRATE_TRY(owned(static_cast<int>(fd), "make a signalfd"));
  MIGRATE_TRY(set_flags(made.get(), file.flags()));
  return made;
}

// A second open file description of an object that we hold, with its own flags.
Result<UniqueFd> reopen(int fd, std::uint32_t flags) {
  return open_file("/proc/self/fd/" + std::to_string(fd),
                   static_cast<int>(flags & ~kCreationFlags));
}

Result<UniqueFd> make_memory_descriptor(const wire::OpenFile& file, const UniqueFd& memory,
                                        std::uint32_t seals) {
  UniqueFd fd = MIGRATE_TRY(reopen(memory.get(), file.flags()));
  if (file.position() != 0) {
    ::lseek(fd.get(), static_cast<off_t>(file.position()), SEEK_SET);
  }
  // F_SEAL_SEAL is always set on a memfd made without MFD_ALLOW_SEALING.
  if (seals != 0 && ::fcntl(memory.get(), F_ADD_SEALS, seals) != 0 && errno != EPERM) {
    return fail(system_error("seal a memory file"));
  }
  return fd;
}

struct PipeEnds {
  UniqueFd reader;
  UniqueFd writer;
};

Result<PipeEnds> make_pipe(const wire::Pipe& pipe) {
  int ends[2];
  if (::pipe2(ends, O_CLOEXEC) != 0) {
    return fail(system_error("make a pipe"));
  }
  PipeEnds made{UniqueFd(ends[0]), UniqueFd(ends[1])};
  const int capacity = std::max<int>(static_cast<int>(pipe.capacity_bytes()), kPageBytes);
  if (::fcntl(made.writer.get(), F_SETPIPE_SZ, capacity) < 0) {
    return fail(system_error("size a pipe", std::to_string(capacity) + " bytes"));
  }
  MIGRATE_TRY(write_all(made.writer.get(), std::as_bytes(std::span(pipe.content()))));
  return made;
}

// Pipe ends are handed out as they are first asked for, then reopened for further descriptions.
Result<UniqueFd> take_pipe_end(PipeEnds& ends, const wire::OpenFile& file) {
  const bool reads = (file.flags() & O_ACCMODE) == O_RDONLY;
  return reopen(reads ? ends.reader.get() : ends.writer.get(), file.flags());
}

/// Those of the image's files that are opened by their path, at their places.
Result<std::vector<UniqueFd>> open_by_paths(const wire::Image& image, const FileUser& user) {
  std::vector<UniqueFd> files(static_cast<std::size_t>(image.files_size()));
  FileUser::Scope as_user(user);
  for (std::size_t i = 0; i < files.size(); ++i) {
    const wire::OpenFile& file = image.files(static_cast<int>(i));
    if (is_by_path(file)) {
      files[i] = MIGRATE_TRY(open_by_path(file, as_user));
    }
  }
  return files;
}

}  // namespace

Result<std::vector<UniqueFd>> make_open_files(const wire::Image& image,
                                              const std::map<std::uint64_t, int>& relays,
                                              const std::vector<UniqueFd>& memories,
                                              const FileUser& user) {
  std::vector<PipeEnds> pipes;
  for (const wire::Pipe& pipe : image.pipes()) {
    pipes.push_back(MIGRATE_TRY(make_pipe(pipe)));
  }
  std::vector<UniqueFd> by_path = MIGRATE_TRY(open_by_paths(image, user));
  std::vector<UniqueFd> files;
  for (const wire::OpenFile& file : image.files()) {
    switch (file.kind()) {
      case wire::OpenFile::PIPE:
        files.push_back(MIGRATE_TRY(take_pipe_end(pipes.at(file.object()), file)));
        break;
      case wire::OpenFile::EVENTFD:
        files.push_back(MIGRATE_TRY(make_eventfd(file)));
        break;
      case wire::OpenFile::EPOLL:
        files.push_back(MIGRATE_TRY(owned(::epoll_create1(EPOLL_CLOEXEC), "make an epoll set")));
        break;
      case wire::OpenFile::TIMERFD:
        files.push_back(MIGRATE_TRY(make_timerfd(file)));
        break;
      case wire::OpenFile::SIGNALFD:
        files.push_back(MIGRATE_TRY(make_signalfd(file)));
        break;
      case wire::OpenFile::MEMFD:
        files.push_back(MIGRATE_TRY(make_memory_descriptor(
            file, memories.at(file.object()),
            image.shared_memories(static_cast<int>(file.object())).seals())));
        break;
      case wire::OpenFile::RELAY: {
        const auto relay = relays.find(file.object());
        if (relay == relays.end()) {
          return fail(make_error(ErrorCode::kCorrupt, "find relay", std::to_string(file.object())));
        }
        UniqueFd end = MIGRATE_TRY(
            owned(::fcntl(relay->second, F_DUPFD_CLOEXEC, 0), "duplicate a relay's end"));
        MIGRATE_TRY(set_flags(end.get(), file.flags()));
        files.push_back(std::move(end));
        break;
      }
      default:
        files.push_back(std::move(by_path.at(files.size())));
        break;
    }
  }
  return files;
}

Result<void> script_receive(Script& script, Cell& cell, std::span<const int> descriptors) {
  for (std::size_t first = 0; first < descriptors.size(); first += kDescriptorsPerMessage) {
    const auto part =
        descriptors.subspan(first, std::min(kDescriptorsPerMessage, descriptors.size() - first));
    MIGRATE_TRY(cell.send_to_seed(part));
    msghdr header{};
    iovec vector{};
    vector.iov_base = reinterpret_cast<void*>(  // NOLINT(performance-no-int-to-ptr): its address
        script.reserve(kMessageBytes));
    vector.iov_len = kMessageBytes;
    const std::uint64_t vector_at = script.put_value(vector);
    header.msg_iov = reinterpret_cast<iovec*>(vector_at);  // NOLINT(performance-no-int-to-ptr)
    header.msg_iovlen = 1;
    header.msg_controllen = CMSG_SPACE(part.size_bytes());
    header.msg_control = reinterpret_cast<void*>(  // NOLINT(performance-no-int-to-ptr)
        script.reserve(header.msg_controllen));
    script.must("receive descriptors", SYS_recvmsg,
                {cell.seed_descriptor(), script.put_value(header), 0});
  }
  return {};
}

std::uint32_t highest_descriptor(const wire::Image& image) {
  std::uint32_t highest = 0;
  for (const wire::Descriptor& descriptor : image.descriptors()) {
    highest = std::max(highest, descriptor.number());
  }
  return highest;
}

void script_descriptor_table(Script& script, const wire::Image& image,
                             std::uint32_t seed_descriptor) {
  const auto count = static_cast<std::uint64_t>(image.files_size());
  // Above everything wanted, so that no dup3 hits a file not yet placed.
  const std::uint64_t staging = std::max(highest_descriptor(image), seed_descriptor) + 1;
  for (std::uint64_t i = 0; i < count; ++i) {
    script.must("stage a descriptor", SYS_dup3, {i, staging + i, O_CLOEXEC});
  }
  script.must("clear the descriptor table", SYS_close_range, {0, staging - 1, 0});
  for (const wire::Descriptor& descriptor : image.descriptors()) {
    script.must("place", SYS_dup3,
                {staging + descriptor.file(), descriptor.number(),
                 descriptor.close_on_exec() ? static_cast<std::uint64_t>(O_CLOEXEC) : 0U},
                "descriptor " + std::to_string(descriptor.number()));
  }
  script.must("close what was staged", SYS_close_range, {staging, ~0U, 0});
  for (const wire::Descriptor& descriptor : image.descriptors()) {
    const wire::OpenFile& file = image.files(static_cast<int>(descriptor.file()));
    const bool first = std::none_of(
        image.descriptors().begin(), image.descriptors().end(), [&](const auto& other) {
          return other.file() == descriptor.file() && other.number() < descriptor.number();
        });
    if (file.kind() != wire::OpenFile::EPOLL || !first) {
      continue;
    }
    for (const wire::EpollWatch& watch : file.watches()) {
      epoll_event event{};
      event.events = watch.events();
      event.data.u64 = watch.data();
      script.must("watch", SYS_epoll_ctl,
                  {descriptor.number(), EPOLL_CTL_ADD, watch.target(), script.put_value(event)},
                  "descriptor " + std::to_string(watch.target()));
    }
  }
}

}  // namespace migrate
