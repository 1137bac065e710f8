#include "libmigrate/arch/x86_64/cpu_facts.h"

#include <cpuid.h>

namespace migrate::arch {
namespace {

constexpr unsigned kXsaveLeaf = 0xd;

}  // namespace

std::uint64_t enabled_extended_state() {
  unsigned a = 0;
  unsigned b = 0;
  unsigned c = 0;
  unsigned d = 0;
  constexpr unsigned kOsXsave = 1U << 27;
  if (__get_cpuid(1, &a, &b, &c, &d) == 0 || (c & kOsXsave) == 0) {
    return 0;
  }
  unsigned low = 0;
  unsigned high = 0;
  __asm__ volatile("xgetbv" : "=a"(low), "=d"(high) : "c"(0));
  return (std::uint64_t{high} << 32) | low;
}

std::uint32_t extended_state_bytes() {
  unsigned a = 0;
  unsigned b = 0;
  unsigned c = 0;
  unsigned d = 0;
  return __get_cpuid_count(kXsaveLeaf, 0, &a, &b, &c, &d) == 0 ? 0 : b;
}

}  // namespace migrate::arch
