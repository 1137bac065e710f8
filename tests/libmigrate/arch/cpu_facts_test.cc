#include <gtest/gtest.h>

#include "libmigrate/arch/arch.h"

namespace migrate::arch {
namespace {

std::string state(std::uint64_t components, std::uint32_t bytes) {
  return encode({components, bytes});
}

TEST(ProcessorState, TravelsInBytes) {
  const auto own = decode_processor_state(processor_state());
  ASSERT_TRUE(own);
  EXPECT_EQ(encode(*own), processor_state());
  const auto other = decode_processor_state(state(0x2e7, 2696));
  ASSERT_TRUE(other);
  EXPECT_EQ(other->components, 0x2e7U);
  EXPECT_EQ(other->area_bytes, 2696U);
}

TEST(ProcessorState, GoesWhereThereIsNoLess) {
  EXPECT_FALSE(missing_processor_state(processor_state(), processor_state()));
  EXPECT_FALSE(missing_processor_state(state(7, 832), state(0xe7, 2696)));
  EXPECT_FALSE(missing_processor_state(state(0, 0), state(7, 832)));
}

TEST(ProcessorState, WhatIsMissingIsToldInWords) {
  const auto component = missing_processor_state(state(0xe7, 832), state(7, 832));
  ASSERT_TRUE(component);
  EXPECT_EQ(component->there, "832 bytes, features 0xe7");
  EXPECT_EQ(component->here, "832 bytes, features 0x7");
  EXPECT_TRUE(missing_processor_state(state(7, 2696), state(7, 832)));
}

TEST(ProcessorState, BytesThatAreNoneAreMissing) {
  for (const std::string& bytes : {std::string(), std::string(11, '\0'), std::string(4096, 'x')}) {
    EXPECT_FALSE(decode_processor_state(bytes));
    EXPECT_TRUE(missing_processor_state(bytes, processor_state()));
  }
}

TEST(ProcessorState, AProcessorWithoutExtendedStateTakesNoneIn) {
  EXPECT_FALSE(missing_processor_state(state(0, 0), state(0, 0)));
  const auto missing = missing_processor_state(state(3, 576), state(0, 0));
  ASSERT_TRUE(missing);
  EXPECT_EQ(missing->here, "0 bytes, features 0x0");
  const auto unknown = missing_processor_state(state(3, 576), "of another version");
  ASSERT_TRUE(unknown);
  EXPECT_EQ(unknown->here, "a processor of which nothing is known");
  EXPECT_EQ(missing_processor_state("", state(3, 576))->there, unknown->here);
  // More room is nothing to rely on where a component is missing.
  EXPECT_TRUE(missing_processor_state(state(0x207, 832), state(0xe7, 11'008)));
}

TEST(ProcessorFeatures, ThoseOfProgramsCount) {
  EXPECT_TRUE(is_irrelevant_feature("vmx"));
  EXPECT_TRUE(is_irrelevant_feature("acpi"));
  EXPECT_FALSE(is_irrelevant_feature("avx2"));
  EXPECT_FALSE(is_irrelevant_feature(""));
}

TEST(Calls, KnowsThoseThatWaitForMilliseconds) {
  EXPECT_TRUE(is_poll(SYS_poll));
  EXPECT_FALSE(is_poll(SYS_ppoll));
  EXPECT_TRUE(is_epoll_wait(SYS_epoll_wait));
  EXPECT_FALSE(is_epoll_wait(SYS_epoll_pwait));
}

}  // namespace
}  // namespace migrate::arch
