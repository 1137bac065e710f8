// What a process is told that it would lose, running and frozen.
#include "libmigrate/inspect/internal/losses.h"

#include <fcntl.h>
#include <gtest/gtest.h>
#include <linux/mempolicy.h>
#include <linux/prctl.h>
#include <sched.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <csignal>
#include <map>
#include <string>
#include <thread>
#include <vector>

#include "base/assistant.h"
#include "base/file.h"
#include "libmigrate/image/only_process.h"
#include "libmigrate/inspect/state_table.h"
#include "tests/libmigrate/inspect/fake_process.h"
#include "tests/libmigrate/inspect/held_process.h"
#include "tests/transport/temporary_directory.h"

namespace migrate {
namespace {

using test::HeldProcess;
using Texts = std::vector<std::string>;

/// What the process would lose, by code; also when it is frozen, which must say the same.
std::map<std::string, Texts> losses_of(const HeldProcess& process) {
  ProcessInspector inspector = ProcessInspector::create(process.pid(), {}).value();
  const Inspection running = inspector.inspect_running().value();
  const auto by_code = [](const std::vector<Loss>& losses) {
    std::map<std::string, Texts> found;
    for (const Loss& loss : losses) {
      EXPECT_FALSE(loss.reason.empty() || loss.remedy.empty()) << loss.code;
      found[std::string(loss.code)].push_back(loss.object);
    }
    return found;
  };
  auto found = by_code(inspector.losses(running.image, false));
  process.freeze();
  const auto assistant = Assistant::create().value();
  const Inspection frozen =
      inspector.inspect_frozen(running.image, *assistant, [](auto&) { return Result<void>(); })
          .value();
  EXPECT_EQ(by_code(inspector.losses(frozen.image, true)), found);
  return found;
}

TEST(StateTable, WhatIsLostIsEitherFoundOrSaidToBeOfAllOrUnseen) {
  const auto table = state_table();
  for (const StateEntry& entry : table) {
    EXPECT_EQ(entry.fate == StateFate::kLost, !entry.code.empty()) << entry.name;
    EXPECT_EQ(entry.find != nullptr, !entry.remedy.empty()) << entry.name;
    const auto finders = std::ranges::count_if(table, [&](const StateEntry& other) {
      return other.code == entry.code && other.find != nullptr;
    });
    EXPECT_EQ(finders, entry.code.empty() ? 0 : 1) << entry.name;
  }
}

TEST(Losses, OfWhatEverybodyHasNothingIsSaid) {
  const HeldProcess process([] { ::setsid(); });
  auto losses = losses_of(process);
  losses.erase("CONTROL_GROUP");  // These are of whoever runs the test.
  losses.erase("MEMORY_NODES");
  losses.erase("RESOURCE_GROUP");
  EXPECT_EQ(losses, (std::map<std::string, Texts>()));
}

TEST(Losses, PoliciesOfMemory) {
  const HeldProcess process([] {
    const unsigned long first_node = 1;
    void* memory =
        ::mmap(nullptr, 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (::syscall(SYS_mbind, memory, 4096, MPOL_BIND, &first_node, 2, 0) != 0) {
      ::_exit(2);
    }
  });
  EXPECT_EQ(losses_of(process)["MEMORY_POLICY"], Texts{"bind:0 for 1 mappings"});
}

TEST(Losses, MitigationsOfSpeculation) {
  const int now = ::prctl(PR_GET_SPECULATION_CTRL, PR_SPEC_STORE_BYPASS, 0, 0, 0);
  if (now < 0 || (now & PR_SPEC_PRCTL) == 0) {
    GTEST_SKIP() << "this processor lets no program choose";
  }
  const HeldProcess process(
      [] { ::prctl(PR_SET_SPECULATION_CTRL, PR_SPEC_STORE_BYPASS, PR_SPEC_DISABLE, 0, 0); });
  ASSERT_EQ(losses_of(process)["SPECULATION"].size(), 1U);
}

TEST(Losses, FlusherOfStorage) {
  const HeldProcess process([] { ::prctl(PR_SET_IO_FLUSHER, 1, 0, 0, 0); });
  if (::prctl(PR_GET_IO_FLUSHER, 0, 0, 0, 0) < 0) {
    GTEST_SKIP() << "only who has CAP_SYS_RESOURCE may be one";
  }
  EXPECT_EQ(losses_of(process)["IO_FLUSHER"], Texts{"thread " + std::to_string(process.pid())});
}

TEST(Losses, OwnersOfDescriptors) {
  const HeldProcess process([] {
    int ends[2] = {};
    if (::pipe(ends) != 0 || ::fcntl(ends[0], F_SETOWN, ::getpid()) != 0 ||
        ::fcntl(ends[1], F_SETSIG, SIGUSR1) != 0 || ::dup(ends[0]) < 0) {
      ::_exit(2);
    }
  });
  const Texts owned = losses_of(process)["DESCRIPTOR_OWNER"];
  ASSERT_EQ(owned.size(), 2U);
  EXPECT_NE(owned[0].find(": to pid " + std::to_string(process.pid())), std::string::npos)
      << owned[0];
  EXPECT_NE(owned[1].find(": signal " + std::to_string(SIGUSR1)), std::string::npos) << owned[1];
}

TEST(Losses, NotificationsOfDirectories) {
  const test::TemporaryDirectory directory;
  const HeldProcess process([&] {
    const int fd = ::open(directory.path().c_str(), O_RDONLY | O_DIRECTORY);
    if (::fcntl(fd, F_NOTIFY, DN_CREATE | DN_MULTISHOT) != 0) {
      ::_exit(2);
    }
  });
  const auto losses = losses_of(process);
  ASSERT_TRUE(losses.contains("DIRECTORY_NOTIFICATION"));
  EXPECT_FALSE(losses.contains("DESCRIPTOR_OWNER"));
  EXPECT_NE(losses.at("DIRECTORY_NOTIFICATION")[0].find(directory.path()), std::string::npos);
}

// One of an event counter can be fired again at the destination, one of another set cannot.
TEST(Losses, WatchesThatHaveFired) {
  const HeldProcess process([] {
    const int event = ::eventfd(1, 0);
    const int inner = ::epoll_create1(0);
    const int outer = ::epoll_create1(0);
    epoll_event watch{EPOLLIN, {}};
    ::epoll_ctl(inner, EPOLL_CTL_ADD, event, &watch);
    watch.events = EPOLLIN | EPOLLONESHOT;
    ::epoll_ctl(outer, EPOLL_CTL_ADD, event, &watch);
    ::epoll_ctl(outer, EPOLL_CTL_ADD, inner, &watch);
    epoll_event happened[2] = {};
    if (::epoll_wait(outer, happened, 2, 0) != 2) {
      ::_exit(2);
    }
  });
  EXPECT_EQ(losses_of(process)["WATCH_FIRED"], Texts{"of descriptor 4"});
}

TEST(Losses, AGroupThatAnotherProcessLeads) {
  const HeldProcess member([] {});
  EXPECT_EQ(losses_of(member)["PROCESS_GROUP"], Texts{"group " + std::to_string(::getpgrp())});
  const HeldProcess leader([] { ::setpgid(0, 0); });
  EXPECT_EQ(losses_of(leader)["PROCESS_GROUP"], Texts());
}

TEST(Losses, TheTerminalOfItsSessionUnlessItIsOpen) {
  for (const bool is_open : {true, false}) {
    const UniqueFd master(::posix_openpt(O_RDWR | O_NOCTTY | O_CLOEXEC));
    ASSERT_EQ(::grantpt(master.get()), 0);
    ASSERT_EQ(::unlockpt(master.get()), 0);
    const std::string name = ::ptsname(master.get());
    const UniqueFd slave(::open(name.c_str(), O_RDWR | O_NOCTTY | O_CLOEXEC));
    const HeldProcess process([&] {
      const int session = ::setsid();
      const int terminal = ::open(name.c_str(), O_RDWR);
      if (session < 0 || terminal < 0) {
        ::_exit(2);
      }
      if (!is_open) {
        ::close(terminal);
      }
    });
    const Texts terminal = losses_of(process)["TERMINAL"];
    if (is_open) {
      EXPECT_TRUE(terminal.empty());
    } else {
      ASSERT_EQ(terminal.size(), 1U);
      EXPECT_TRUE(terminal[0].starts_with("terminal /dev/pts/")) << terminal[0];
    }
  }
}

TEST(Losses, ATerminalOfItsOwnIsNotLost) {
  const HeldProcess process([] {
    const int master = ::posix_openpt(O_RDWR | O_NOCTTY);
    const int unlocked = 0;
    const bool is_there = ::setsid() > 0 && ::ioctl(master, TIOCSPTLCK, &unlocked) == 0 &&
                          ::ioctl(::ioctl(master, TIOCGPTPEER, O_RDWR), TIOCSCTTY, 0) == 0;
    if (!is_there) {
      ::_exit(2);
    }
  });
  EXPECT_TRUE(losses_of(process)["TERMINAL"].empty());
}

TEST(Losses, ThreadsWithoutTimerSlackAreOrdinaryOnesOfARealTimeThread) {
  const auto set_policy = [](int policy) {
    sched_param parameter{};
    parameter.sched_priority = policy == SCHED_FIFO ? 1 : 0;
    return ::sched_setscheduler(0, policy, &parameter) == 0;
  };
  if (!set_policy(SCHED_FIFO)) {
    GTEST_SKIP() << "real-time policies need CAP_SYS_NICE";
  }
  ASSERT_TRUE(set_policy(SCHED_OTHER));
  for (const bool stays : {true, false}) {
    const HeldProcess process([&] {
      std::atomic<bool> begun{false};
      bool done = set_policy(SCHED_FIFO);
      std::thread([&] {
        done = done && (stays || set_policy(SCHED_OTHER));
        begun = true;
        for (;;) {
          ::pause();
        }
      }).detach();
      while (!begun) {
        ::usleep(1000);
      }
      if (!done || !set_policy(SCHED_OTHER)) {
        ::_exit(2);
      }
    });
    EXPECT_EQ(losses_of(process)["TIMER_SLACK"].size(), stays ? 0U : 1U);
  }
}

TEST(Losses, ListsOfNodes) {
  EXPECT_TRUE(inspect::list_has_all("0-3,7\n", "1,3,7\n"));
  EXPECT_TRUE(inspect::list_has_all("0", "0"));
  EXPECT_FALSE(inspect::list_has_all("0,2", "0-2"));
  EXPECT_FALSE(inspect::list_has_all("", "0"));
}

TEST(Losses, PoliciesAreCounted) {
  EXPECT_EQ(inspect::policies_in("1000 default file=/x N0=1\n2000 bind:0 anon=1\n3000 bind:0\n"
                                 "4000 interleave:0-1 anon=2\n"),
            (Texts{"bind:0 for 2 mappings", "interleave:0-1 for 1 mappings"}));
}

TEST(Losses, OddListsOfNodes) {
  EXPECT_TRUE(inspect::list_has_all("0-5000", "1024"));  // No kernel has more than 1024.
  EXPECT_FALSE(inspect::list_has_all("0-1023", "1024"));
  EXPECT_FALSE(inspect::list_has_all("3-1", "2"));
  EXPECT_FALSE(inspect::list_has_all("x,-,", "0"));
  EXPECT_TRUE(inspect::list_has_all("x", ""));
  EXPECT_TRUE(inspect::list_has_all("0-18446744073709551615", "0-1"));
}

TEST(Losses, OddTextsOfPolicies) {
  EXPECT_EQ(inspect::policies_in(""), Texts());
  EXPECT_EQ(inspect::policies_in("1000\n\n2000 default\n"), Texts());
  EXPECT_EQ(inspect::policies_in("1000 prefer:1"), Texts{"prefer:1 for 1 mappings"});
}

/// Losses of a process that there is not.
class LossesOfText : public testing::Test {
 protected:
  static constexpr pid_t kPid = inspect::FakeProcess::kPid;
  static constexpr pid_t kOther = inspect::FakeProcess::kOther;

  Texts find(FindLosses finder, bool frozen = false) {
    return finder({process_.view(), threads_, image_, findings_, frozen});
  }
  /// The fields of stat from the third on: state, parent, group, session, terminal, its group,
  /// flags.
  static std::string stat(int group, int terminal, unsigned flags) {
    return "7 (a b) S 1 " + std::to_string(group) + " 3 " + std::to_string(terminal) + " -1 " +
           std::to_string(flags) + " 0 0\n";
  }

  inspect::FakeProcess process_;
  ThreadIds threads_{{kPid, 1}, {kOther, 2}};
  wire::Image image_;
  inspect::Findings findings_;
};

TEST_F(LossesOfText, MitigationsAreOfEachThreadThatHasThemOtherwise) {
  const std::string key = "SpeculationIndirectBranch:";
  process_.view().status_text = key + "\tas nobody has it\n";
  process_.write_of(kOther, "status", key + "\tnor this\n");
  const std::string leader = "thread " + std::to_string(kPid) + ": " + key + " ";
  const std::string other = "thread " + std::to_string(kOther) + ": " + key + " ";
  EXPECT_EQ(find(inspect::find_speculation),
            (Texts{leader + "as nobody has it", other + "nor this"}));
  // While it is frozen only the first is asked again; the other is as it was.
  process_.view().status_text = "";
  process_.write_of(kOther, "status", "");
  EXPECT_EQ(find(inspect::find_speculation, true), Texts{other + "nor this"});
  EXPECT_EQ(find(inspect::find_speculation), Texts());
  process_.view().status_text = read_file("/proc/self/status").value();
  EXPECT_EQ(find(inspect::find_speculation), Texts());  // As everybody has it.
}

TEST_F(LossesOfText, FlushersAreToldByTwoFlagsAtOnce) {
  process_.write_of(kPid, "stat", stat(7, 0, 0x00080000));  // For a while, as any thread may.
  process_.write_of(kOther, "stat", stat(7, 0, 0x00180040));
  EXPECT_EQ(find(inspect::find_io_flusher), Texts{"thread " + std::to_string(kOther)});
  process_.write_of(kOther, "stat", "cut (");
  EXPECT_EQ(find(inspect::find_io_flusher), Texts());
}

TEST_F(LossesOfText, GroupsThatAnotherLeads) {
  process_.write("stat", stat(kPid, 0, 0));
  EXPECT_EQ(find(inspect::find_process_group), Texts());
  process_.write("stat", stat(55, 0, 0));
  EXPECT_EQ(find(inspect::find_process_group), Texts{"group 55"});
  process_.write("stat", stat(0, 0, 0));
  EXPECT_EQ(find(inspect::find_process_group), Texts{"a group of another PID namespace"});
}

TEST_F(LossesOfText, TerminalsByTheirNumbers) {
  const auto of = [this](int device) {
    process_.write("stat", stat(kPid, device, 0));
    return find(inspect::find_terminal);
  };
  EXPECT_EQ(of(0), Texts());
  EXPECT_EQ(of(136 * 256 + 3), Texts{"terminal /dev/pts/3"});
  EXPECT_EQ(of(137 * 256 + 1), Texts{"terminal /dev/pts/257"});
  EXPECT_EQ(of(143 * 256 + 255), Texts{"terminal /dev/pts/2047"});
  EXPECT_EQ(of(144 * 256), Texts{"terminal 144:0"});
  EXPECT_EQ(of(4 * 256 + 64), Texts{"terminal 4:64"});
  image_.mutable_objects()->add_terminals()->set_is_controlling(true);
  EXPECT_EQ(of(136 * 256 + 3), Texts());  // It is open, and comes along.
}

TEST_F(LossesOfText, NodesOfMemoryThatItMayNotUse) {
  if (!read_file("/sys/devices/system/node/has_memory")) {
    GTEST_SKIP() << "this kernel does not show its nodes";
  }
  EXPECT_EQ(find(inspect::find_memory_nodes), Texts());  // It does not say.
  process_.view().status_text = "Mems_allowed_list:\t0-1023\n";
  EXPECT_EQ(find(inspect::find_memory_nodes), Texts());
  process_.view().status_text = "Mems_allowed_list:\t1023\n";
  ASSERT_EQ(find(inspect::find_memory_nodes).size(), 1U);
  EXPECT_TRUE(find(inspect::find_memory_nodes)[0].starts_with("nodes 1023 of "));
}

TEST_F(LossesOfText, GroupsOfResctrlOtherThanTheFirst) {
  EXPECT_EQ(find(inspect::find_resource_group), Texts());
  process_.write("cpu_resctrl_groups", "res:\nmon:\n");  // It is not mounted.
  EXPECT_EQ(find(inspect::find_resource_group), Texts());
  process_.write("cpu_resctrl_groups", "res:/\nmon:\n");
  EXPECT_EQ(find(inspect::find_resource_group), Texts());
  process_.write("cpu_resctrl_groups", "res:/gold\nmon:watched\n");
  EXPECT_EQ(find(inspect::find_resource_group), (Texts{"res:/gold", "mon:watched"}));
}

TEST_F(LossesOfText, PoliciesAreReadWhileItRunsAndOnlyWhereThereMayBeAny) {
  process_.write("numa_maps", "1000 bind:0 anon=1\n");
  EXPECT_EQ(find(inspect::find_memory_policies), Texts{"bind:0 for 1 mappings"});
  process_.write("numa_maps", "");
  EXPECT_EQ(find(inspect::find_memory_policies, true), Texts{"bind:0 for 1 mappings"});
  process_.write("numa_maps", "1000 bind:0 anon=1\n");
  findings_.may_have_policies = false;
  EXPECT_EQ(find(inspect::find_memory_policies), Texts());
}

TEST_F(LossesOfText, NamedPipesThatAreRelayed) {
  const auto add = [this](wire::OpenFile::Kind kind, unsigned mode, const char* path) {
    wire::OpenFile& file = *image_.mutable_objects()->add_files();
    file.set_kind(kind);
    file.mutable_identity()->set_mode(mode);
    file.mutable_identity()->set_path(path);
  };
  add(wire::OpenFile::RELAY, S_IFIFO | 0600, "/run/fifo");
  add(wire::OpenFile::RELAY, S_IFIFO | 0600, "pipe:[17]");
  add(wire::OpenFile::RELAY, S_IFSOCK | 0600, "/run/socket");
  add(wire::OpenFile::REGULAR, S_IFIFO | 0600, "/run/other");
  EXPECT_EQ(find(inspect::find_named_pipes), Texts{"/run/fifo"});
}

TEST_F(LossesOfText, AProgramWithoutItsFileUnlessWeHaveItSo) {
  wire::ProcessImage& process = mutable_only_process(image_);
  process.mutable_executable()->set_path("/bin/a (deleted)");
  process.mutable_executable()->set_size_bytes(10);
  EXPECT_EQ(find(inspect::find_deleted_executable), Texts());
  process.set_without_executable(true);
  EXPECT_EQ(find(inspect::find_deleted_executable), Texts{"/bin/a (deleted)"});
  process.mutable_executable()->set_size_bytes(0);
  EXPECT_EQ(find(inspect::find_deleted_executable), Texts());
}

TEST_F(LossesOfText, HugePagesAreCountedInMebibytes) {
  EXPECT_EQ(find(inspect::find_huge_pages), Texts());
  for (const std::uint64_t start : {std::uint64_t{1} << 30U, std::uint64_t{3} << 30U}) {
    wire::Mapping& mapping = *mutable_only_process(image_).add_mappings();
    mapping.set_start(start);
    mapping.set_end(start + (std::uint64_t{4} << 20U));
    mapping.set_has_huge_pages(true);
  }
  EXPECT_EQ(find(inspect::find_huge_pages), Texts{"8 MiB"});
  wire::SharedMemory& memory = *image_.mutable_objects()->add_shared_memories();
  memory.set_has_huge_pages(true);
  memory.set_size_bytes(std::uint64_t{2} << 20U);
  EXPECT_EQ(find(inspect::find_huge_pages), Texts{"8 MiB"});  // Its mappings are counted.
  memory.set_open_descriptor(true);
  EXPECT_EQ(find(inspect::find_huge_pages), Texts{"10 MiB"});
}

TEST_F(LossesOfText, WatchesThatNothingCanFireAgain) {
  wire::OpenFile& file = *image_.mutable_objects()->add_files();
  const auto add = [&](std::uint32_t target, std::uint32_t events, std::uint32_t ready) {
    wire::EpollWatch& watch = *file.add_watches();
    watch.set_target(target);
    watch.set_events(events);
    watch.set_ready(ready);
  };
  add(3, EPOLLONESHOT | EPOLLET, 0);
  add(4, EPOLLONESHOT | EPOLLIN, 0);  // Not fired.
  add(5, EPOLLONESHOT, EPOLLIN);      // It is fired again there.
  add(6, EPOLLET, 0);
  EXPECT_EQ(find(inspect::find_fired_watches), Texts{"of descriptor 3"});
}

TEST_F(LossesOfText, EachIsSaidWithItsReasonAndWhatToDo) {
  process_.write("stat", stat(55, 0, 0));
  process_.view().files_as_memory = {"/b", "/a"};
  findings_.group_limits = {"/x: io.max 8:0 rbps=1"};
  std::map<std::string, Texts> found;
  for (const Loss& loss : find_losses({process_.view(), threads_, image_, findings_, false})) {
    EXPECT_FALSE(loss.reason.empty()) << loss.code;
    EXPECT_FALSE(loss.remedy.empty()) << loss.code;
    found[std::string(loss.code)].push_back(loss.object);
  }
  found.erase("MEMORY_NODES");
  found.erase("SPECULATION");
  ASSERT_EQ(found["PROCESS_GROUP"], Texts{"group 55"});
  ASSERT_EQ(found["CONTROL_GROUP"], Texts{"/x: io.max 8:0 rbps=1"});
  found.erase("PROCESS_GROUP");
  found.erase("CONTROL_GROUP");
  ASSERT_EQ(found.size(), 1U);
  EXPECT_EQ(found.begin()->second, (Texts{"/a", "/b"}));
}

}  // namespace
}  // namespace migrate
