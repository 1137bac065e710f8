#include "tests/pager/moved_memory.h"

#include <gtest/gtest.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include <array>
#include <chrono>
#include <cstdio>
#include <cstring>

// For ThreadSanitizer: a child forked by one of several threads ends without the others, which is
// no leak. NOLINTNEXTLINE(bugprone-reserved-identifier): the sanitizer's name
extern "C" const char* __tsan_default_options();
extern "C" const char* __tsan_default_options() {
  return "report_thread_leaks=0";
}

namespace migrate::test {
namespace {

constexpr std::array<std::size_t, 4> kWords{0, 8, 2040, 4088};

void send_descriptor(int socket, int descriptor) {
  std::byte one{1};
  iovec vector{&one, 1};
  alignas(cmsghdr) std::array<std::byte, CMSG_SPACE(sizeof(int))> control{};
  msghdr message{};
  message.msg_iov = &vector;
  message.msg_iovlen = 1;
  message.msg_control = control.data();
  message.msg_controllen = control.size();
  cmsghdr* const header = CMSG_FIRSTHDR(&message);
  header->cmsg_level = SOL_SOCKET;
  header->cmsg_type = SCM_RIGHTS;
  header->cmsg_len = CMSG_LEN(sizeof(int));
  std::memcpy(CMSG_DATA(header), &descriptor, sizeof(int));
  expect(::sendmsg(socket, &message, 0) == 1, "send a descriptor");
}

UniqueFd receive_descriptor(int socket) {
  std::byte one{};
  iovec vector{&one, 1};
  alignas(cmsghdr) std::array<std::byte, CMSG_SPACE(sizeof(int))> control{};
  msghdr message{};
  message.msg_iov = &vector;
  message.msg_iovlen = 1;
  message.msg_control = control.data();
  message.msg_controllen = control.size();
  if (::recvmsg(socket, &message, MSG_CMSG_CLOEXEC) != 1 || CMSG_FIRSTHDR(&message) == nullptr) {
    return UniqueFd();
  }
  int descriptor = -1;
  std::memcpy(&descriptor, CMSG_DATA(CMSG_FIRSTHDR(&message)), sizeof(int));
  return UniqueFd(descriptor);
}

}  // namespace

std::string mode_name(Mode mode) {
  switch (mode) {
    case Mode::kLazy:
      return "lazy";
    case Mode::kDemand:
      return "demand";
    case Mode::kEager:
      return "eager";
  }
  return "";
}

void expect(bool condition, const char* what) {
  if (!condition) {
    std::fprintf(stderr, "child %d: failed: %s (errno %d)\n", ::getpid(), what, errno);
    ::_exit(1);
  }
}

std::uint64_t word_at(const void* address, std::uint64_t salt) {
  return (reinterpret_cast<std::uint64_t>(address) + salt) * 0x9E3779B97F4A7C15U + 1;
}

void fill(void* start, std::uint64_t page_count, std::uint64_t salt, const void* as) {
  auto* const bytes = static_cast<std::byte*>(start);
  const auto* const meant = as == nullptr ? bytes : static_cast<const std::byte*>(as);
  for (std::uint64_t page = 0; page < page_count; ++page) {
    for (const std::size_t offset : kWords) {
      const std::uint64_t word = word_at(meant + page * kPageBytes + offset, salt);
      std::memcpy(bytes + page * kPageBytes + offset, &word, sizeof(word));
    }
  }
}

void expect_filled(const void* start, std::uint64_t page_count, std::uint64_t salt,
                   const void* as) {
  const auto* const bytes = static_cast<const std::byte*>(start);
  const auto* const meant = as == nullptr ? bytes : static_cast<const std::byte*>(as);
  for (std::uint64_t page = 0; page < page_count; ++page) {
    for (const std::size_t offset : kWords) {
      std::uint64_t word = 0;
      std::memcpy(&word, bytes + page * kPageBytes + offset, sizeof(word));
      const std::uint64_t wanted = word_at(meant + page * kPageBytes + offset, salt);
      if (word != wanted) {
        std::fprintf(stderr, "child %d: page %llu at %p: word %zu is %llx, not %llx\n", ::getpid(),
                     static_cast<unsigned long long>(page),
                     static_cast<const void*>(bytes + page * kPageBytes), offset,
                     static_cast<unsigned long long>(word),
                     static_cast<unsigned long long>(wanted));
        ::_exit(1);
      }
    }
  }
}

void expect_zero(const void* start, std::uint64_t page_count) {
  static const std::array<std::byte, kPageBytes> zeros{};
  for (std::uint64_t page = 0; page < page_count; ++page) {
    const auto* const at = static_cast<const std::byte*>(start) + page * kPageBytes;
    expect(std::memcmp(at, zeros.data(), kPageBytes) == 0, "a page is zero");
  }
}

MovedMemory::MovedMemory(std::uint64_t page_count) : page_count_(page_count) {
  void* const address = ::mmap(nullptr, page_count * kPageBytes, PROT_NONE,
                               MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  EXPECT_NE(address, MAP_FAILED);
  base_ = static_cast<std::byte*>(address);
}

MovedMemory::~MovedMemory() {
  if (destination_ > 0) {
    ::kill(destination_, SIGKILL);
    ::waitpid(destination_, nullptr, 0);
  }
  if (pager_) {
    pager_->stop();
  }
  if (server_) {
    server_->request_stop();
  }
  join_server();
  pager_.reset();
  if (source_ > 0) {
    ::kill(source_, SIGKILL);
    ::waitpid(source_, nullptr, 0);
  }
  ::munmap(base_, page_count_ * kPageBytes);
}

void MovedMemory::add_region(RegionKind kind, std::uint64_t first, std::uint64_t count, int file) {
  regions_.push_back({kind, first, count, file});
}

void MovedMemory::map_regions(bool at_source) const {
  for (const Region& region : regions_) {
    int flags = MAP_FIXED | MAP_NORESERVE | MAP_PRIVATE | MAP_ANONYMOUS;
    int file = -1;
    if (region.kind == RegionKind::kSharedMemory) {
      flags = MAP_FIXED | MAP_SHARED | MAP_ANONYMOUS;
    } else if (region.kind == RegionKind::kFileCopy && at_source) {
      flags = MAP_FIXED | MAP_PRIVATE;
      file = region.file;
    }
    expect(::mmap(page(region.first), region.count * kPageBytes, PROT_READ | PROT_WRITE, flags,
                  file, 0) != MAP_FAILED,
           "map a region");
  }
}

void MovedMemory::start_source(const std::function<void()>& prepare) {
  if (regions_.empty()) {
    add_region(RegionKind::kAnonymous, 0, page_count_);
  }
  source_ = ::fork();
  if (source_ == 0) {
    ::prctl(PR_SET_PDEATHSIG, SIGKILL);
    map_regions(true);
    prepare();
    ::raise(SIGSTOP);
    ::_exit(0);
  }
  int status = 0;
  ASSERT_EQ(::waitpid(source_, &status, WUNTRACED), source_);
  ASSERT_TRUE(WIFSTOPPED(status));
}

void MovedMemory::start_destination(const std::function<void()>& job) {
  int ends[2] = {-1, -1};
  ASSERT_EQ(::socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, ends), 0);
  destination_ = ::fork();
  if (destination_ == 0) {
    ::prctl(PR_SET_PDEATHSIG, SIGKILL);
    map_regions(false);
    {
      auto userfault = Userfault::create_for_self();
      expect(userfault.has_value(), "create a userfaultfd");
      send_descriptor(ends[1], userfault->fd());
    }
    char go = 0;
    expect(::read(ends[1], &go, 1) == 1, "be released");
    job();
    ::_exit(0);
  }
  control_ = UniqueFd(ends[0]);
  ::close(ends[1]);
  userfault_ = receive_descriptor(control_.get());
  ASSERT_TRUE(userfault_.valid());
}

void MovedMemory::run_server() {
  urgent_thread_ =
      std::thread([this] { static_cast<void>(server_->serve_urgent(*server_urgent_)); });
  push_thread_ = std::thread([this] {
    static_cast<void>(server_->push(*server_bulk_));
    server_bulk_->shutdown();
  });
}

void MovedMemory::join_server() {
  if (urgent_thread_.joinable()) {
    urgent_thread_.join();
  }
  if (push_thread_.joinable()) {
    push_thread_.join();
  }
  if (server_bulk_) {
    server_bulk_->shutdown();
  }
}

void MovedMemory::connect(Mode mode, PagerOptions options) {
  std::vector<PagerRegion> regions;
  std::vector<ServedRegion> served;
  std::uint32_t files = 0;
  for (const Region& region : regions_) {
    const PageRange range{reinterpret_cast<std::uint64_t>(page(region.first)), region.count};
    PagerRegion pager_region{range, range.start, region.kind};
    if (region.kind == RegionKind::kFileCopy) {
      pager_region.local_file = files++;
    }
    regions.push_back(pager_region);
    served.push_back({range, region.kind});
  }
  auto reader = ProcessPageReader::create(source_);
  ASSERT_TRUE(reader) << reader.error().message();
  reader_ = std::move(*reader);
  PageServerOptions server_options;
  server_options.push = mode != Mode::kDemand;
  auto server = PageServer::create(server_options, *reader_, served);
  ASSERT_TRUE(server) << server.error().message();
  server_ = std::move(*server);
  server_->set_ways(ways_);
  options.on_link_lost = [this](const Error&) { ++links_lost_; };
  options.on_fork = [this](const PagerSpace& space) { keep(space); };
  options.on_done = [this] {
    const MutexLock lock(kept_mutex_);
    kept_.clear();
  };
  if (mode == Mode::kDemand) {
    options.prefetch_pages = 0;
  }
  options.process = destination_;
  options.process_tree = destination_;
  options_ = options;
  auto pager =
      Pager::create(options, Userfault::adopt(std::move(userfault_)), regions, local_files());
  ASSERT_TRUE(pager) << pager.error().message();
  pager_ = std::move(*pager);
  for (const PagerSpace& space : pager_->spaces()) {
    keep(space);
  }
  auto [urgent, server_urgent] = make_link_pair();
  auto [bulk, server_bulk] = make_link_pair();
  server_urgent_ = std::move(server_urgent);
  server_bulk_ = std::move(server_bulk);
  run_server();
  ASSERT_TRUE(pager_->start(std::move(urgent), std::move(bulk)));
  if (mode == Mode::kEager) {
    const auto present = pager_->wait_all_present(60000);
    ASSERT_TRUE(present) << present.error().message();
  }
}

std::vector<UniqueFd> MovedMemory::local_files() const {
  std::vector<UniqueFd> files;
  for (const Region& region : regions_) {
    if (region.kind == RegionKind::kFileCopy) {
      files.emplace_back(::dup(region.file));
    }
  }
  return files;
}

void MovedMemory::keep(const PagerSpace& space) {
  const MutexLock lock(kept_mutex_);
  Kept& kept = kept_[space.number];
  kept.parent = space.parent;
  if (space.userfault >= 0) {
    kept.userfault = UniqueFd(::dup(space.userfault));
  }
  if (space.ledger >= 0) {
    kept.ledger = UniqueFd(::dup(space.ledger));
  }
}

void MovedMemory::replace_pager() {
  break_links();
  pager_->stop();
  std::vector<AdoptedSpace> spaces;
  {
    const MutexLock lock(kept_mutex_);
    for (const auto& [number, kept] : kept_) {
      spaces.push_back({number, kept.parent,
                        Userfault::adopt(UniqueFd(::dup(kept.userfault.get()))),
                        kept.ledger.valid() ? UniqueFd(::dup(kept.ledger.get())) : UniqueFd()});
    }
  }
  if (spaces.empty()) {
    // It was done. Its word may have been lost with the link; a source learns it from the verdict
    // then, when it asks again (docs/protocol.md).
    done_told_otherwise_ = true;
    return;
  }
  auto pager = Pager::adopt(options_, std::move(spaces), local_files());
  ASSERT_TRUE(pager) << pager.error().message();
  pager_ = std::move(*pager);
  auto [urgent, server_urgent] = make_link_pair();
  auto [bulk, server_bulk] = make_link_pair();
  server_urgent_ = std::move(server_urgent);
  server_bulk_ = std::move(server_bulk);
  run_server();
  ASSERT_TRUE(pager_->start(std::move(urgent), std::move(bulk)));
}

void MovedMemory::break_links() {
  server_urgent_->shutdown();
  server_bulk_->shutdown();
  join_server();
}

void MovedMemory::reconnect() {
  auto [urgent, server_urgent] = make_link_pair();
  auto [bulk, server_bulk] = make_link_pair();
  server_urgent_ = std::move(server_urgent);
  server_bulk_ = std::move(server_bulk);
  // Done while there was no link: its receiver has ended, and a push would wait for it for ever. In
  // a move the control channel says so, and no new links are made.
  done_told_otherwise_ = done_told_otherwise_ || pager_->done();
  run_server();
  ASSERT_TRUE(pager_->resume(std::move(urgent), std::move(bulk)));
}

void MovedMemory::release() const {
  ASSERT_EQ(::write(control_.get(), "x", 1), 1);
}

void MovedMemory::expect_job_succeeds() {
  int status = -1;
  pid_t ended = 0;
  for (int i = 0; i < 6000 && ended == 0; ++i) {
    ended = ::waitpid(destination_, &status, WNOHANG);
    std::this_thread::sleep_for(std::chrono::milliseconds(10));
  }
  ASSERT_EQ(ended, destination_) << "the job does not end; owed " << pager_->owed_pages();
  destination_ = -1;
  EXPECT_TRUE(WIFEXITED(status) && WEXITSTATUS(status) == 0) << "status " << status;
}

void MovedMemory::expect_done() {
  const auto source_knows = [this] { return done_told_otherwise_ || server_->done(); };
  for (int i = 0; i < 3000 && !(pager_->done() && source_knows()); ++i) {
    std::this_thread::sleep_for(std::chrono::milliseconds(10));
  }
  EXPECT_TRUE(pager_->done()) << "owed " << pager_->owed_pages();
  EXPECT_TRUE(source_knows());
}

}  // namespace migrate::test
