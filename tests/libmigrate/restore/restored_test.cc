// A process made anew in a cell: what belongs to the whole of it.
#include <fcntl.h>
#include <grp.h>
#include <gtest/gtest.h>
#include <linux/capability.h>
#include <linux/kcmp.h>
#include <linux/securebits.h>
#include <signal.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <sys/personality.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/signalfd.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/timerfd.h>
#include <unistd.h>

#include <array>
#include <filesystem>
#include <sstream>
#include <string>

#include "base/file.h"
#include "libmigrate/trace/tracee.h"
#include "tests/libmigrate/capture/dying_worker.h"
#include "tests/libmigrate/restore/restored_world.h"

namespace migrate {
namespace {

using test::counted;
using test::DyingWorker;
using test::LastWords;
using test::RestoredProcess;

class Restored : public test::RestoredTest {
 protected:
  std::string make(const std::string& name, const std::string& content) const {
    const UniqueFd file = open_file(directory_.file(name), O_RDWR | O_CREAT | O_TRUNC).value();
    EXPECT_TRUE(write_all(file.get(), std::as_bytes(std::span(content))));
    return directory_.file(name);
  }
  std::string link(pid_t process, const std::string& name) const {
    return read_link("/proc/" + std::to_string(process) + "/" + name).value_or("none");
  }

