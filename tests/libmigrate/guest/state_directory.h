#pragma once

#include <unistd.h>

#include <cstdlib>
#include <filesystem>
#include <string>

namespace migrate {

/// A state directory of one test, removed with all that is in it. In memory where there is a place
/// for that: the registry waits for its disk at every change of a row.
class StateDirectory {
 public:
  StateDirectory() {
    const bool in_memory = ::access(kMemory, W_OK) == 0;
    std::string name =
        (in_memory ? std::filesystem::path(kMemory) : std::filesystem::temp_directory_path()) /
        "migrate-test-XXXXXX";
    path_ = ::mkdtemp(name.data()) != nullptr ? name : std::string();
  }
  StateDirectory(const StateDirectory&) = delete;
  StateDirectory& operator=(const StateDirectory&) = delete;
  ~StateDirectory() {
    std::error_code ignored;
    std::filesystem::remove_all(path_, ignored);
  }

  const std::string& path() const { return path_; }

 private:
  static constexpr const char* kMemory = "/dev/shm";

  std::string path_;
};

}  // namespace migrate
