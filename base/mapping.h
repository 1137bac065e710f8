#pragma once

#include <cstddef>
#include <cstdint>
#include <span>

#include "base/result.h"

namespace migrate {

/// Owns one memory mapping of this process and unmaps it.
/// Move-only; owned by one thread at a time.
class Mapping {
 public:
  /// Maps `length_bytes` (rounded up to pages) of zeroed memory. Errors: kSystem (ENOMEM).
  static Result<Mapping> create(std::size_t length_bytes);

  /// As create(), shared with the children that are forked later. Errors: kSystem (ENOMEM).
  static Result<Mapping> create_shared(std::size_t length_bytes);

  /// Maps the first `length_bytes` (rounded up to pages) of a file, readable, writable and shared
  /// with all who map it. Borrows `fd`. Errors: kSystem.
  static Result<Mapping> of_file(int fd, std::size_t length_bytes);

  /// Maps `length_bytes` (rounded up to pages) of a file from `offset_bytes` on (a multiple of the
  /// page size), for reading only. Borrows `fd`. Errors: kSystem.
  static Result<Mapping> view_of_file(int fd, std::uint64_t offset_bytes, std::size_t length_bytes);

  Mapping() = default;
  Mapping(Mapping&& other) noexcept;
  Mapping& operator=(Mapping&& other) noexcept;
  Mapping(const Mapping&) = delete;
  Mapping& operator=(const Mapping&) = delete;
  ~Mapping();

  std::span<std::byte> bytes() const { return bytes_; }

 private:
  explicit Mapping(std::span<std::byte> bytes) : bytes_(bytes) {}
  static Result<Mapping> map(std::size_t length_bytes, int protection, int flags, int fd,
                             std::uint64_t offset_bytes);

  std::span<std::byte> bytes_;
};

}  // namespace migrate
