#include "libmigrate/carriers/carriers.h"

#include <fcntl.h>
#include <gtest/gtest.h>
#include <sys/inotify.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <array>
#include <set>

#include "libmigrate/carriers/internal/refused.h"
#include "libmigrate/carriers/internal/table.h"
#include "libmigrate/image/refusal.h"
#include "tests/libmigrate/carriers/hosts.h"

namespace migrate::carriers {
namespace {

using Refusals = std::vector<std::string>;

TEST(Carriers, EveryKindHasOneOfItsOwnName) {
  std::set<std::string_view> names;
  int kind = 0;
  for (const Carrier* carrier : all_carriers()) {
    EXPECT_EQ(carrier->kind, kind++) << "the table is in the order of the kinds";
    EXPECT_FALSE(carrier->name.empty());
    EXPECT_TRUE(names.insert(carrier->name).second) << carrier->name;
    EXPECT_EQ(&carrier_of(carrier->kind), carrier);
  }
  EXPECT_EQ(kind, wire::OpenFile::Kind_ARRAYSIZE);
}

TEST(Carriers, EachCanBeRecognisedAndMade) {
  for (const Carrier* carrier : all_carriers()) {
    EXPECT_TRUE(carrier->claims_link != nullptr || carrier->claims_file != nullptr)
        << carrier->name;
    EXPECT_NE(carrier->make, nullptr) << carrier->name;
  }
}

TEST(Carriers, WhatTravelsHasRoomInTheParkingRecord) {
  for (const Carrier* carrier : all_carriers()) {
    EXPECT_EQ(carrier->capture == nullptr, carrier->most_content_bytes == nullptr) << carrier->name;
  }
}

TEST(Carriers, WhatIsOpenedAsTheUserIsComparedToo) {
  for (const Carrier* carrier : all_carriers()) {
    EXPECT_EQ(carrier->opened_as_user, carrier->compare != nullptr) << carrier->name;
  }
}

TEST(Carriers, AKindThatIsNotKnownDoesNothingAndIsMalformed) {
  for (const int number : {-1, static_cast<int>(wire::OpenFile::Kind_ARRAYSIZE), 1 << 30}) {
    const auto kind = static_cast<wire::OpenFile::Kind>(number);
    EXPECT_TRUE(carrier_of(kind).name.empty());
    EXPECT_EQ(carrier_of(kind).make, nullptr);
    wire::Objects objects;
    objects.add_files()->set_kind(kind);
    EXPECT_NE(test::flaw_in(objects), "");
  }
}

TEST(Carriers, AnImageOfNothingIsNotTakenForOne) {
  // All members at their defaults: a regular file without a path.
  wire::Objects objects;
  objects.add_files();
  EXPECT_NE(test::flaw_in(objects), "");
}

TEST(Carriers, WhatNoneClaimsIsRefusedByItsName) {
  test::Source source;
  const UniqueFd watch(::inotify_init1(IN_CLOEXEC));
  ASSERT_GE(::inotify_add_watch(watch.get(), "/proc", IN_CREATE), 0);
  EXPECT_EQ(source.find(watch.get()), -1);
  const UniqueFd pidfd(static_cast<int>(::syscall(SYS_pidfd_open, ::getppid(), 0)));
  EXPECT_EQ(source.find(pidfd.get()), -1);
  const UniqueFd socket(::socket(AF_NETLINK, SOCK_RAW | SOCK_CLOEXEC, 0));
  EXPECT_EQ(source.find(socket.get()), -1);
  EXPECT_EQ(source.refusals(), (Refusals{"INOTIFY", "PIDFD", "SOCKET_KIND"}));
}

TEST(Carriers, WhatIsNotKnownAtAllIsRefused) {
  test::Source source;
  wire::OpenFile file;
  EXPECT_FALSE(source.find({.number = 3, .link = "anon_inode:[of-tomorrow]"}, file));
  EXPECT_FALSE(source.find({.number = 3, .link = "of-tomorrow:[17]"}, file));
  EXPECT_FALSE(source.find({.number = 3, .link = ""}, file));
  EXPECT_EQ(source.refusals(), Refusals(3, "UNKNOWN_DESCRIPTOR"));
}

TEST(Carriers, EveryLinkThatIsRefusedHasAReasonAndNoCarrier) {
  for (const RefusedLink& refused : kRefusedLinks) {
    const std::string link(refused.prefix);
    EXPECT_EQ(refusal_of_link(link + "1]"), refused.code) << link;
    EXPECT_FALSE(make_refusal(refused.code, link).reason().empty()) << link;
    test::Source source;
    wire::OpenFile file;
    EXPECT_FALSE(source.find({.number = 3, .link = link}, file)) << link;
    EXPECT_EQ(source.refusals(), Refusals{std::string(refused.code)}) << link;
  }
  EXPECT_TRUE(refusal_of_link("anon_inode:[eventfd]").empty());
}

TEST(Carriers, MessageQueuesLookLikeFilesAndAreNone) {
  wire::FileIdentity identity;
  EXPECT_FALSE(is_message_queue(identity));
  identity.set_filesystem_type(0x19800202);
  EXPECT_TRUE(is_message_queue(identity));
}

}  // namespace
}  // namespace migrate::carriers
