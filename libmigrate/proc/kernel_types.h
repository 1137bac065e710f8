#pragma once

#include <cstdint>
#include <optional>
#include <span>
#include <string_view>
#include <vector>

#include "base/result.h"

namespace migrate {

/// The types of the running kernel as it describes them itself (BTF, /sys/kernel/btf/vmlinux).
/// Const-thread-safe.
class KernelTypes {
 public:
  /// Reads some megabytes. Errors: kUnsupported (the kernel does not tell), kCorrupt.
  static Result<KernelTypes> read();
  /// The same from bytes. Errors: kCorrupt.
  static Result<KernelTypes> parse(std::vector<std::byte> bytes);

  /// The number of a function's type, by which a program is attached to it.
  std::optional<std::uint32_t> function(std::string_view name) const;
  /// Where in a struct a member lies, in bytes, also one of an unnamed member of it; nothing where
  /// there is none, or it is no whole bytes from the start.
  std::optional<std::uint32_t> offset(std::string_view structure, std::string_view member) const;

 private:
  struct Type {
    std::uint32_t name;
    std::uint32_t information;
    std::size_t details;  // of its members, in bytes_
  };

  std::optional<std::uint32_t> find_name(std::string_view name) const;
  std::optional<std::uint32_t> find_type(std::uint32_t kind, std::string_view name) const;
  std::optional<std::uint32_t> offset_in(std::uint32_t number, std::uint32_t name, int depth) const;
  std::uint32_t word(std::size_t at) const;

  std::vector<std::byte> bytes_;
  std::span<const char> strings_;
  std::vector<Type> types_;  // by number less 1
};

}  // namespace migrate
