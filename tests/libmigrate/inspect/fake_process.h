#pragma once

#include <fcntl.h>
#include <gtest/gtest.h>

#include <filesystem>
#include <fstream>
#include <string>

#include "base/file.h"
#include "libmigrate/inspect/internal/process_view.h"
#include "tests/transport/temporary_directory.h"

namespace migrate::inspect {

/// Folders like /proc/PID of a process that there is not, with what a test puts there.
class FakeProcess {
 public:
  static constexpr pid_t kPid = 5'000'001;  ///< More than Linux gives to any process.
  static constexpr pid_t kOther = kPid + 1;

  FakeProcess() {
    std::filesystem::create_directory(folder_.file("task"));
    view_.pid = kPid;
    view_.directory = open_file(folder_.path(), O_RDONLY | O_DIRECTORY).value();
    view_.tasks = open_file(folder_.file("task"), O_RDONLY | O_DIRECTORY).value();
    view_.root = open_file("/", O_PATH | O_DIRECTORY).value();
  }

  ProcessView& view() { return view_; }
  const std::string& folder() const { return folder_.path(); }

  void write(const std::string& name, const std::string& text) {
    const std::string path = folder_.file(name);
    std::filesystem::create_directories(std::filesystem::path(path).parent_path());
    std::ofstream(path, std::ios::trunc) << text;
  }
  void write_of(pid_t thread, const std::string& name, const std::string& text) {
    write("task/" + std::to_string(thread) + "/" + name, text);
  }
  void link(const std::string& name, const std::string& target) {
    const std::string path = folder_.file(name);
    std::filesystem::create_directories(std::filesystem::path(path).parent_path());
    std::filesystem::remove(path);
    std::filesystem::create_symlink(target, path);
  }

 private:
  test::TemporaryDirectory folder_;
  ProcessView view_;
};

/// Code, object and reason of each refusal, in a line of its own.
inline std::string lines_of(const Refusals& refusals) {
  std::string lines;
  for (const wire::Refusal& refusal : refusals) {
    lines += refusal.code() + " " + refusal.object() + ": " + refusal.reason() + "\n";
  }
  return lines;
}

/// That there is one refusal, of this code, which says `said` of its object or as its reason.
inline void expect_refused(const Refusals& refusals, const std::string& code,
                           const std::string& said) {
  ASSERT_EQ(refusals.size(), 1U) << lines_of(refusals) << "not " << code << " " << said;
  EXPECT_EQ(refusals.front().code(), code);
  EXPECT_NE(lines_of(refusals).find(said), std::string::npos) << lines_of(refusals);
}

}  // namespace migrate::inspect
