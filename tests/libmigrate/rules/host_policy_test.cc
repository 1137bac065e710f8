// Whose processes a host takes.
#include "libmigrate/rules/host_policy.h"

#include <gtest/gtest.h>
#include <sched.h>
#include <sys/epoll.h>
#include <sys/resource.h>
#include <time.h>
#include <unistd.h>

#include <functional>
#include <set>
#include <string>

#include "libmigrate/rules/host_memory.h"
#include "tests/libmigrate/inspect/held_process.h"

namespace migrate {
namespace {

const PeerIdentity kHostA{"hosta", {"hosta", "10.0.0.1"}};
const PeerIdentity kHostB{"hostb", {"hostb"}};
constexpr uid_t kNobody = 65534;

using test::codes;

HostPolicy policy(const std::vector<std::string>& rules) {
  return HostPolicy::parse(rules).value();
}

wire::Image image_of(uid_t user, gid_t group) {
  wire::Image whole;
  wire::ProcessImage& image = *whole.add_processes();
  image.set_process_id(7);
  wire::Thread& thread = *image.add_threads();
  thread.set_id(7);
  wire::Credentials& held = *thread.mutable_credentials();
  held.set_uid_real(user);
  held.set_uid_effective(user);
  held.set_uid_saved(user);
  held.set_uid_filesystem(user);
  held.set_gid_real(group);
  held.set_gid_effective(group);
  held.set_gid_saved(group);
  held.set_gid_filesystem(group);
  held.set_capabilities_bounding(~std::uint64_t{0});
  return whole;
}

TEST(HostPolicy, NamesUsersAndHosts) {
  const HostPolicy rules =
      policy({"1000-1999,nobody@hosta,hostc", "root@10.0.0.1", "*@hostb", "3000@*"});
  EXPECT_TRUE(rules.allows(kHostA, 1000));
  EXPECT_TRUE(rules.allows(kHostA, 1999));
  EXPECT_FALSE(rules.allows(kHostA, 2000));
  EXPECT_TRUE(rules.allows(kHostA, kNobody));
  EXPECT_TRUE(rules.allows(kHostA, 0));
  EXPECT_TRUE(rules.allows(kHostB, 2000));
  EXPECT_FALSE(rules.allows(kHostB, 0));
  EXPECT_TRUE(rules.allows({"hostd", {}}, 3000));
  EXPECT_FALSE(rules.allows({"hostd", {}}, 1000));
  EXPECT_FALSE(HostPolicy().allows(kHostA, 1000));
  EXPECT_FALSE(policy({"*@*"}).allows(kHostA, 0));
}

TEST(HostPolicy, BelievesWhoAsksAsFarAsItsProcessesAreTaken) {
  const HostPolicy rules = policy({"root@hosta", "nobody@*"});
  Asker told{.user = 0, .group = 7, .groups = {7, 8}, .capabilities = 5, .is_target = true};
  const auto root = rules.believed(kHostA, told);
  ASSERT_TRUE(root);
  EXPECT_EQ(root->groups, told.groups);
  EXPECT_EQ(root->capabilities, 5U);
  EXPECT_FALSE(root->is_target);  // No process of this host asks from another one.
  EXPECT_FALSE(rules.believed(kHostB, told));
  told.user = kNobody;
  const auto nobody = rules.believed(kHostB, told);
  ASSERT_TRUE(nobody);
  EXPECT_EQ(nobody->user, kNobody);
  EXPECT_EQ(nobody->group, 65534U);  // As the user database has him, whatever was told.
  EXPECT_EQ(nobody->groups, std::vector<gid_t>{65534});
  EXPECT_EQ(nobody->capabilities, 0U);
  told.user = 4'000'000;  // Whom nobody here knows.
  EXPECT_FALSE(policy({"*@*"}).believed(kHostB, told));
}

TEST(HostPolicy, RefusesWhatIsNoRule) {
  for (const char* rule :
       {"", "alice", "@hosta", "root@", "no such user@hosta", "-5@*", ",@*", "20-10@hosta"}) {
    EXPECT_FALSE(HostPolicy::parse({rule})) << rule;
  }
}

TEST(HostPolicy, AUserIsTakenWithHisOwnRightsOnly) {
  const HostPolicy rules = policy({"*@*"});
  EXPECT_EQ(codes(check_policy(rules, kHostA, kNobody, image_of(kNobody, kNobody))),
            std::set<std::string>());
  EXPECT_EQ(codes(check_policy(rules, kHostA, 0, image_of(0, 0))),
            std::set<std::string>{"NOT_ALLOWED"});
  wire::Image nobody;
  nobody.add_processes();
  // Someone else's process, claimed to be one's own.
  EXPECT_EQ(codes(check_policy(rules, kHostA, kNobody, image_of(0, 0))),
            std::set<std::string>{"NOT_ALLOWED"});
  EXPECT_EQ(codes(check_policy(rules, kHostA, kNobody, nobody)),
            std::set<std::string>{"NOT_ALLOWED"});
}

TEST(HostPolicy, NothingGivesAUserMoreThanHeCouldHaveHere) {
  const HostPolicy rules = policy({"*@*"});
  const auto refused = [&](const std::function<void(wire::ProcessImage&)>& change) {
    wire::Image image = image_of(kNobody, kNobody);
    change(*image.mutable_processes(0));
    const auto user = image.processes(0).threads(0).credentials().uid_real();
    EXPECT_EQ(codes(check_policy(rules, kHostA, user, image)), std::set<std::string>{"PRIVILEGE"});
    EXPECT_TRUE(check_policy(policy({"root@*"}), kHostA, user, image).empty());
    EXPECT_FALSE(same_rights(image_of(kNobody, kNobody), image));
  };
  const auto first = [](wire::ProcessImage& image) {
    return image.mutable_threads(0)->mutable_credentials();
  };
  refused([&](wire::ProcessImage& image) { first(image)->set_uid_effective(0); });
  refused([&](wire::ProcessImage& image) { first(image)->set_capabilities_bounding(0); });
  refused([&](wire::ProcessImage& image) { first(image)->set_uid_saved(0); });
  refused([&](wire::ProcessImage& image) { first(image)->set_uid_filesystem(0); });
  refused([&](wire::ProcessImage& image) { first(image)->set_gid_saved(0); });
  refused([&](wire::ProcessImage& image) { first(image)->add_groups(0); });
  refused([&](wire::ProcessImage& image) { first(image)->set_capabilities_effective(1); });
  refused([&](wire::ProcessImage& image) { first(image)->set_capabilities_permitted(1); });
  refused([&](wire::ProcessImage& image) { first(image)->set_capabilities_ambient(1); });
  refused([&](wire::ProcessImage& image) { image.mutable_threads(0)->set_policy(SCHED_FIFO); });
  refused([&](wire::ProcessImage& image) {
    image.mutable_threads(0)->set_policy(SCHED_FIFO | SCHED_RESET_ON_FORK);
  });
  refused([&](wire::ProcessImage& image) {
    image.mutable_threads(0)->set_policy(6);  // SCHED_DEADLINE
  });
  refused([&](wire::ProcessImage& image) {
    image.mutable_threads(0)->set_io_priority(1U << 13U);  // The real-time class.
  });
  refused([&](wire::ProcessImage& image) {
    image.mutable_threads(0)->set_io_priority(1U << 16U | 1U << 13U);
  });
  refused([&](wire::ProcessImage& image) {
    image.add_posix_timers()->set_clock(CLOCK_BOOTTIME_ALARM);
  });
  refused([&](wire::ProcessImage& image) { image.mutable_threads(0)->set_nice(-1); });
  refused([&](wire::ProcessImage& image) { image.set_merges_memory(true); });
  refused([&](wire::ProcessImage& image) { image.set_oom_score_adjust(-1); });
  refused([&](wire::ProcessImage& image) {  // In any thread.
    *image.add_threads() = image.threads(0);
    image.mutable_threads(1)->mutable_credentials()->set_uid_effective(0);
  });
}

TEST(HostPolicy, NoObjectIsMadeThatAUserCouldNotMake) {
  const HostPolicy rules = policy({"*@*"});
  const auto refused = [&](const std::function<void(wire::Image&)>& change) {
    wire::Image image = image_of(kNobody, kNobody);
    change(image);
    EXPECT_EQ(codes(check_policy(rules, kHostA, kNobody, image)),
              std::set<std::string>{"PRIVILEGE"});
    EXPECT_TRUE(check_policy(policy({"root@*"}), kHostA, kNobody, image).empty());
    EXPECT_FALSE(same_rights(image_of(kNobody, kNobody), image));
  };
  refused([](wire::Image& image) {
    image.mutable_objects()->add_files()->set_kind(wire::OpenFile::TIMERFD);
    image.mutable_objects()->mutable_files(0)->set_clock(CLOCK_REALTIME_ALARM);
  });
  refused([](wire::Image& image) {
    image.mutable_objects()->add_files()->add_watches()->set_events(EPOLLIN | EPOLLWAKEUP);
  });
  refused([](wire::Image& image) {
    image.mutable_objects()->add_pipes()->set_capacity_bytes(1U << 31U);
  });
  rlimit64 before{};
  ASSERT_EQ(::prlimit64(0, RLIMIT_MEMLOCK, nullptr, &before), 0);
  const rlimit64 little{0, 4096};
  ASSERT_EQ(::prlimit64(0, RLIMIT_MEMLOCK, &little, nullptr), 0);
  refused([](wire::Image& image) {
    wire::Mapping& mapping = *image.mutable_processes(0)->add_mappings();
    mapping.set_start(0x100000);
    mapping.set_end(0x200000);
    mapping.set_advice(wire::LOCKED);
  });
  static_cast<void>(::prlimit64(0, RLIMIT_MEMLOCK, &before, nullptr));
}

TEST(HostMemory, IsSomeAndNotMoreThanTheMachines) {
  const auto available = available_memory_bytes();
  ASSERT_TRUE(available);
  EXPECT_GT(*available, 0U);
  EXPECT_LE(*available, static_cast<std::uint64_t>(sysconf(_SC_PHYS_PAGES)) *
                            static_cast<std::uint64_t>(sysconf(_SC_PAGESIZE)));
}

}  // namespace
}  // namespace migrate
