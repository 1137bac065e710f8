#include "libmigrate/proc/kernel_types.h"

#include <gtest/gtest.h>
#include <linux/btf.h>

#include <cstring>
#include <string>
#include <vector>

namespace migrate {
namespace {

/// Writes the kernel's format.
class Writer {
 public:
  std::uint32_t name(const std::string& text) {
    const auto place = static_cast<std::uint32_t>(strings_.size());
    strings_ += text;
    strings_.push_back('\0');
    return place;
  }
  /// Returns its number.
  std::uint32_t type(std::uint32_t name, std::uint32_t kind, std::uint32_t count,
                     const std::vector<std::uint32_t>& details = {}, bool flag = false) {
    add(name);
    add((flag ? 1U << 31U : 0U) | (kind << 24U) | count);
    add(8);
    for (const std::uint32_t word : details) {
      add(word);
    }
    return ++count_;
  }
  std::vector<std::byte> finish() const {
    btf_header header{};
    header.magic = BTF_MAGIC;
    header.version = BTF_VERSION;
    header.hdr_len = sizeof(header);
    header.type_len = static_cast<std::uint32_t>(types_.size());
    header.str_off = header.type_len;
    header.str_len = static_cast<std::uint32_t>(strings_.size());
    std::vector<std::byte> bytes(sizeof(header) + types_.size() + strings_.size());
    std::memcpy(bytes.data(), &header, sizeof(header));
    std::memcpy(bytes.data() + sizeof(header), types_.data(), types_.size());
    std::memcpy(bytes.data() + sizeof(header) + types_.size(), strings_.data(), strings_.size());
    return bytes;
  }

 private:
  void add(std::uint32_t word) {
    const auto* const bytes = reinterpret_cast<const std::byte*>(&word);
    types_.insert(types_.end(), bytes, bytes + sizeof(word));
  }

  std::string strings_ = std::string(1, '\0');
  std::vector<std::byte> types_;
  std::uint32_t count_ = 0;
};

std::vector<std::byte> example() {
  Writer writer;
  const std::uint32_t number = writer.type(writer.name("long"), BTF_KIND_INT, 0, {64});
  const std::uint32_t start = writer.name("start");
  const std::uint32_t inner =
      writer.type(0, BTF_KIND_STRUCT, 2, {start, number, 0, writer.name("end"), number, 64});
  const std::uint32_t either =
      writer.type(0, BTF_KIND_UNION, 2, {0, inner, 0, writer.name("both"), number, 0});
  writer.type(writer.name("area"), BTF_KIND_STRUCT, 4,
              {writer.name("first"), number, 0, 0, either, 64, writer.name("bit"), number,
               (1U << 24U) | 193, writer.name("last"), number, 256},
              true);
  writer.type(writer.name("visit"), BTF_KIND_FUNC, 0);
  return writer.finish();
}

TEST(KernelTypes, TellsWhereMembersAre) {
  const KernelTypes types = KernelTypes::parse(example()).value();
  EXPECT_EQ(types.offset("area", "first"), 0U);
  EXPECT_EQ(types.offset("area", "start"), 8U);
  EXPECT_EQ(types.offset("area", "end"), 16U);
  EXPECT_EQ(types.offset("area", "both"), 8U);
  EXPECT_EQ(types.offset("area", "last"), 32U);
  EXPECT_EQ(types.offset("area", "bit"), std::nullopt);
  EXPECT_EQ(types.offset("area", "nothing"), std::nullopt);
  EXPECT_EQ(types.offset("long", "start"), std::nullopt);
  EXPECT_EQ(types.offset("", ""), std::nullopt);
}

TEST(KernelTypes, NumbersFunctions) {
  const KernelTypes types = KernelTypes::parse(example()).value();
  EXPECT_EQ(types.function("visit"), 5U);
  EXPECT_EQ(types.function("area"), std::nullopt);
  EXPECT_EQ(types.function("isit"), std::nullopt);
}

TEST(KernelTypes, ReadsNothingBeyondItsEnd) {
  const std::vector<std::byte> whole = example();
  for (std::size_t length = 0; length < whole.size(); ++length) {
    const std::vector<std::byte> part(whole.begin(),
                                      whole.begin() + static_cast<std::ptrdiff_t>(length));
    EXPECT_FALSE(KernelTypes::parse(part)) << length;
  }
}

TEST(KernelTypes, TakesNoKindThatItDoesNotKnow) {
  Writer writer;
  writer.type(0, 31, 0);
  EXPECT_FALSE(KernelTypes::parse(writer.finish()));
}

TEST(KernelTypes, OfTheRunningKernel) {
  const auto types = KernelTypes::read();
  if (!types) {
    GTEST_SKIP() << types.error().message();
  }
  EXPECT_TRUE(types->offset("vm_area_struct", "vm_start"));
  EXPECT_TRUE(types->offset("task_struct", "pid"));
}

}  // namespace
}  // namespace migrate
