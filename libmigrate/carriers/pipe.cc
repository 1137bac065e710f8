// A pipe: carried with what is in it if both ends are inside the process, else a relayed stream.
#include <fcntl.h>
#include <fmt/core.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <span>
#include <string>
#include <utility>

#include "base/file.h"
#include "base/owner_scope.h"
#include "libmigrate/carriers/internal/relayed.h"
#include "libmigrate/carriers/internal/table.h"
#include "libmigrate/carriers/internal/tools.h"
#include "pager/page_range.h"

namespace migrate::carriers {
namespace {

constexpr mode_t kPermissions = 0777;

bool find_pipe(FindContext& context, const Sighting& seen, wire::OpenFile& file) {
  if ((seen.flags & O_DIRECT) != 0) {
    return context.refuse("UNKNOWN_DESCRIPTOR", seen, "a pipe in packet mode (O_DIRECT)");
  }
  const std::uint64_t inode = inode_in(seen.link);
  const std::uint32_t access = seen.flags & O_ACCMODE;
  PipeSeen& pipe = context.pipe(inode);
  pipe.readable |= access != O_WRONLY;
  pipe.writable |= access != O_RDONLY;
  pipe.number = seen.number;
  file.set_object(inode);  // until settle_pipe()
  return true;
}

void settle_pipe(FindContext& context, std::uint32_t number, wire::OpenFile& file) {
  const std::uint64_t inode = file.object();
  PipeSeen& seen = context.pipe(inode);
  if (!seen.readable || !seen.writable) {
    if (context.is_guest()) {  // No deputy has the other end.
      context.refuse("PIPE_ABROAD",
                     Sighting{.number = number, .link = fmt::format("pipe:[{}]", inode)});
    }
    relay_to(context, number, fmt::format("pipe:[{}]", inode), file);
    return;
  }
  if (!seen.object) {
    seen.object = static_cast<std::uint64_t>(context.objects().pipes_size());
    wire::Pipe& pipe = *context.objects().add_pipes();
    pipe.set_inode(inode);
    const UniqueFd end = context.fetch(seen.number);
    struct stat status {};
    if (end.valid() && ::fstat(end.get(), &status) == 0) {
      pipe.set_mode(status.st_mode & kPermissions);
      pipe.set_owner(status.st_uid);
      pipe.set_group(status.st_gid);
    }
    if (const int capacity = end.valid() ? ::fcntl(end.get(), F_GETPIPE_SZ) : -1; capacity > 0) {
      pipe.set_capacity_bytes(static_cast<std::uint32_t>(capacity));
    }
    context.expect_private_pipe(inode,
                                fmt::format("descriptor {} -> pipe:[{}]", seen.number, inode));
  }
  file.set_object(*seen.object);
}

Result<MadePipe> make_empty_pipe(int capacity) {
  int ends[2];
  if (::pipe2(ends, O_CLOEXEC) != 0) {
    return fail(system_error("make a pipe"));
  }
  MadePipe made{.reader = UniqueFd(ends[0]), .writer = UniqueFd(ends[1])};
  const int bytes = std::max(capacity, static_cast<int>(kPageBytes));
  if (::fcntl(made.writer.get(), F_SETPIPE_SZ, bytes) < 0) {
    return fail(system_error("size a pipe", std::to_string(bytes) + " bytes"));
  }
  return made;
}

// The bytes in a pipe, by tee(2), which leaves them there.
Result<std::string> peek_pipe(int fd, int capacity) {
  MadePipe copy = MIGRATE_TRY(make_empty_pipe(capacity));
  int waiting = 0;
  if (::ioctl(fd, FIONREAD, &waiting) != 0 || waiting == 0) {
    return std::string();
  }
  const ssize_t count =
      ::tee(fd, copy.writer.get(), static_cast<std::size_t>(capacity), SPLICE_F_NONBLOCK);
  if (count != waiting) {
    return fail(system_error("copy the content of a pipe"));
  }
  copy.writer.reset();
  return read_all(copy.reader.get(), "read a pipe");
}

Result<void> capture_pipe(CaptureContext& context, std::uint32_t number,
                          const wire::OpenFile& file) {
  if ((file.flags() & O_ACCMODE) == O_WRONLY) {
    return {};  // The other end tells.
  }
  const UniqueFd fd = MIGRATE_TRY(context.fetch(number));
  wire::Pipe& pipe = *context.objects().mutable_pipes(static_cast<int>(file.object()));
  const int capacity = ::fcntl(fd.get(), F_GETPIPE_SZ);
  if (capacity < 0) {
    return fail(system_error("size", descriptor_name(number)));
  }
  pipe.set_capacity_bytes(static_cast<std::uint32_t>(capacity));
  pipe.set_content(MIGRATE_TRY(peek_pipe(fd.get(), capacity)));
  return {};
}

// Its user may make the pipe larger, and fill it, until it is frozen.
std::uint64_t most_pipe_bytes(const wire::Objects& objects) {
  constexpr std::uint64_t kGrowthBytes = 1U << 20U;  // pipe-max-size is that for all but root.
  std::uint64_t bytes = 0;
  for (const wire::Pipe& pipe : objects.pipes()) {
    bytes += pipe.capacity_bytes() + kGrowthBytes;
  }
  return bytes;
}

const char* flaw_of_pipe(const wire::Objects& objects, const wire::OpenFile& file) {
  return file.object() < static_cast<std::uint64_t>(objects.pipes_size()) ? nullptr
                                                                          : "pipe of files";
}

// The pipe is made for the first of its open files; each has a description of its own.
Result<UniqueFd> make_pipe_end(MakeContext& context, const wire::OpenFile& file) {
  MadePipe& pipe = context.pipe(file.object());
  const wire::Pipe& seen = context.objects().pipes(static_cast<int>(file.object()));
  if (!pipe.reader.valid()) {
    {
      const OwnerScope as_owner(seen.owner(), seen.group());
      pipe = MIGRATE_TRY(make_empty_pipe(static_cast<int>(seen.capacity_bytes())));
      if (::fchmod(pipe.writer.get(), seen.mode()) != 0) {
        return fail(system_error("set the mode of a pipe"));
      }
    }
    MIGRATE_TRY(write_all(pipe.writer.get(), std::as_bytes(std::span(seen.content()))));
  }
  const bool reads = (file.flags() & O_ACCMODE) == O_RDONLY;
  const UniqueFd& end = reads ? pipe.reader : pipe.writer;
  // open(2) adds O_LARGEFILE, which pipe2(2) does not: fcntl(2) shows it.
  constexpr std::uint32_t kLargeFile = 0100000;
  bool& given = reads ? pipe.reader_given : pipe.writer_given;
  if (!std::exchange(given, true) && (file.flags() & kLargeFile) == 0 &&
      (file.flags() & O_ACCMODE) != O_RDWR) {
    UniqueFd own = MIGRATE_TRY(owned(::fcntl(end.get(), F_DUPFD_CLOEXEC, 0), "duplicate a pipe"));
    MIGRATE_TRY(set_flags(own.get(), file.flags()));
    return own;
  }
  const OwnerScope as_owner(seen.owner(), seen.group());  // Who may open it again.
  return reopen(end.get(), file.flags());
}

}  // namespace

constinit const Carrier kPipe{
    .kind = wire::OpenFile::PIPE,
    .name = "pipe",
    .claims_link =
        [](const FindContext& context, const Sighting& seen) {
          return seen.link.starts_with("pipe:[") && !is_known_relay(context, seen);
        },
    .find = find_pipe,
    .settle = settle_pipe,
    .capture = capture_pipe,
    .most_content_bytes = most_pipe_bytes,
    .flaw = flaw_of_pipe,
    .make = make_pipe_end,
};

}  // namespace migrate::carriers