  test::TemporaryDirectory directory_;
};

TEST_F(Restored, RunsOnWithTheSameImageUnderItsOwnId) {
  start([] { ::prctl(PR_SET_NAME, "the same"); });
  expect_rest(here());
  ::kill(here(),
         SIGUSR1);  // As there later: a call that is interrupted leaves traces in registers.
  ASSERT_TRUE(test::comes_true([&] { return counted(here(), SIGUSR1) == 1; }));
  expect_rest(here());
  ASSERT_NO_FATAL_FAILURE(move());
  EXPECT_EQ(status(there(), "TracerPid"), "0");
  expect_same_status({"Name", "Umask", "SigIgn", "SigCgt", "SigBlk", "Threads", "CapEff"});
  EXPECT_TRUE(status(there(), "NSpid").ends_with("\t" + std::to_string(here())));
  for (const char* name : {"cmdline", "environ", "auxv", "comm", "limits"}) {
    expect_same_text(name);
  }
  EXPECT_EQ(link(there(), "exe"), link(here(), "exe"));
  EXPECT_EQ(link(there(), "cwd"), link(here(), "cwd"));
  expect_answer();
  EXPECT_EQ(counted(here(), SIGUSR1), 1);  // The other one stands still.
  expect_rest(there());
  expect_same_image();
}

TEST_F(Restored, HasItsLimitsAndScores) {
  start([] {
    for (const auto& [resource, soft, hard] : {std::array<rlim_t, 3>{RLIMIT_NOFILE, 77, 99},
                                               {RLIMIT_CORE, 0, 4096},
                                               {RLIMIT_STACK, 1U << 20U, RLIM_INFINITY},
                                               {RLIMIT_NPROC, 500, 600}}) {
      const rlimit limit{soft, hard};
      ::setrlimit(static_cast<__rlimit_resource>(resource), &limit);
    }
    ::umask(027);
    ::personality(ADDR_NO_RANDOMIZE);
    ::prctl(PR_SET_CHILD_SUBREAPER, 1);
    ::prctl(PR_SET_THP_DISABLE, 1, 0, 0, 0);
    ::prctl(PR_SET_TIMERSLACK, 70'000);
    static_cast<void>(write_file("/proc/self/oom_score_adj", "300"));
    static_cast<void>(write_file("/proc/self/coredump_filter", "0x11"));
  });
  ASSERT_NO_FATAL_FAILURE(move());
  for (const char* name :
       {"limits", "oom_score_adj", "coredump_filter", "personality", "timerslack_ns"}) {
    expect_same_text(name);
  }
  EXPECT_EQ(status(there(), "Umask"), "0027");
  EXPECT_EQ(status(there(), "THP_enabled"), "0");
  expect_rest(there());
  expect_same_image();
  EXPECT_TRUE(restored_->source().process().child_subreaper());
}

TEST_F(Restored, IsTheSameUser) {
  start([] {
    const std::array<gid_t, 3> groups{10, 20, 64099};
    static_cast<void>(::setgroups(groups.size(), groups.data()));
    ::prctl(PR_CAPBSET_DROP, CAP_SYS_BOOT, 0, 0, 0);
    ::prctl(PR_SET_KEEPCAPS, 1);
    static_cast<void>(::setresgid(64012, 64013, 64014));
    static_cast<void>(::setresuid(64015, 64016, 64017));
    __user_cap_header_struct header{_LINUX_CAPABILITY_VERSION_3, 0};
    const __u32 some = 1U << CAP_NET_RAW | 1U << CAP_SETPCAP | 1U << CAP_KILL;
    const __user_cap_data_struct sets[2] = {
        {1U << CAP_KILL | 1U << CAP_SETPCAP, some, 1U << CAP_NET_RAW}, {0, 0, 0}};
    ::syscall(SYS_capset, &header, sets);
    ::prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_RAISE, CAP_NET_RAW, 0, 0);
    ::prctl(PR_SET_SECUREBITS, SECBIT_NOROOT);
    ::prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0);
    ::prctl(PR_SET_DUMPABLE, 1);
  });
  ASSERT_NO_FATAL_FAILURE(move());
  expect_same_status(
      {"Uid", "Gid", "Groups", "CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb", "NoNewPrivs"});
  EXPECT_EQ(status(there(), "Uid"), "64015\t64016\t64017\t64016");
  EXPECT_EQ(status(there(), "CapAmb"), "0000000000002000");
  EXPECT_EQ(status(there(), "NoNewPrivs"), "1");
  struct stat maps {};
  ASSERT_EQ(::stat((restored_->folder() + "/maps").c_str(), &maps), 0);
  EXPECT_EQ(maps.st_uid, 64016U);  // Its user may look into it again.
  expect_rest(there());
  expect_same_image();
}

TEST_F(Restored, IsHiddenIfItWas) {
  start([] {
    static_cast<void>(::setresuid(64015, 64015, 64015));
    ::prctl(PR_SET_DUMPABLE, 0);
  });
  ASSERT_NO_FATAL_FAILURE(move());
  struct stat maps {};
  ASSERT_EQ(::stat((restored_->folder() + "/maps").c_str(), &maps), 0);
  EXPECT_EQ(maps.st_uid, 0U);
}

TEST_F(Restored, IsInTheDirectoryWhereItWasLast) {
  std::filesystem::create_directory(directory_.file("before"));
  std::filesystem::create_directory(directory_.file("after"));
  static std::string after;
  after = directory_.file("after");
  start([this] {
    static_cast<void>(!::chdir(directory_.file("before").c_str()));
    ::signal(SIGUSR2, [](int) { static_cast<void>(!::chdir(after.c_str())); });
  });
  RestoredProcess::Options options{.draft = test::inspect(here()).image};
  EXPECT_TRUE(only_process(*options.draft).working_directory().ends_with("before"));
  ::kill(here(), SIGUSR2);
  ASSERT_TRUE(test::comes_true([this] { return link(here(), "cwd") == after; }));
  ASSERT_NO_FATAL_FAILURE(move(options));
  EXPECT_EQ(link(there(), "cwd"), after);
  expect_rest(there());
  expect_same_image();
}

/// Descriptors of the process, in it.
struct Opened {
  int file = -1, shared = -1, appended = -1, folder = -1, zero = -1, counter = -1, timer = -1;
  int signals = -1, epoll = -1, memory = -1;
  std::array<int, 2> pipe{}, sockets{};
};
Opened opened;

void open_all(const std::string& path, const std::string& folder) {
  opened.file = ::open(path.c_str(), O_RDWR | O_CLOEXEC);
  ::lseek(opened.file, 4, SEEK_SET);
  opened.shared = ::dup2(opened.file, 300);
  opened.appended = ::open(path.c_str(), O_WRONLY | O_APPEND | O_NONBLOCK);
  opened.folder = ::open(folder.c_str(), O_RDONLY | O_DIRECTORY);
  opened.zero = ::open("/dev/zero", O_RDONLY);
  opened.counter = ::eventfd(6, EFD_NONBLOCK);
  opened.timer = ::timerfd_create(CLOCK_MONOTONIC, 0);
  const itimerspec late{{100, 0}, {900, 0}};
  ::timerfd_settime(opened.timer, 0, &late, nullptr);
  sigset_t set;
  sigemptyset(&set);
  sigaddset(&set, SIGHUP);
  opened.signals = ::signalfd(-1, &set, SFD_CLOEXEC);
  opened.epoll = ::epoll_create1(0);
  epoll_event event{};
  event.events = EPOLLIN | EPOLLET;
  event.data.u64 = 0x1234;
  ::epoll_ctl(opened.epoll, EPOLL_CTL_ADD, opened.counter, &event);
  opened.memory = ::memfd_create("a memory", MFD_ALLOW_SEALING);
  static_cast<void>(!::write(opened.memory, "remembered", 10));
  ::fcntl(opened.memory, F_ADD_SEALS, F_SEAL_GROW);
  static_cast<void>(!::pipe(opened.pipe.data()));
  static_cast<void>(!::write(opened.pipe[1], "in the pipe", 11));
  ::socketpair(AF_UNIX, SOCK_SEQPACKET, 0, opened.sockets.data());
  for (const char* message : {"first", "2nd"}) {
    ::send(opened.sockets[0], message, std::string(message).size(), 0);
  }
}

std::string read_from(const UniqueFd& fd) {
  std::array<char, 100> bytes{};
  const ssize_t count = ::read(fd.get(), bytes.data(), bytes.size());
  return {bytes.data(), static_cast<std::size_t>(std::max<ssize_t>(count, 0))};
}

TEST_F(Restored, HasItsDescriptorsWithWhatIsInThem) {
  const std::string path = make("file", "0123456789");
  static Opened told;
  start([this, path] {
    open_all(path, directory_.path());
    told = opened;
  });
  ASSERT_TRUE(read_memory(here(), reinterpret_cast<std::uint64_t>(&opened),
                          std::as_writable_bytes(std::span(&told, 1))));
  std::string before;
  const auto infos = [](pid_t process) {
    const std::string folder = "/proc/" + std::to_string(process);
    std::string text;
    std::vector<std::string> names = list_directory(folder + "/fd").value();
    std::ranges::sort(names);
    for (const std::string& name : names) {
      const std::string info = read_file(folder + "/fdinfo/" + name).value();
      const std::string flags = info.substr(0, info.find("mnt_id:"));  // And the position.
      std::istringstream lines(flags);  // O_LARGEFILE depends on who opened it, and means nothing.
      std::string key;
      std::uint64_t position = 0;
      std::uint64_t word = 0;
      lines >> key >> position >> key >> std::oct >> word;
      text +=
          name + " " + std::to_string(position) + " " + std::to_string(word & ~0100000ULL) + "\n";
    }
    return text;
  };
  before = infos(here());
  ASSERT_NO_FATAL_FAILURE(move());
  EXPECT_EQ(infos(there()), before);
  expect_rest(there());
  expect_same_image();
  EXPECT_EQ(::syscall(SYS_kcmp, there(), there(), KCMP_FILE, told.file, told.shared), 0);
  EXPECT_NE(::syscall(SYS_kcmp, there(), there(), KCMP_FILE, told.file, told.appended), 0);
  EXPECT_EQ(link(there(), "fd/" + std::to_string(told.folder)), directory_.path());
  EXPECT_EQ(read_from(fetch(told.shared)), "456789");
  EXPECT_EQ(read_from(fetch(told.pipe[0])), "in the pipe");
  EXPECT_EQ(read_from(fetch(told.sockets[1])), "first");
  EXPECT_EQ(read_from(fetch(told.sockets[1])), "2nd");
  const UniqueFd memory = fetch(told.memory);
  EXPECT_EQ(::fcntl(memory.get(), F_GET_SEALS), F_SEAL_GROW);
  EXPECT_EQ(::lseek(memory.get(), 0, SEEK_SET), 0);
  EXPECT_EQ(read_from(memory), "remembered");
  epoll_event event{};
  ASSERT_EQ(::epoll_wait(fetch(told.epoll).get(), &event, 1, 0), 1);
  EXPECT_EQ(event.data.u64, 0x1234U);
  std::uint64_t events = 0;
  ASSERT_EQ(::read(fetch(told.counter).get(), &events, sizeof(events)), 8);
  EXPECT_EQ(events, 6U);
}

TEST_F(Restored, SocketsNameTheUserThatMadeThemNew) {
  static std::array<int, 2> ends{};
  start([] {
    static_cast<void>(::setresgid(64012, 64012, 64012));
    static_cast<void>(::setresuid(64011, 64011, 64011));
    ::prctl(PR_SET_DUMPABLE, 1);
    ::socketpair(AF_UNIX, SOCK_STREAM, 0, ends.data());
  });
  ASSERT_TRUE(read_memory(here(), reinterpret_cast<std::uint64_t>(&ends),
                          std::as_writable_bytes(std::span(ends))));
  ASSERT_NO_FATAL_FAILURE(move());
  ucred peer{};
  socklen_t length = sizeof(peer);
  ASSERT_EQ(::getsockopt(fetch(ends[0]).get(), SOL_SOCKET, SO_PEERCRED, &peer, &length), 0);
  EXPECT_EQ(peer.uid, 64011U);
  EXPECT_EQ(peer.gid, 64012U);
  expect_rest(there());
  expect_same_image();
}

TEST_F(Restored, AFileThatIsAnotherByThenFailsTheMoveOnly) {
  const std::string path = make("file", "mine");
  start([&] { ::open(path.c_str(), O_RDONLY); });
  const Error error = move_that_fails({.change = [&](wire::Image&) {
    std::filesystem::remove(path);
    make("file", "else");
  }});
  EXPECT_EQ(error.code, ErrorCode::kRefused) << error.message();
  EXPECT_EQ(error.object, path);
}

TEST_F(Restored, AVdsoOfAnotherSizeFailsTheMoveOnly) {
  start();
  const Error error = move_that_fails({.change_draft = [](wire::Image& draft) {
    for (wire::Mapping& mapping : *mutable_only_process(draft).mutable_mappings()) {
      if (mapping.kind() == wire::Mapping::VDSO) {
        mapping.set_end(mapping.end() + kPageBytes);
      }
    }
  }});
  EXPECT_EQ(error.code, ErrorCode::kRefused) << error.message();
}

TEST_F(Restored, AStreamThatNobodyRelaysFailsTheMoveOnly) {
  start();
  const Error error = move_that_fails({.change = [](wire::Image& image) {
    wire::OpenFile& file = *image.mutable_objects()->add_files();
    file.set_kind(wire::OpenFile::RELAY);
    file.set_object(3);
  }});
  EXPECT_EQ(error.code, ErrorCode::kCorrupt) << error.message();
}

/// What becomes of a process whose worker dies, having brought it as far as this.
class RestoredByADyingWorker : public Restored {
 protected:
  void lose_worker(bool release, bool keep) {
    start();
    worker_.emplace([&] {
      restored_.emplace(here(), RestoredProcess::Options{.release = release, .run = false});
      if (!restored_->outcome()) {
        return LastWords{};
      }
      if (keep) {  // Which tells the init to stay.
        EXPECT_TRUE(restored_->cell().keep({.number = 1}, 0));
      }
      return LastWords{.process = there(), .init = restored_->cell().init()};
    });
    worker_->die();
    ASSERT_GT(process(), 0);
  }
  pid_t process() const { return worker_->words().process; }
  void TearDown() override {
    if (worker_ && worker_->words().init > 0) {
      ::kill(worker_->words().init, SIGKILL);
      EXPECT_TRUE(test::comes_true([this] { return has_ended(worker_->words().init); }));
    }
  }

  std::optional<DyingWorker> worker_;
};

TEST_F(RestoredByADyingWorker, EndsWithItBeforeItHasRun) {
  ASSERT_NO_FATAL_FAILURE(lose_worker(false, true));
  EXPECT_TRUE(test::comes_true([this] { return has_ended(process()); }));
  EXPECT_FALSE(has_ended(worker_->words().init));
}

TEST_F(RestoredByADyingWorker, RunsOnOnceItIsReleased) {
  ASSERT_NO_FATAL_FAILURE(lose_worker(true, true));
  const int before = counted(process(), SIGUSR1);
  ::kill(process(), SIGUSR1);
  EXPECT_TRUE(test::comes_true([&] { return counted(process(), SIGUSR1) > before; }));
}

TEST_F(RestoredByADyingWorker, EndsWithACellThatWasNotToldToStay) {
  ASSERT_NO_FATAL_FAILURE(lose_worker(true, false));
  EXPECT_TRUE(test::comes_true([this] { return has_ended(process()); }));
  EXPECT_TRUE(test::comes_true([this] { return has_ended(worker_->words().init); }));
}

}  // namespace
}  // namespace migrate
