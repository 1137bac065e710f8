// Whose processes a host takes.
#include "libmigrate/rules/host_policy.h"

#include <gtest/gtest.h>
#include <sched.h>
#include <unistd.h>

#include <functional>
#include <set>
#include <string>

#include "libmigrate/rules/host_memory.h"

namespace migrate {
namespace {

const PeerIdentity kHostA{"hosta", {"hosta", "10.0.0.1"}};
const PeerIdentity kHostB{"hostb", {"hostb"}};
constexpr uid_t kNobody = 65534;

std::set<std::string> codes(const std::vector<wire::Refusal>& refusals) {
  std::set<std::string> found;
  for (const wire::Refusal& refusal : refusals) {
    found.insert(refusal.code());
  }
  return found;
}

HostPolicy policy(const std::vector<std::string>& rules) {
  return HostPolicy::parse(rules).value();
}

wire::ProcessImage image_of(uid_t user, gid_t group) {
  wire::ProcessImage image;
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
  return image;
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
  // Someone else's process, claimed to be one's own.
  EXPECT_EQ(codes(check_policy(rules, kHostA, kNobody, image_of(0, 0))),
            std::set<std::string>{"NOT_ALLOWED"});
  EXPECT_EQ(codes(check_policy(rules, kHostA, kNobody, {})), std::set<std::string>{"NOT_ALLOWED"});
}

TEST(HostPolicy, NothingGivesAUserMoreThanHeCouldHaveHere) {
  const HostPolicy rules = policy({"*@*"});
  const auto refused = [&](const std::function<void(wire::ProcessImage&)>& change) {
    wire::ProcessImage image = image_of(kNobody, kNobody);
    change(image);
    const auto user = image.threads(0).credentials().uid_real();
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
  refused([&](wire::ProcessImage& image) { image.mutable_threads(0)->set_nice(-1); });
  refused([&](wire::ProcessImage& image) { image.set_oom_score_adjust(-1); });
  refused([&](wire::ProcessImage& image) {  // In any thread.
    *image.add_threads() = image.threads(0);
    image.mutable_threads(1)->mutable_credentials()->set_uid_effective(0);
  });
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
