// What a process is told that it would lose, running and frozen.
#include "libmigrate/inspect/internal/losses.h"

#include <fcntl.h>
#include <gtest/gtest.h>
#include <linux/mempolicy.h>
#include <linux/prctl.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <algorithm>
#include <csignal>
#include <map>
#include <string>
#include <vector>

#include "base/assistant.h"
#include "base/file.h"
#include "libmigrate/inspect/state_table.h"
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

}  // namespace
}  // namespace migrate
