// What a home worker keeps open of its process: ends of relayed streams, and shared files.
#include <fcntl.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <set>
#include <utility>

#include "base/log.h"
#include "libmigrate/home/home_worker.h"
#include "libmigrate/relay/resident_relay.h"

namespace migrate {
namespace {

wire::RelayDirection directions_of(std::uint32_t flags) {
  switch (flags & O_ACCMODE) {
    case O_RDONLY:
      return wire::RELAY_IN;
    case O_WRONLY:
      return wire::RELAY_OUT;
    default:
      return wire::RELAY_BOTH;
  }
}

// The relayed descriptors of an image: for each stream one description.
std::vector<std::pair<std::uint32_t, const wire::OpenFile*>> relayed(const wire::Image& image) {
  std::vector<std::pair<std::uint32_t, const wire::OpenFile*>> found;
  std::set<std::uint64_t> seen;
  for (const wire::Descriptor& descriptor : image.descriptors()) {
    const wire::OpenFile& file = image.files(static_cast<int>(descriptor.file()));
    if (file.kind() == wire::OpenFile::RELAY && seen.insert(file.object()).second) {
      found.emplace_back(descriptor.number(), &file);
    }
  }
  return found;
}

}  // namespace

wire::RelayState HomeWorker::fresh_relay(const wire::Image& image) {
  std::vector<RelayStreamSpec> specs;
  for (const auto& [number, file] : relayed(image)) {
    specs.push_back({static_cast<std::uint32_t>(file->object()), directions_of(file->flags())});
  }
  return make_relay_state(specs);
}

// `adopted`: from the deputy or its keeper, which has closed what was closed meanwhile.
Result<void> HomeWorker::fetch_streams(const wire::Image& image, bool adopted) {
  streams_.clear();
  const pid_t holder = adopted ? move_->parked().process() : request_.pid;
  const UniqueFd pidfd(static_cast<int>(::syscall(SYS_pidfd_open, holder, 0)));
  for (const auto& [number, file] : relayed(image)) {
    UniqueFd real(static_cast<int>(::syscall(SYS_pidfd_getfd, pidfd.get(), number, 0)));
    if (!real.valid() && !adopted) {
      return fail(system_error("fetch", "descriptor " + std::to_string(number)));
    }
    streams_.push_back({static_cast<std::uint32_t>(file->object()), std::move(real),
                        directions_of(file->flags())});
  }
  return {};
}

// Open files that an ancestor of the process has open too.
void HomeWorker::fetch_shared_files() {
  const UniqueFd pidfd(static_cast<int>(::syscall(SYS_pidfd_open, request_.pid, 0)));
  for (const wire::Descriptor& descriptor : move_->image().descriptors()) {
    const wire::OpenFile& file = move_->image().files(static_cast<int>(descriptor.file()));
    if (file.shared_id() != 0 && !shared_files_.contains(file.shared_id())) {
      shared_files_.emplace(file.shared_id(),
                            UniqueFd(static_cast<int>(
                                ::syscall(SYS_pidfd_getfd, pidfd.get(), descriptor.number(), 0))));
    }
  }
}

// Who goes on with such a file goes on where the process left it.
void HomeWorker::set_positions(const wire::RelayExited& exited) {
  for (const wire::RelayExited::Position& position : exited.positions()) {
    const auto file = shared_files_.find(position.shared_id());
    if (file != shared_files_.end() &&
        ::lseek(file->second.get(), static_cast<off_t>(position.offset()), SEEK_SET) < 0) {
      log::warn("{}",
                system_error("set the position of a file of", "process " + command_).message());
    }
  }
}

// The process closed one of its ends: whoever is at the other end of the real one shall see it.
void HomeWorker::close_stream(std::uint32_t id, wire::RelayDirection) {
  std::vector<std::uint32_t> closed;
  for (const wire::Descriptor& descriptor : move_->image().descriptors()) {
    const wire::OpenFile& file = move_->image().files(static_cast<int>(descriptor.file()));
    if (file.kind() == wire::OpenFile::RELAY && file.object() == id) {
      closed.push_back(descriptor.number());
    }
  }
  if (deputy_gone_ && !keeper_lives_) {
    return;
  }
  if (auto done = move_->parked().close(closed); !done) {
    log::warn("{}", done.error().message());
  }
}

}  // namespace migrate
