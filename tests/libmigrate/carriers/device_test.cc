#include <fcntl.h>
#include <gtest/gtest.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>

#include <filesystem>

#include "base/file.h"
#include "libmigrate/carriers/internal/refused.h"
#include "libmigrate/proc/file_identity.h"
#include "tests/libmigrate/carriers/hosts.h"
#include "tests/transport/temporary_directory.h"

namespace migrate {
namespace {

using Refusals = std::vector<std::string>;

TEST(DeviceCarrier, ThoseWithoutAStateAreOpenedAgain) {
  for (const std::string path :
       {"/dev/null", "/dev/zero", "/dev/full", "/dev/random", "/dev/urandom"}) {
    const UniqueFd fd = open_file(path, O_RDONLY | O_NONBLOCK).value();
    test::Source source;
    ASSERT_EQ(source.find(fd.get()), 0) << path;
    EXPECT_EQ(source.file(0).kind(), wire::OpenFile::DEVICE) << path;
    EXPECT_EQ(test::flaw_in(source.objects()), "") << path;
    test::Destination destination(source.objects());
    EXPECT_EQ(destination.compare(source.file(0), false), Refusals{}) << path;
    const UniqueFd made = destination.make(source.file(0)).value();
    EXPECT_EQ(test::description(made.get()), test::description(fd.get()));
  }
}

TEST(DeviceCarrier, AnotherDeviceInItsPlaceIsRefused) {
  const UniqueFd fd = open_file("/dev/null", O_RDWR).value();
  test::Source source;
  ASSERT_EQ(source.find(fd.get()), 0);
  wire::OpenFile& file = source.file(0);
  test::Destination destination(source.objects());
  file.mutable_identity()->set_path("/dev/zero");
  EXPECT_EQ(destination.compare(file, false), Refusals{"FILE_DIFFERS"});
  file.mutable_identity()->set_path("/dev");
  EXPECT_EQ(destination.compare(file, false), Refusals{"FILE_DIFFERS"});
  file.mutable_identity()->set_path("/dev/no-such-device");
  EXPECT_EQ(destination.compare(file, false), Refusals{"FILE_MISSING"});
}

TEST(DeviceCarrier, ANodeThatWasRemovedIsSaidToBe) {
  const test::TemporaryDirectory directory;
  const std::string path = directory.file("null");
  if (::mknod(path.c_str(), S_IFCHR | 0600, makedev(1, 3)) != 0) {
    GTEST_SKIP() << "no device can be made here";
  }
  const auto fd = open_file(path, O_RDWR);
  std::filesystem::remove(path);
  if (!fd) {
    GTEST_SKIP() << "devices cannot be opened there";
  }
  test::Source source;
  EXPECT_EQ(source.find(fd->get()), -1);
  EXPECT_EQ(source.refusals(), Refusals{"DELETED_FILE"});
}

TEST(DeviceCarrier, OthersAreRefusedByWhatTheyAre) {
  wire::FileIdentity identity;
  identity.set_mode(S_IFCHR | 0600U);
  identity.set_device_major(10);
  identity.set_device_minor(232);
  EXPECT_EQ(carriers::refusal_of_file(identity), "KVM");
  identity.set_device_minor(1);
  EXPECT_EQ(carriers::refusal_of_file(identity), "DEVICE");
  identity.set_mode(S_IFBLK | 0600U);
  EXPECT_EQ(carriers::refusal_of_file(identity), "DEVICE");
  identity.set_mode(S_IFSOCK | 0600U);
  EXPECT_EQ(carriers::refusal_of_file(identity), "UNKNOWN_DESCRIPTOR");
}

TEST(DeviceCarrier, TheKernelsLogIsNone) {
  test::Source source;
  const UniqueFd log = open_file("/dev/kmsg", O_RDONLY).value();
  EXPECT_EQ(source.find(log.get()), -1);
  EXPECT_EQ(source.refusals(), Refusals{"DEVICE"});
}

}  // namespace
}  // namespace migrate
