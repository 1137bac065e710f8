#pragma once

#include <unistd.h>

#include <utility>

namespace migrate::client {

/// Closes a descriptor at the end of its scope. (base/ is not used here: no dependencies.)
class Descriptor {
 public:
  Descriptor() = default;
  explicit Descriptor(int number) : number_(number) {}
  Descriptor(Descriptor&& other) noexcept : number_(std::exchange(other.number_, -1)) {}
  Descriptor& operator=(Descriptor&& other) noexcept {
    std::swap(number_, other.number_);
    return *this;
  }
  Descriptor(const Descriptor&) = delete;
  Descriptor& operator=(const Descriptor&) = delete;
  ~Descriptor() {
    if (number_ >= 0) {
      ::close(number_);
    }
  }
  /// -1: there is none.
  int get() const { return number_; }

 private:
  int number_ = -1;
};

}  // namespace migrate::client
