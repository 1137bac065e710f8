#include <fcntl.h>
#include <gtest/gtest.h>

#include <filesystem>

#include "base/file.h"
#include "tests/libmigrate/carriers/hosts.h"
#include "tests/transport/temporary_directory.h"

namespace migrate {
namespace {

using Refusals = std::vector<std::string>;

class DirectoryCarrier : public testing::Test {
 protected:
  void SetUp() override {
    std::filesystem::create_directory(path_);
    fd_ = open_file(path_, O_RDONLY | O_DIRECTORY).value();
    ASSERT_EQ(source_.find(fd_.get()), 0);
    file_ = source_.file(0);
  }

  test::TemporaryDirectory directory_;
  std::string path_ = directory_.file("folder");
  UniqueFd fd_;
  test::Source source_;
  wire::OpenFile file_;
};

TEST_F(DirectoryCarrier, IsOpenedAgain) {
  EXPECT_EQ(file_.kind(), wire::OpenFile::DIRECTORY);
  test::Destination destination(source_.objects());
  const UniqueFd made = destination.make(file_).value();
  EXPECT_EQ(test::description(made.get()), test::description(fd_.get()));
}

TEST_F(DirectoryCarrier, OnAnotherHostItMayBeAnotherOne) {
  test::Destination destination(source_.objects());
  EXPECT_EQ(destination.compare(file_, true), Refusals{});
  std::filesystem::rename(path_, path_ + ".before");
  EXPECT_EQ(destination.compare(file_, false), Refusals{"FILE_MISSING"});
  std::filesystem::create_directory(path_);
  EXPECT_EQ(destination.compare(file_, false), Refusals{});
  EXPECT_EQ(destination.compare(file_, true), Refusals{"FILE_DIFFERS"});
}

TEST_F(DirectoryCarrier, OneThatWasRemovedIsRefused) {
  std::filesystem::remove(path_);
  EXPECT_EQ(source_.find(fd_.get()), -1);
  EXPECT_EQ(source_.refusals(), Refusals{"DELETED_FILE"});
}

TEST_F(DirectoryCarrier, APathThatIsNoneIsMalformed) {
  source_.file(0).mutable_identity()->set_path("folder");
  EXPECT_NE(test::flaw_in(source_.objects()), "");
}

}  // namespace
}  // namespace migrate
