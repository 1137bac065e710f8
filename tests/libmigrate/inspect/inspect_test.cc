// What the draft of an image says of processes that hold one thing each, running and frozen.

#include <fcntl.h>
#include <gtest/gtest.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/file.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/signalfd.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/timerfd.h>
#include <time.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <chrono>
#include <cstdio>
#include <cstring>
#include <filesystem>
#include <thread>

#include "base/file.h"
#include "libmigrate/image/only_process.h"
#include "libmigrate/proc/file_identity.h"
#include "libmigrate/proc/proc_text.h"
#include "libmigrate/proc/terminal.h"
#include "pager/page_range.h"
#include "tests/libmigrate/inspect/held_process.h"

namespace migrate {
namespace {

using test::HeldProcess;
using test::inspect;
using test::mapping_at;
using test::open_file_of;
using test::text;

// An address that is the same in the parent and the child: reserved before the fork, then remade.
void* reserve(std::size_t pages) {
  return ::mmap(nullptr, pages * kPageBytes, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
}
void map_at(void* place, std::size_t pages, int protection, int flags, int fd = -1) {
  if (::mmap(place, pages * kPageBytes, protection, flags | MAP_FIXED, fd, 0) != place) {
    ::_exit(2);
  }
}

TEST(Inspect, PlainProcessIsMovable) {
  const HeldProcess process([] { ::prctl(PR_SET_NAME, "plain thing"); });
  const Inspection inspection = inspect(process.pid());
  EXPECT_TRUE(inspection.refusals.empty()) << text(inspection.refusals);
  const wire::Image& image = inspection.image;
  EXPECT_EQ(only_process(image).process_id(), static_cast<std::uint32_t>(process.pid()));
  EXPECT_EQ(only_process(image).name(), "plain thing");
  EXPECT_EQ(only_process(image).executable().path(),
            std::filesystem::read_symlink("/proc/self/exe"));
  EXPECT_EQ(only_process(image).working_directory(), std::filesystem::current_path());
  EXPECT_FALSE(only_process(image).executable().build_id().empty() &&
               only_process(image).executable().sha256().empty());
  ASSERT_EQ(only_process(image).threads_size(), 1);
  EXPECT_EQ(only_process(image).threads(0).credentials().uid_effective(), ::geteuid());
  EXPECT_EQ(only_process(image).threads(0).timer_slack_ns(), 50000U);
  EXPECT_FALSE(only_process(image).threads(0).affinity().empty());
  EXPECT_EQ(only_process(image).resource_limits_size(), static_cast<int>(RLIM_NLIMITS));
  EXPECT_NE(only_process(image).memory().start_code(), 0U);
  EXPECT_FALSE(only_process(image).memory().auxv().empty());
  ASSERT_EQ(only_process(image).descriptors_size(), 3);
  EXPECT_EQ(image.objects().files_size(), 1) << "three descriptors share one open file";
  EXPECT_EQ(open_file_of(image, 1).kind(), wire::OpenFile::DEVICE);
  EXPECT_EQ(open_file_of(image, 1).identity().device_major(), 1U);
}

TEST(Inspect, KindsOfMappings) {
  const std::string library = "/proc/self/exe";
  void* anonymous = reserve(2);
  void* shared = reserve(2);
  void* memory = reserve(2);
  void* modified = reserve(2);
  void* untouched = reserve(2);
  void* writable = reserve(2);
  void* zero = reserve(1);
  const HeldProcess process([&] {
    map_at(anonymous, 2, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS);
    ::madvise(anonymous, 2 * kPageBytes, MADV_DONTFORK);
    ::madvise(anonymous, 2 * kPageBytes, MADV_DONTDUMP);
    map_at(shared, 2, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS);
    const int memfd = ::memfd_create("notes", MFD_ALLOW_SEALING);
    if (::ftruncate(memfd, 3 * kPageBytes) != 0 || ::fcntl(memfd, F_ADD_SEALS, F_SEAL_GROW) != 0) {
      ::_exit(2);
    }
    map_at(memory, 2, PROT_READ, MAP_SHARED, memfd);
    const int file = ::open(library.c_str(), O_RDONLY);
    map_at(modified, 2, PROT_READ | PROT_WRITE, MAP_PRIVATE, file);
    std::memset(modified, 1, 1);
    ::mprotect(modified, 2 * kPageBytes, PROT_READ);
    map_at(untouched, 2, PROT_READ, MAP_PRIVATE, file);
    map_at(writable, 2, PROT_READ | PROT_WRITE, MAP_PRIVATE, file);
    ::close(file);
    map_at(zero, 1, PROT_READ | PROT_WRITE, MAP_PRIVATE, ::open("/dev/zero", O_RDWR));
  });
  const Inspection inspection = inspect(process.pid());
  EXPECT_TRUE(inspection.refusals.empty()) << text(inspection.refusals);
  const wire::Image& image = inspection.image;
  EXPECT_EQ(mapping_at(image, anonymous).kind(), wire::Mapping::ANONYMOUS);
  EXPECT_EQ(mapping_at(image, anonymous).advice(),
            static_cast<std::uint32_t>(wire::DONT_FORK | wire::DONT_DUMP));
  EXPECT_EQ(mapping_at(image, zero).kind(), wire::Mapping::ANONYMOUS);
  EXPECT_EQ(mapping_at(image, modified).kind(), wire::Mapping::FILE_COPY);
  EXPECT_EQ(mapping_at(image, untouched).kind(), wire::Mapping::FILE_LOCAL);
  EXPECT_EQ(mapping_at(image, writable).kind(), wire::Mapping::FILE_COPY);
  const wire::Mapping shared_mapping = mapping_at(image, shared);
  ASSERT_EQ(shared_mapping.kind(), wire::Mapping::SHARED_MEMORY);
  EXPECT_FALSE(image.objects()
                   .shared_memories(static_cast<int>(shared_mapping.shared_memory()))
                   .open_descriptor());
  const wire::Mapping memory_mapping = mapping_at(image, memory);
  ASSERT_EQ(memory_mapping.kind(), wire::Mapping::SHARED_MEMORY);
  const auto& object =
      image.objects().shared_memories(static_cast<int>(memory_mapping.shared_memory()));
  EXPECT_EQ(object.name(), "notes");
  EXPECT_EQ(object.size_bytes(), 3 * kPageBytes);
  EXPECT_EQ(object.seals(), static_cast<std::uint32_t>(F_SEAL_GROW));
  EXPECT_TRUE(object.open_descriptor());
  EXPECT_EQ(open_file_of(image, 3).kind(), wire::OpenFile::MEMFD);
  EXPECT_EQ(open_file_of(image, 3).object(), memory_mapping.shared_memory());
  std::set<wire::Mapping::Kind> kinds;
  for (const wire::Mapping& mapping : only_process(image).mappings()) {
    kinds.insert(mapping.kind());
    EXPECT_NE(mapping.name(), "[vsyscall]");
    if (mapping.name() == "[stack]") {
      EXPECT_EQ(mapping.advice(), static_cast<std::uint32_t>(wire::GROWS_DOWN));
    }
  }
  EXPECT_TRUE(kinds.contains(wire::Mapping::VDSO));
  EXPECT_TRUE(kinds.contains(wire::Mapping::VVAR));
}

TEST(Inspect, MappingsThatChangeMeanwhileDoNotOverlap) {
  constexpr std::size_t kMappings = 64;  // more than smaps gives at a time
  auto* const place = static_cast<std::byte*>(reserve(4 * kMappings));
  const HeldProcess process([&] {
    std::thread([place] {
      for (std::size_t turn = 0;; ++turn) {  // Each is now one mapping, now two.
        const int protection = turn / kMappings % 2 == 0 ? PROT_READ : PROT_NONE;
        map_at(place + turn % kMappings * 4 * kPageBytes, 2, protection,
               MAP_PRIVATE | MAP_ANONYMOUS);
      }
    }).detach();
  });
  for (int i = 0; i < 50; ++i) {
    auto inspector = ProcessInspector::create(process.pid(), {});
    ASSERT_TRUE(inspector) << inspector.error().message();
    const auto inspection = inspector->inspect_running();
    if (!inspection) {
      EXPECT_EQ(inspection.error().code, ErrorCode::kRetry) << inspection.error().message();
      continue;
    }
    std::uint64_t end = 0;
    for (const wire::Mapping& mapping : only_process(inspection->image).mappings()) {
      EXPECT_GE(mapping.start(), end);
      end = mapping.end();
    }
  }
}

TEST(Inspect, DescriptorsThatAreCarried) {
  const std::string path = std::filesystem::temp_directory_path() / "inspect_test_regular";
  const HeldProcess process([&] {
    sigset_t mask;
    ::sigemptyset(&mask);
    ::sigaddset(&mask, SIGUSR1);
    const int event = ::eventfd(7, EFD_SEMAPHORE | EFD_NONBLOCK);      // 3
    const int timer = ::timerfd_create(CLOCK_MONOTONIC, TFD_CLOEXEC);  // 4
    const itimerspec time{{2, 5}, {1000, 0}};
    ::timerfd_settime(timer, 0, &time, nullptr);
    ::signalfd(-1, &mask, 0);             // 5
    const int poll = ::epoll_create1(0);  // 6
    epoll_event watch{EPOLLIN | EPOLLET, {.u64 = 0x1234567890}};
    ::epoll_ctl(poll, EPOLL_CTL_ADD, event, &watch);
    const int file = ::open(path.c_str(), O_RDWR | O_CREAT | O_APPEND, 0600);  // 7
    if (::write(file, "hello", 5) != 5) {
      ::_exit(2);
    }
    ::dup(file);                                 // 8
    ::open(path.c_str(), O_RDONLY | O_CLOEXEC);  // 9
    std::array<int, 2> ends{};
    if (::pipe(ends.data()) != 0 || ::write(ends[1], "abc", 3) != 3) {  // 10, 11
      ::_exit(2);
    }
    ::open("/", O_RDONLY | O_DIRECTORY);  // 12
  });
  KnownObjects known;
  known.open_file_hash_limit_bytes = 100;
  const Inspection inspection = inspect(process.pid(), known);
  ::unlink(path.c_str());
  EXPECT_TRUE(inspection.refusals.empty()) << text(inspection.refusals);
  const wire::Image& image = inspection.image;
  EXPECT_EQ(open_file_of(image, 3).kind(), wire::OpenFile::EVENTFD);
  EXPECT_EQ(open_file_of(image, 3).event_count(), 7U);
  EXPECT_TRUE(open_file_of(image, 3).event_semaphore());
  EXPECT_NE(open_file_of(image, 3).flags() & O_NONBLOCK, 0U);
  EXPECT_EQ(open_file_of(image, 4).kind(), wire::OpenFile::TIMERFD);
  EXPECT_EQ(open_file_of(image, 4).clock(), static_cast<std::uint32_t>(CLOCK_MONOTONIC));
  EXPECT_EQ(open_file_of(image, 4).interval_ns(), 2'000'000'005U);
  EXPECT_GT(open_file_of(image, 4).value_ns(), 900'000'000'000U);
  EXPECT_EQ(open_file_of(image, 5).kind(), wire::OpenFile::SIGNALFD);
  EXPECT_EQ(open_file_of(image, 5).signal_mask(), std::uint64_t{1} << (SIGUSR1 - 1));
  ASSERT_EQ(open_file_of(image, 6).kind(), wire::OpenFile::EPOLL);
  ASSERT_EQ(open_file_of(image, 6).watches_size(), 1);
  EXPECT_EQ(open_file_of(image, 6).watches(0).target(), 3U);
  EXPECT_EQ(open_file_of(image, 6).watches(0).data(), 0x1234567890U);
  EXPECT_NE(open_file_of(image, 6).watches(0).events() & EPOLLET, 0U);
  const wire::OpenFile file = open_file_of(image, 7);
  EXPECT_EQ(file.kind(), wire::OpenFile::REGULAR);
  EXPECT_EQ(file.position(), 5U);
  EXPECT_NE(file.flags() & O_APPEND, 0U);
  EXPECT_EQ(file.identity().path(), path);
  EXPECT_EQ(file.identity().size_bytes(), 5U);
  EXPECT_TRUE(file.identity().sha256().empty()) << "open for writing";
  EXPECT_EQ(open_file_of(image, 9).identity().sha256(), sha256("hello"));
  EXPECT_EQ(only_process(image).descriptors(7).file(), only_process(image).descriptors(8).file());
  EXPECT_NE(only_process(image).descriptors(7).file(), only_process(image).descriptors(9).file());
  EXPECT_TRUE(only_process(image).descriptors(9).close_on_exec());
  EXPECT_EQ(open_file_of(image, 9).flags() & O_CLOEXEC, 0U);
  EXPECT_EQ(open_file_of(image, 10).kind(), wire::OpenFile::PIPE);
  EXPECT_EQ(open_file_of(image, 10).object(), open_file_of(image, 11).object());
  ASSERT_EQ(image.objects().pipes_size(), 1);
  EXPECT_EQ(image.objects().pipes(0).capacity_bytes(), 65536U);
  EXPECT_EQ(open_file_of(image, 12).kind(), wire::OpenFile::DIRECTORY);
}

TEST(Inspect, APseudoTerminalOfItsOwnIsNobodyElses) {
  const HeldProcess process([] {
    const PseudoTerminal pair = make_pseudo_terminal("/dev/ptmx", 0).value();
    ::dup2(pair.slave.get(), 0);
    ::dup2(pair.master.get(), 1);
  });
  const Inspection alone = inspect(process.pid());
  EXPECT_TRUE(alone.refusals.empty()) << text(alone.refusals);
  EXPECT_EQ(open_file_of(alone.image, 0).kind(), wire::OpenFile::TERMINAL_PAIR);
  EXPECT_EQ(open_file_of(alone.image, 0).object(), 1U);
  EXPECT_EQ(open_file_of(alone.image, 1).object(), 0U);
  ASSERT_EQ(alone.image.objects().terminal_pairs_size(), 1);
  const std::string name =
      "/dev/pts/" + std::to_string(alone.image.objects().terminal_pairs(0).number());
  const UniqueFd ours = open_file(name, O_RDWR | O_NOCTTY).value();
  const Inspection shared = inspect(process.pid());
  EXPECT_EQ(test::codes(shared.refusals), std::set<std::string>{}) << "by the mover itself";
  const HeldProcess other([&] { ::open(name.c_str(), O_RDWR | O_NOCTTY); });
  EXPECT_EQ(test::codes(inspect(process.pid()).refusals), std::set<std::string>{"TERMINAL_PAIR"});
}

TEST(Inspect, PipesAndTerminalsThatLeadOutsideAreRelayed) {
  std::array<int, 2> ends{};
  ASSERT_EQ(::pipe(ends.data()), 0);
  const std::string link =
      std::filesystem::read_symlink("/proc/self/fd/" + std::to_string(ends[1]));
  const std::uint64_t inode = std::stoull(link.substr(6));
  const int kept = ::dup(ends[1]);
  const std::string path = "/proc/" + std::to_string(::getpid()) + "/fd/" + std::to_string(kept);
  const PseudoTerminal pair = make_pseudo_terminal("/dev/ptmx", 0).value();
  std::array<char, 64> name{};
  ASSERT_EQ(::ptsname_r(pair.master.get(), name.data(), name.size()), 0);
  const HeldProcess process([&] {
    const int terminal = ::open(name.data(), O_RDWR | O_NOCTTY);
    ::dup2(terminal, 0);
    ::close(terminal);
    ::dup2(::open(path.c_str(), O_WRONLY), 1);
    ::close(3);
  });
  const Inspection inspection = inspect(process.pid());
  EXPECT_EQ(test::codes(inspection.refusals), std::set<std::string>{}) << text(inspection.refusals);
  EXPECT_EQ(open_file_of(inspection.image, 0).kind(), wire::OpenFile::TERMINAL);
  EXPECT_EQ(open_file_of(inspection.image, 0).object(), 1U);
  EXPECT_EQ(inspection.image.objects().terminals(0).stream(), 1U);
  EXPECT_EQ(open_file_of(inspection.image, 1).kind(), wire::OpenFile::RELAY);
  EXPECT_EQ(open_file_of(inspection.image, 1).object(), 2U);

  KnownObjects known;
  known.relays[inode] = 9;
  const Inspection again = inspect(process.pid(), known);
  EXPECT_EQ(open_file_of(again.image, 1).object(), 9U);
  EXPECT_EQ(open_file_of(again.image, 0).object(), 10U) << "not one that is taken";
  ::close(ends[0]);
  ::close(ends[1]);
  ::close(kept);
}

TEST(Inspect, ThreadsAndTimers) {
  const HeldProcess process([] {
    ::setpriority(PRIO_PROCESS, 0, 5);
    auto wait = [] {
      ::pthread_setname_np(::pthread_self(), "worker");
      for (;;) {
        ::pause();
      }
    };
    std::thread(wait).detach();
    std::thread(wait).detach();
    std::this_thread::sleep_for(std::chrono::milliseconds(50));
    sigevent event{};
    event.sigev_notify = SIGEV_THREAD_ID;
    event.sigev_signo = SIGUSR2;
    event.sigev_value.sival_ptr = reinterpret_cast<void*>(0xabcd);
    event._sigev_un._tid = ::gettid();
    timer_t timer{};
    ::timer_create(CLOCK_REALTIME, &event, &timer);
  });
  auto inspector = ProcessInspector::create(process.pid(), {});
  ASSERT_TRUE(inspector);
  const auto inspection = inspector->inspect_running();
  ASSERT_TRUE(inspection);
  EXPECT_TRUE(inspection->refusals.empty()) << text(inspection->refusals);
  const wire::Image& image = inspection->image;
  ASSERT_EQ(only_process(image).threads_size(), 3);
  EXPECT_EQ(only_process(image).threads(0).id(), only_process(image).process_id());
  EXPECT_EQ(only_process(image).threads(0).nice(), 5);
  EXPECT_EQ(only_process(image).threads(1).name(), "worker");
  ASSERT_EQ(inspector->threads().size(), 3U);
  EXPECT_EQ(inspector->threads().front().first, process.pid());
  ASSERT_EQ(only_process(image).posix_timers_size(), 1);
  const wire::PosixTimer& timer = only_process(image).posix_timers(0);
  EXPECT_EQ(timer.clock(), CLOCK_REALTIME);
  EXPECT_EQ(timer.signal(), SIGUSR2);
  EXPECT_EQ(timer.signal_value(), 0xabcdU);
  EXPECT_EQ(timer.notify(), SIGEV_THREAD_ID);
  EXPECT_EQ(timer.thread(), only_process(image).process_id());
}

TEST(Inspect, FrozenEqualsRunning) {
  const std::string path = std::filesystem::temp_directory_path() / "inspect_test_frozen";
  const HeldProcess process([&] {
    ::open(path.c_str(), O_RDWR | O_CREAT, 0600);
    ::eventfd(1, 0);
    void* place = ::mmap(nullptr, 64 * kPageBytes, PROT_READ | PROT_WRITE,
                         MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    ::madvise(place, 64 * kPageBytes, MADV_NOHUGEPAGE);
    std::array<int, 2> ends{};
    if (::pipe(ends.data()) != 0) {
      ::_exit(2);
    }
    for (int i = 0; i < 3; ++i) {
      ::dup(ends[1]);
    }
    ::memfd_create("frozen", 0);
    ::mmap(nullptr, kPageBytes, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
  });
  auto inspector = ProcessInspector::create(process.pid(), {});
  ASSERT_TRUE(inspector);
  const auto assistant = Assistant::create().value();
  const auto nothing = [](wire::ProcessImage&) { return Result<void>(); };
  EXPECT_FALSE(inspector->inspect_frozen({}, *assistant, nothing)) << "needs a draft";
  const auto draft = inspector->inspect_running();
  ASSERT_TRUE(draft);
  EXPECT_TRUE(draft->refusals.empty()) << text(draft->refusals);
  process.freeze();
  const auto frozen = inspector->inspect_frozen(draft->image, *assistant, nothing);
  ASSERT_TRUE(frozen);
  EXPECT_TRUE(frozen->refusals.empty()) << text(frozen->refusals);
  EXPECT_TRUE(inspector->check_frozen().empty());
  EXPECT_EQ(frozen->image.DebugString(), draft->image.DebugString());
  // Processor time of this thread, so that a busy machine does not blur it.
  const auto now_us = [] {
    timespec time{};
    ::clock_gettime(CLOCK_THREAD_CPUTIME_ID, &time);
    return static_cast<double>(time.tv_sec) * 1e6 + static_cast<double>(time.tv_nsec) / 1e3;
  };
  constexpr int kRounds = 200;
  std::vector<double> times;
  for (int i = 0; i < kRounds; ++i) {
    const double start = now_us();
    const auto again = inspector->inspect_frozen(draft->image, *assistant, nothing);
    times.push_back(now_us() - start);
    ASSERT_TRUE(again);
  }
  std::ranges::sort(times);
  std::printf("inspect_frozen: median %.0f us, best %.0f us, %d mappings, %d descriptors\n",
              times[kRounds / 2], times.front(), only_process(draft->image).mappings_size(),
              only_process(draft->image).descriptors_size());
  ::unlink(path.c_str());
}

// A mapping that is another one for a moment while the draft is read, and then what it was again.
TEST(Inspect, FrozenSeesWhatIsAndNotWhatWasForAMoment) {
  constexpr int kRounds = 60;
  const auto assistant = Assistant::create().value();
  for (int round = 0; round < kRounds; ++round) {
    auto* const place = static_cast<std::byte*>(reserve(3));
    std::byte* const middle = place + kPageBytes;
    const HeldProcess process([place, middle] {
      map_at(place, 3, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS);
      std::thread([middle] {
        for (;;) {
          ::mprotect(middle, kPageBytes, PROT_NONE);
          ::mprotect(middle, kPageBytes, PROT_READ | PROT_WRITE);
        }
      }).detach();
    });
    ::munmap(place, 3 * kPageBytes);
    auto inspector = ProcessInspector::create(process.pid(), {});
    ASSERT_TRUE(inspector);
    const auto draft = inspector->inspect_running();
    ASSERT_TRUE(draft);
    process.freeze();
    const auto frozen = inspector->inspect_frozen(
        draft->image, *assistant, [](wire::ProcessImage&) { return Result<void>(); });
    ASSERT_TRUE(frozen);
    const std::string maps = read_file("/proc/" + std::to_string(process.pid()) + "/maps").value();
    const auto entries = parse_maps(maps).value();
    const auto address = reinterpret_cast<std::uint64_t>(middle);
    const auto is = std::ranges::find_if(entries, [address](const MapsEntry& entry) {
      return entry.start <= address && address < entry.end;
    });
    ASSERT_NE(is, entries.end());
    ASSERT_EQ(mapping_at(frozen->image, middle).protection(), is->protection) << "round " << round;
    ASSERT_EQ(mapping_at(frozen->image, middle).end(), is->end) << "round " << round;
  }
}

// What the process does between draft and freeze: it waits for a byte, then changes.
TEST(Inspect, FrozenSeesWhatChanged) {
  std::array<int, 2> ends{};
  ASSERT_EQ(::pipe(ends.data()), 0);
  // Where nothing else is mapped meanwhile, as a sanitizer's threads do in holes.
  void* fresh = reinterpret_cast<void*>(0x2000'0000'0000);  // NOLINT(performance-no-int-to-ptr)
  const std::string end = "/proc/" + std::to_string(::getpid()) + "/fd/" + std::to_string(ends[0]);
  const HeldProcess process([&] {
    const int input = ::open(end.c_str(), O_RDONLY);  // 3
    std::thread([input, fresh] {
      char byte = 0;
      if (::read(input, &byte, 1) != 1) {
        ::_exit(2);
      }
      map_at(fresh, 4, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS);
      ::madvise(fresh, 4 * kPageBytes, MADV_WIPEONFORK);
      ::eventfd(5, 0);                                          // 4
      const int lock = ::open("/tmp", O_RDONLY | O_DIRECTORY);  // 5
      ::flock(lock, 2);
      if (::fork() == 0) {
        ::syscall(SYS_close_range, 0, ~0U, 0);
        for (;;) {
          ::pause();
        }
      }
      ::dup2(1, 6);
      for (;;) {
        ::pause();
      }
    }).detach();
  });
  auto inspector = ProcessInspector::create(process.pid(), {});
  ASSERT_TRUE(inspector);
  const auto draft = inspector->inspect_running();
  ASSERT_TRUE(draft);
  EXPECT_TRUE(draft->refusals.empty()) << text(draft->refusals);
  ASSERT_EQ(::write(ends[1], "x", 1), 1);
  const std::string done = "/proc/" + std::to_string(process.pid()) + "/fd/6";
  while (::access(done.c_str(), F_OK) != 0) {
    std::this_thread::sleep_for(std::chrono::milliseconds(1));
  }
  process.freeze();
  const auto assistant = Assistant::create().value();
  int called = 0;
  auto frozen =
      inspector->inspect_frozen(draft->image, *assistant, [&called](wire::ProcessImage& facts) {
        called += facts.threads_size();
        return Result<void>();
      });
  ASSERT_TRUE(frozen);
  for (wire::Refusal& refusal : inspector->check_frozen()) {
    frozen->refusals.push_back(std::move(refusal));
  }
  EXPECT_EQ(test::codes(frozen->refusals), (std::set<std::string>{"CHILDREN", "FILE_LOCK"}))
      << text(frozen->refusals);
  EXPECT_EQ(mapping_at(frozen->image, fresh).advice(),
            static_cast<std::uint32_t>(wire::WIPE_ON_FORK));
  EXPECT_EQ(open_file_of(frozen->image, 4).event_count(), 5U);
  EXPECT_EQ(open_file_of(frozen->image, 3).object(), open_file_of(draft->image, 3).object());
  for (const wire::Refusal& refusal : frozen->refusals) {
    if (refusal.code() == "CHILDREN") {
      ::kill(std::stoi(refusal.object().substr(4)), SIGKILL);
    }
  }
  ::close(ends[0]);
  ::close(ends[1]);
}

TEST(Inspect, ErrorsOfCreate) {
  const auto absent = ProcessInspector::create(0x3ffffff, {});
  ASSERT_FALSE(absent);
  EXPECT_EQ(absent.error().code, ErrorCode::kNotFound);
  std::thread([] {
    const auto thread = ProcessInspector::create(::gettid(), {});
    ASSERT_FALSE(thread);
    EXPECT_EQ(thread.error().code, ErrorCode::kNotFound);
  }).join();
}

}  // namespace
}  // namespace migrate
