#include "transport/keys.h"

#include <gtest/gtest.h>
#include <sys/stat.h>

#include "base/file.h"
#include "tests/transport/temporary_directory.h"

namespace migrate {
namespace {

using test::TemporaryDirectory;

mode_t mode_of(const std::string& path) {
  struct stat status {};
  EXPECT_EQ(::stat(path.c_str(), &status), 0) << path;
  return status.st_mode & 07777U;
}

TEST(Keys, AreWrittenPrivately) {
  const TemporaryDirectory parent;
  const std::string directory = parent.file("keys");
  const auto ca = create_ca(directory);
  ASSERT_TRUE(ca) << ca.error().message();
  const auto host = create_host_certificate(directory, "node1", {"node1.cluster", "10.0.0.1"});
  ASSERT_TRUE(host) << host.error().message();
  EXPECT_EQ(host->certificate, directory + "/node1.crt");
  EXPECT_EQ(host->key, directory + "/node1.key");
  EXPECT_EQ(mode_of(directory), 0700U);
  for (const std::string& path : {ca->certificate, ca->key, host->certificate, host->key}) {
    EXPECT_EQ(mode_of(path), 0600U) << path;
  }
  EXPECT_TRUE(read_file(host->certificate)->starts_with("-----BEGIN CERTIFICATE-----"));
  EXPECT_TRUE(read_file(host->key)->starts_with("-----BEGIN PRIVATE KEY-----"));
}

TEST(Keys, AreNeverOverwritten) {
  const TemporaryDirectory directory;
  const KeyFiles ca = create_ca(directory.path()).value();
  const std::string before = read_file(ca.key).value();
  EXPECT_EQ(create_ca(directory.path()).error().code, ErrorCode::kRefused);
  EXPECT_EQ(read_file(ca.key).value(), before);
  ASSERT_TRUE(create_host_certificate(directory.path(), "a"));
  EXPECT_EQ(create_host_certificate(directory.path(), "a").error().code, ErrorCode::kRefused);
  EXPECT_EQ(create_host_certificate(directory.path(), "ca").error().code, ErrorCode::kInvalid);
}

TEST(Keys, NeedAnAuthorityAndValidNames) {
  const TemporaryDirectory directory;
  const auto early = create_host_certificate(directory.path(), "a");
  ASSERT_FALSE(early);
  EXPECT_EQ(early.error().code, ErrorCode::kNotFound);
  EXPECT_NE(early.error().message().find("keys init"), std::string::npos);
  ASSERT_TRUE(create_ca(directory.path()));
  for (const std::string name : {"", "../a", "a b", "a,DNS:evil", "-a", "x:y", "a\n"}) {
    EXPECT_EQ(create_host_certificate(directory.path(), name).error().code, ErrorCode::kInvalid);
    EXPECT_EQ(create_host_certificate(directory.path(), "a", {name}).error().code,
              ErrorCode::kInvalid);
  }
  EXPECT_TRUE(create_host_certificate(directory.path(), "fe80::1"));
}

TEST(Keys, RefuseAnAuthorityThatIsNone) {
  const TemporaryDirectory directory;
  const KeyFiles ca = create_ca(directory.path()).value();
  ASSERT_TRUE(write_file(ca.certificate, "nonsense"));
  EXPECT_EQ(create_host_certificate(directory.path(), "a").error().code, ErrorCode::kCorrupt);
}

}  // namespace
}  // namespace migrate
