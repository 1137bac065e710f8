#include "libmigrate/home/real_files.h"

#include <fcntl.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <set>
#include <utility>

#include "base/log.h"
#include "libmigrate/image/only_process.h"
#include "libmigrate/relay/guest_relay.h"

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
  for (const wire::Descriptor& descriptor : only_process(image).descriptors()) {
    const wire::OpenFile& file = image.objects().files(static_cast<int>(descriptor.file()));
    if (file.kind() == wire::OpenFile::RELAY && seen.insert(file.object()).second) {
      found.emplace_back(descriptor.number(), &file);
    }
  }
  return found;
}

UniqueFd descriptor_of(const UniqueFd& pidfd, std::uint32_t number) {
  return UniqueFd(static_cast<int>(::syscall(SYS_pidfd_getfd, pidfd.get(), number, 0)));
}

const wire::OpenFile& file_of(const wire::Image& image, const wire::Descriptor& descriptor) {
  return image.objects().files(static_cast<int>(descriptor.file()));
}

}  // namespace

wire::RelayState RealFiles::fresh_relay(const wire::Image& image) {
  std::vector<RelayStreamSpec> specs;
  for (const auto& [number, file] : relayed(image)) {
    specs.push_back({static_cast<std::uint32_t>(file->object()), directions_of(file->flags())});
  }
  return make_relay_state(specs);
}

Result<void> RealFiles::fetch_streams(pid_t holder, const wire::Image& image) {
  return fetch(holder, image, true);
}

void RealFiles::fetch_streams_left(pid_t holder, const wire::Image& image) {
  static_cast<void>(fetch(holder, image, false));  // Has no errors then.
}

Result<void> RealFiles::fetch(pid_t holder, const wire::Image& image, bool must_be_there) {
  streams_.clear();
  const UniqueFd pidfd(static_cast<int>(::syscall(SYS_pidfd_open, holder, 0)));
  for (const auto& [number, file] : relayed(image)) {
    UniqueFd real = descriptor_of(pidfd, number);
    if (!real.valid() && must_be_there) {
      return fail(system_error("fetch", "descriptor " + std::to_string(number)));
    }
    streams_.push_back({static_cast<std::uint32_t>(file->object()), std::move(real),
                        directions_of(file->flags())});
  }
  return {};
}

void RealFiles::note_streams(const wire::HomeRelayState& noted) {
  for (const wire::HomeRelayState::Stream& stream : noted.streams()) {
    streams_.push_back(
        {stream.id(), UniqueFd(), static_cast<wire::RelayDirection>(stream.directions())});
  }
}

void RealFiles::fetch_shared(pid_t holder, const wire::Image& image) {
  const UniqueFd pidfd(static_cast<int>(::syscall(SYS_pidfd_open, holder, 0)));
  for (const wire::Descriptor& descriptor : only_process(image).descriptors()) {
    const wire::OpenFile& file = file_of(image, descriptor);
    if (file.shared_id() != 0 && !shared_.contains(file.shared_id())) {
      shared_.emplace(file.shared_id(), descriptor_of(pidfd, descriptor.number()));
    }
  }
}

void RealFiles::set_positions(const wire::RelayExited& exited, const std::string& name) {
  for (const wire::RelayExited::Position& position : exited.positions()) {
    const auto file = shared_.find(position.shared_id());
    if (file != shared_.end() &&
        ::lseek(file->second.get(), static_cast<off_t>(position.offset()), SEEK_SET) < 0) {
      log::warn("{}", system_error("set the position of a file of", "process " + name).message());
    }
  }
  shared_.clear();
}

std::vector<std::uint32_t> descriptors_of_stream(const wire::Image& image, std::uint32_t id) {
  std::vector<std::uint32_t> numbers;
  for (const wire::Descriptor& descriptor : only_process(image).descriptors()) {
    const wire::OpenFile& file = file_of(image, descriptor);
    if (file.kind() == wire::OpenFile::RELAY && file.object() == id) {
      numbers.push_back(descriptor.number());
    }
  }
  return numbers;
}

std::set<std::uint32_t> descriptors_to_keep(const wire::Image& image, bool with_shared) {
  std::set<std::uint32_t> kept;
  for (const wire::Descriptor& descriptor : only_process(image).descriptors()) {
    const wire::OpenFile& file = file_of(image, descriptor);
    if (file.kind() == wire::OpenFile::RELAY || (with_shared && file.shared_id() != 0)) {
      kept.insert(descriptor.number());
    }
  }
  return kept;
}

}  // namespace migrate
