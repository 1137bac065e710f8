#include "tests/libmigrate/carriers/hosts.h"

#include <fcntl.h>
#include <gtest/gtest.h>
#include <sys/epoll.h>
#include <sys/inotify.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#include <array>
#include <utility>

#include "base/file.h"
#include "libmigrate/carriers/memory_content.h"
#include "libmigrate/proc/file_identity.h"
#include "libmigrate/proc/proc_text.h"

namespace migrate::test {
namespace {

using carriers::carrier_of;
using carriers::Sighting;

UniqueFd duplicate(int fd) {
  return UniqueFd(::fcntl(fd, F_DUPFD_CLOEXEC, 0));
}

/// Fetches from this process.
class OwnContents : public carriers::CaptureContext {
 public:
  explicit OwnContents(wire::Objects& objects) : objects_(objects) {}

  wire::Objects& objects() override { return objects_; }
  Result<UniqueFd> fetch(std::uint32_t number) override {
    return duplicate(static_cast<int>(number));
  }
  void follow(std::uint64_t memory, UniqueFd source) override {
    files_.insert_or_assign(memory, std::move(source));
  }
  const carriers::ContentFiles& files() const { return files_; }

 private:
  wire::Objects& objects_;
  carriers::ContentFiles files_;
};

}  // namespace

int Source::find(int fd) {
  if (!directory_.valid()) {
    directory_ = open_file("/proc/self/fd", O_RDONLY | O_DIRECTORY).value();
  }
  const std::string number = std::to_string(fd);
  Sighting seen;
  seen.number = static_cast<std::uint32_t>(fd);
  seen.link = read_link_at(directory_.get(), number).value();
  seen.details = read_file("/proc/self/fdinfo/" + number).value();
  seen.flags = static_cast<std::uint32_t>(number_field(seen.details, "flags:", 8));
  wire::OpenFile file;
  file.set_flags(seen.flags & ~static_cast<std::uint32_t>(O_CLOEXEC));
  file.set_position(number_field(seen.details, "pos:"));
  if (!find(seen, file)) {
    return -1;
  }
  const int index = objects_.files_size();
  *objects_.add_files() = std::move(file);
  wire::Descriptor& descriptor = descriptors_.emplace_back();
  descriptor.set_number(seen.number);
  descriptor.set_file(static_cast<std::uint32_t>(index));
  return index;
}

bool Source::find(const Sighting& seen, wire::OpenFile& file) {
  return carriers::find_object(*this, seen, file);
}

void Source::settle() {
  for (const wire::Descriptor& descriptor : descriptors_) {
    wire::OpenFile& found = file(static_cast<int>(descriptor.file()));
    if (const auto settle_one = carrier_of(found.kind()).settle; settle_one != nullptr) {
      settle_one(*this, descriptor.number(), found);
    }
  }
}

Result<void> Source::capture() {
  OwnContents contents(objects_);
  for (const wire::Descriptor& descriptor : descriptors_) {
    const wire::OpenFile& found = file(static_cast<int>(descriptor.file()));
    if (const auto capture_one = carrier_of(found.kind()).capture; capture_one != nullptr) {
      MIGRATE_TRY(capture_one(contents, descriptor.number(), found));
    }
  }
  for (carriers::ContentPlace place(objects_); !place.at_end();) {
    content_ += MIGRATE_TRY(carriers::read_content(place, contents.files()));
  }
  return {};
}

pid_t Source::process() const {
  return ::getpid();
}

pid_t Destination::process() const {
  return ::getpid();
}

UniqueFd Source::fetch(std::uint32_t number) const {
  return duplicate(static_cast<int>(number));
}

bool Source::refuse(std::string_view code, const Sighting& /*seen*/, std::string_view /*detail*/) {
  refusals_.emplace_back(code);
  return false;
}

bool Source::leads_to(const std::string& path, const wire::FileIdentity& identity) const {
  const auto here = identify_at(AT_FDCWD, path, path);
  return here && same_file(*here, identity);
}

std::uint64_t Source::shared_id(const Sighting& /*seen*/) const {
  return shared;
}

Result<std::uint32_t> Source::add_memory(const Sighting& seen, int fd) {
  if (huge_pages) {
    return fail(make_error(ErrorCode::kUnsupported, "carry huge pages of", seen.link));
  }
  struct stat status {};
  EXPECT_EQ(::fstat(fd, &status), 0);
  const auto [place, added] =
      memories_.emplace(status.st_ino, static_cast<std::uint32_t>(objects_.shared_memories_size()));
  if (added) {
    objects_.add_shared_memories()->set_size_bytes(static_cast<std::uint64_t>(status.st_size));
  }
  return place->second;
}

void Source::expect_private_pipe(std::uint64_t inode, std::string /*object*/) {
  private_pipes.insert(inode);
}

void Source::expect_private_terminal(std::uint64_t /*instance*/, std::uint64_t device,
                                     bool /*is_of_session*/, std::string /*object*/) {
  private_terminals.insert(device);
}

std::optional<std::uint64_t> Source::known_stream(std::uint64_t inode) const {
  const auto known = known_relays.find(inode);
  return known == known_relays.end() ? std::nullopt : std::optional(known->second);
}

std::optional<std::uint64_t> Source::known_terminal(std::uint64_t device) const {
  const auto known = known_terminals.find(device);
  return known == known_terminals.end() ? std::nullopt : std::optional(known->second);
}

std::uint64_t Source::stream_to(std::uint32_t /*number*/, const std::string& /*object*/) {
  return next_stream_++;
}

std::vector<std::string> Destination::compare(const wire::OpenFile& file, bool same_kernel) {
  same_kernel_ = same_kernel;
  refusals_.clear();
  if (const auto compare_one = carrier_of(file.kind()).compare; compare_one != nullptr) {
    compare_one(*this, file);
  }
  return refusals_;
}

Result<UniqueFd> Destination::make(const wire::OpenFile& file) {
  EXPECT_EQ(carriers::flaw_of(objects_, file), nullptr);
  made_ = file;
  return carrier_of(file.kind()).make(*this, file);
}

void Destination::refuse(std::string_view code, std::string_view /*detail*/) {
  refusals_.emplace_back(code);
}

Result<UniqueFd> Destination::open(const wire::FileIdentity& file, int flags) {
  return open_file(file.path(), flags);
}

// As the restorer makes it in the process.
carriers::MadeSocketPair& Destination::socket_pair(std::uint64_t index) {
  const auto [place, added] = socket_pairs_.try_emplace(index);
  if (added) {
    const auto type = objects_.socket_pairs(static_cast<int>(index)).type();
    std::array<int, 2> ends{};
    EXPECT_EQ(::socketpair(AF_UNIX, static_cast<int>(type) | SOCK_CLOEXEC, 0, ends.data()), 0);
    place->second.first.reset(ends[0]);
    place->second.second.reset(ends[1]);
  }
  return place->second;
}

// As the restorer has them made in the process.
UniqueFd Destination::created() {
  if (made_.kind() == wire::OpenFile::OPEN_SOCKET) {
    const wire::OpenSocket& socket = objects_.open_sockets(static_cast<int>(made_.object()));
    return UniqueFd(::socket(static_cast<int>(socket.domain()),
                             (socket.is_datagram() ? SOCK_DGRAM : SOCK_STREAM) | SOCK_CLOEXEC, 0));
  }
  return UniqueFd(made_.kind() == wire::OpenFile::EPOLL
                      ? ::epoll_create1(EPOLL_CLOEXEC)
                      : ::inotify_init1(IN_CLOEXEC | IN_NONBLOCK));
}

// As the restorer makes them before any descriptor is there.
void Destination::make_memories() const {
  for (const wire::SharedMemory& memory : objects_.shared_memories()) {
    UniqueFd& made =
        memories_.emplace_back(::memfd_create("made", MFD_CLOEXEC | MFD_ALLOW_SEALING));
    EXPECT_EQ(::ftruncate(made.get(), static_cast<off_t>(memory.size_bytes())), 0);
  }
  carriers::ContentPlace place(objects_);
  EXPECT_TRUE(carriers::write_content(place, memories_, content_));
  EXPECT_TRUE(place.at_end());
}

int Destination::memory(std::uint64_t index) const {
  if (memories_.empty()) {
    make_memories();
  }
  return memories_.at(index).get();
}

Result<int> Destination::relay_end(std::uint64_t stream) const {
  const auto relay = relays.find(stream);
  if (relay == relays.end()) {
    return fail(make_error(ErrorCode::kCorrupt, "find relay", std::to_string(stream)));
  }
  return relay->second;
}

std::string flaw_in(const wire::Objects& objects) {
  for (const wire::OpenFile& file : objects.files()) {
    if (const char* flaw = carriers::flaw_of(objects, file); flaw != nullptr) {
      return flaw;
    }
  }
  return {};
}

std::string description(int fd) {
  Source source;
  const int index = source.find(fd);
  if (index < 0) {
    return "refused";
  }
  wire::OpenFile file = source.file(index);
  file.clear_read_ns();
  return file.DebugString();
}

std::string read_now(int fd) {
  EXPECT_EQ(::fcntl(fd, F_SETFL, ::fcntl(fd, F_GETFL) | O_NONBLOCK), 0);
  std::array<char, 4096> buffer{};
  const ssize_t count = ::read(fd, buffer.data(), buffer.size());
  return {buffer.data(), static_cast<std::size_t>(count > 0 ? count : 0)};
}

}  // namespace migrate::test
