/// How values and exceptions of functions that run elsewhere come home: as bytes, between two
/// processes of the same program. Part of migrate.hpp, which programs include.
#pragma once

#include <array>
#include <bit>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <optional>
#include <stdexcept>
#include <string>
#include <string_view>
#include <type_traits>
#include <utility>
#include <vector>

namespace migrate {

/// Where a value is written.
class encoder {
 public:
  void bytes(const void* from, std::size_t count) {
    written_.append(static_cast<const char*>(from), count);
  }
  std::string_view written() const noexcept { return written_; }

 private:
  std::string written_;
};

/// Where it is read. Throws std::length_error where there is less than is asked for.
class decoder {
 public:
  explicit decoder(std::string_view from) noexcept : left_(from) {}
  void bytes(void* to, std::size_t count) {
    if (count > left_.size()) {
      throw std::length_error("the value that came home is not whole");
    }
    std::memcpy(to, left_.data(), count);
    left_.remove_prefix(count);
  }
  std::size_t left() const noexcept { return left_.size(); }

 private:
  std::string_view left_;
};

/// How a type travels: specialise it for types of your own that may not be copied as bytes.
///
///   template <>
///   struct migrate::codec<matrix> {
///     static void write(encoder& to, const matrix& value);
///     static matrix read(decoder& from);
///   };
template <class Value>
struct codec {
  static_assert(std::is_trivially_copyable_v<Value> && !std::is_pointer_v<Value>,
                "say how this type travels: specialise migrate::codec for it");
  static void write(encoder& to, const Value& value) { to.bytes(&value, sizeof value); }
  static Value read(decoder& from) {
    alignas(Value) std::array<std::byte, sizeof(Value)> image;
    from.bytes(image.data(), image.size());
    return std::bit_cast<Value>(image);
  }
};

template <>
struct codec<std::string> {
  static void write(encoder& to, const std::string& value) {
    codec<std::uint64_t>::write(to, value.size());
    to.bytes(value.data(), value.size());
  }
  static std::string read(decoder& from) {
    const std::uint64_t size = codec<std::uint64_t>::read(from);
    std::string value(size <= from.left() ? size : 0, '\0');
    from.bytes(value.data(), size);
    return value;
  }
};

template <class Element>
struct codec<std::vector<Element>> {
  static void write(encoder& to, const std::vector<Element>& value) {
    codec<std::uint64_t>::write(to, value.size());
    if constexpr (travels_as_bytes) {
      to.bytes(value.data(), value.size() * sizeof(Element));
    } else {
      for (const Element& each : value) {
        codec<Element>::write(to, each);
      }
    }
  }
  static std::vector<Element> read(decoder& from) {
    const std::uint64_t size = codec<std::uint64_t>::read(from);
    std::vector<Element> value;
    if constexpr (travels_as_bytes) {
      value.resize(size <= from.left() / sizeof(Element) ? size : 0);
      from.bytes(value.data(), value.size() == size ? size * sizeof(Element) : SIZE_MAX);
    } else {
      for (std::uint64_t i = 0; i < size; ++i) {
        value.push_back(codec<Element>::read(from));
      }
    }
    return value;
  }

 private:
  // One that has been specialised is asked for each of them.
  static constexpr bool travels_as_bytes =
      std::is_arithmetic_v<Element> && !std::is_same_v<Element, bool>;
};

template <class First, class Second>
struct codec<std::pair<First, Second>> {
  static void write(encoder& to, const std::pair<First, Second>& value) {
    codec<First>::write(to, value.first);
    codec<Second>::write(to, value.second);
  }
  static std::pair<First, Second> read(decoder& from) {
    First first = codec<First>::read(from);  // In this order.
    return {std::move(first), codec<Second>::read(from)};
  }
};

template <class Value>
struct codec<std::optional<Value>> {
  static void write(encoder& to, const std::optional<Value>& value) {
    codec<char>::write(to, value ? 1 : 0);
    if (value) {
      codec<Value>::write(to, *value);
    }
  }
  static std::optional<Value> read(decoder& from) {
    return codec<char>::read(from) != 0 ? std::optional<Value>(codec<Value>::read(from))
                                        : std::nullopt;
  }
};

}  // namespace migrate
