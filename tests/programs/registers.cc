// Registers: each property holds patterns in registers alone, for long, and compares them.
#include <asm/prctl.h>
#include <cpuid.h>

#include <array>
#include <cfenv>
#include <cmath>
#include <thread>
#include <vector>

#include "tests/programs/check.h"

/// hold_general.S: loads the 15 registers from `patterns`, counts down, stores them into `found`.
extern "C" void hold_general(const std::uint64_t* patterns, std::uint64_t* found,
                             std::uint64_t iterations);

namespace {

using check::stopping;

constexpr std::uint64_t kIterations = 3'000'000;

void fill(std::span<std::uint64_t> words, check::Random& random) {
  for (std::uint64_t& word : words) {
    word = random.next();
  }
}

void compare(std::span<const std::uint64_t> found, std::span<const std::uint64_t> expected,
             const char* what) {
  for (std::size_t index = 0; index < expected.size(); ++index) {
    if (found[index] != expected[index]) {
      check::fail("%s: word %zu is %llx, expected %llx", what, index,
                  static_cast<unsigned long long>(found[index]),
                  static_cast<unsigned long long>(expected[index]));
    }
  }
}

/// Runs `round` again and again in two threads, each with its own patterns.
void in_two_threads(void (*round)(check::Random&)) {
  check::ready();
  const auto body = [round](std::uint64_t seed) {
    check::Random random(seed);
    while (!stopping()) {
      round(random);
    }
  };
  std::thread other(body, 2);
  body(1);
  other.join();
}

void general() {
  in_two_threads([](check::Random& random) {
    std::array<std::uint64_t, 15> patterns{};
    std::array<std::uint64_t, 15> found{};
    fill(patterns, random);
    hold_general(patterns.data(), found.data(), kIterations);
    compare(found, patterns, "general registers");
  });
}

void x87() {
  in_two_threads([](check::Random& random) {
    std::array<long double, 8> patterns{};
    std::array<long double, 8> found{};
    for (long double& pattern : patterns) {
      pattern = static_cast<long double>(random.next()) / 3.0L;
    }
    std::uint64_t count = kIterations;
    asm volatile(
        "fldt 112(%1)\n fldt 96(%1)\n fldt 80(%1)\n fldt 64(%1)\n"
        "fldt 48(%1)\n fldt 32(%1)\n fldt 16(%1)\n fldt (%1)\n"
        "1: dec %0\n jnz 1b\n"
        "fstpt (%2)\n fstpt 16(%2)\n fstpt 32(%2)\n fstpt 48(%2)\n"
        "fstpt 64(%2)\n fstpt 80(%2)\n fstpt 96(%2)\n fstpt 112(%2)\n"
        : "+r"(count)
        : "r"(patterns.data()), "r"(found.data())
        : "memory", "cc", "st", "st(1)", "st(2)", "st(3)", "st(4)", "st(5)", "st(6)", "st(7)");
    for (std::size_t index = 0; index < patterns.size(); ++index) {
      CHECK_EQUAL(found[index], patterns[index]);
    }
  });
}

// NOLINTBEGIN(cppcoreguidelines-macro-usage): register names exist only as text
#define EACH_8(X, P, R, S) \
  X(P, R, 0, S)            \
  X(P, R, 1, S) X(P, R, 2, S) X(P, R, 3, S) X(P, R, 4, S) X(P, R, 5, S) X(P, R, 6, S) X(P, R, 7, S)
#define EACH_16(X, P, R, S) \
  EACH_8(X, P, R, S)        \
  X(P, R, 8, S)             \
  X(P, R, 9, S)             \
  X(P, R, 10, S) X(P, R, 11, S) X(P, R, 12, S) X(P, R, 13, S) X(P, R, 14, S) X(P, R, 15, S)
#define EACH_32(X, P, R, S) \
  EACH_16(X, P, R, S)       \
  X(P, R, 16, S)            \
  X(P, R, 17, S)            \
  X(P, R, 18, S)            \
  X(P, R, 19, S)            \
  X(P, R, 20, S)            \
  X(P, R, 21, S)            \
  X(P, R, 22, S)            \
  X(P, R, 23, S)            \
  X(P, R, 24, S)            \
  X(P, R, 25, S)            \
  X(P, R, 26, S) X(P, R, 27, S) X(P, R, 28, S) X(P, R, 29, S) X(P, R, 30, S) X(P, R, 31, S)
#define LOAD(op, reg, n, size) op " " #n "*" #size "(%1), %%" reg #n "\n"
#define STORE(op, reg, n, size) op " %%" reg #n ", " #n "*" #size "(%2)\n"
// NOLINTEND(cppcoreguidelines-macro-usage)

#define VECTOR_CLOBBERS                                                                           \
  "memory", "cc", "xmm0", "xmm1", "xmm2", "xmm3", "xmm4", "xmm5", "xmm6", "xmm7", "xmm8", "xmm9", \
      "xmm10", "xmm11", "xmm12", "xmm13", "xmm14", "xmm15"

void sse() {
  in_two_threads([](check::Random& random) {
    std::array<std::uint64_t, 32> patterns{};
    std::array<std::uint64_t, 32> found{};
    fill(patterns, random);
    std::uint64_t count = kIterations;
    asm volatile(EACH_16(LOAD, "movups", "xmm", 16) "1: dec %0\n jnz 1b\n" EACH_16(STORE, "movups",
                                                                                   "xmm", 16)
                 : "+r"(count)
                 : "r"(patterns.data()), "r"(found.data())
                 : VECTOR_CLOBBERS);
    compare(found, patterns, "SSE registers");
  });
}

void avx() {
  if (!__builtin_cpu_supports("avx")) {
    return sse();
  }
  in_two_threads([](check::Random& random) {
    std::array<std::uint64_t, 64> patterns{};
    std::array<std::uint64_t, 64> found{};
    fill(patterns, random);
    std::uint64_t count = kIterations;
    asm volatile(EACH_16(LOAD, "vmovups", "ymm", 32) "1: dec %0\n jnz 1b\n" EACH_16(
                     STORE, "vmovups", "ymm", 32) "vzeroupper\n"
                 : "+r"(count)
                 : "r"(patterns.data()), "r"(found.data())
                 : VECTOR_CLOBBERS);
    compare(found, patterns, "AVX registers");
  });
}

void avx512() {
  if (!__builtin_cpu_supports("avx512f") || !__builtin_cpu_supports("avx512bw")) {
    return avx();
  }
  in_two_threads([](check::Random& random) {
    alignas(64) std::array<std::uint64_t, 256> patterns{};
    alignas(64) std::array<std::uint64_t, 256> found{};
    std::array<std::uint64_t, 8> masks{};
    std::array<std::uint64_t, 8> found_masks{};
    fill(patterns, random);
    fill(masks, random);
    std::uint64_t count = kIterations;
    asm volatile(EACH_32(LOAD, "vmovups", "zmm", 64)  //
                 "xchg %1, %3\n" EACH_8(LOAD, "kmovq", "k", 8) "xchg %1, %3\n"
                 "1: dec %0\n jnz 1b\n" EACH_32(STORE, "vmovups", "zmm", 64)  //
                 "xchg %2, %4\n" EACH_8(STORE, "kmovq", "k", 8) "xchg %2, %4\n vzeroupper\n"
                 : "+r"(count)
                 : "r"(patterns.data()), "r"(found.data()), "r"(masks.data()),
                   "r"(found_masks.data())
                 : VECTOR_CLOBBERS);
    compare(found, patterns, "AVX-512 registers");
    compare(found_masks, masks, "opmask registers");
  });
}

std::uint32_t read_mxcsr() {
  std::uint32_t value = 0;
  asm volatile("stmxcsr %0" : "=m"(value));
  return value;
}

std::uint16_t read_control_word() {
  std::uint16_t value = 0;
  asm volatile("fnstcw %0" : "=m"(value));
  return value;
}

/// Rounding, flush-to-zero and x87 precision, different in each thread.
void control_body(int rounding, std::uint32_t extra) {
  std::fesetround(rounding);
  const std::uint32_t mxcsr = (read_mxcsr() & ~0x3FU) | extra;
  asm volatile("ldmxcsr %0" : : "m"(mxcsr));
  const auto control = static_cast<std::uint16_t>(read_control_word() & ~0x300U);
  asm volatile("fldcw %0" : : "m"(control));
  volatile double one = 1.0;
  volatile double three = 3.0;
  const double third = one / three;
  while (!stopping()) {
    for (int step = 0; step < 100'000; ++step) {
      CHECK_EQUAL(one / three, third);
    }
    CHECK_EQUAL(read_mxcsr() & ~0x3FU, mxcsr & ~0x3FU);
    CHECK_EQUAL(read_control_word(), control);
    CHECK_EQUAL(std::fegetround(), rounding);
  }
}

void mxcsr() {
  check::ready();
  std::thread up(control_body, FE_UPWARD, 0x8000U);
  std::thread down(control_body, FE_DOWNWARD, 0x40U);
  control_body(FE_TOWARDZERO, 0);
  up.join();
  down.join();
}

bool has_protection_keys() {
  unsigned eax = 0;
  unsigned ebx = 0;
  unsigned ecx = 0;
  unsigned edx = 0;
  return __get_cpuid_count(7, 0, &eax, &ebx, &ecx, &edx) != 0 && (ecx & (1U << 4U)) != 0;
}

std::uint32_t read_pkru() {
  std::uint32_t value = 0;
  std::uint32_t high = 0;
  asm volatile("rdpkru" : "=a"(value), "=d"(high) : "c"(0));
  return value;
}

void pkru_body(std::uint32_t value) {
  const std::uint32_t pkru = (read_pkru() & 3U) | (value & ~3U);
  asm volatile("wrpkru" : : "a"(pkru), "c"(0), "d"(0) : "memory");
  while (!stopping()) {
    for (int step = 0; step < 10'000; ++step) {
      CHECK_EQUAL(read_pkru(), pkru);
    }
  }
}

/// The register, in two threads; no memory here has any key but 0.
void pkru() {
  check::ready();
  if (!has_protection_keys()) {
    while (!stopping()) {
      check::sleep_ns(10 * check::kMillisecond);
    }
    return;
  }
  std::thread other(pkru_body, 0x5555A5A8U);
  pkru_body(0xAAAA5554U);
  other.join();
}

void segment_body(std::uint64_t seed) {
  std::array<std::uint64_t, 64> block{};
  check::Random random(seed);
  fill(block, random);
  const auto base = reinterpret_cast<std::uintptr_t>(block.data());
  check::called(::syscall(SYS_arch_prctl, ARCH_SET_GS, base), "arch_prctl(ARCH_SET_GS)");
  std::uint64_t fs_before = 0;
  check::called(::syscall(SYS_arch_prctl, ARCH_GET_FS, &fs_before), "arch_prctl(ARCH_GET_FS)");
  while (!stopping()) {
    for (std::uint64_t offset = 0; offset < sizeof block; offset += 8) {
      std::uint64_t value = 0;
      asm volatile("movq %%gs:(%1), %0" : "=r"(value) : "r"(offset) : "memory");
      CHECK_EQUAL(value, block[offset / 8]);
    }
    std::uint64_t base_now = 0;
    check::called(::syscall(SYS_arch_prctl, ARCH_GET_GS, &base_now), "arch_prctl(ARCH_GET_GS)");
    CHECK_EQUAL(base_now, base);
    check::called(::syscall(SYS_arch_prctl, ARCH_GET_FS, &base_now), "arch_prctl(ARCH_GET_FS)");
    CHECK_EQUAL(base_now, fs_before);
  }
}

void segments() {
  check::ready();
  std::thread other(segment_body, 2);
  segment_body(1);
  other.join();
}

constexpr check::Property kProperties[] = {
    {"general", general}, {"x87", x87},     {"sse", sse},   {"avx", avx},
    {"avx512", avx512},   {"mxcsr", mxcsr}, {"pkru", pkru}, {"segments", segments},
};

}  // namespace

int main(int argc, char** argv) {
  return check::main(argc, argv, kProperties);
}
