#include "libmigrate/arch/x86_64/interpreter.h"

#include <algorithm>
#include <array>

// Never executed here: copied into the script area of a traced process.
// Numbers: rt_sigtimedwait 128, write 1, pause 34.
asm(R"(
  .pushsection .rodata
  .globl migrate_script_start, migrate_script_call, migrate_script_park, migrate_script_idle
  .globl migrate_script_end
  .hidden migrate_script_start, migrate_script_call, migrate_script_park, migrate_script_idle
  .hidden migrate_script_end
migrate_script_start:
1:  movq (%rbx), %rax
    testq %rax, %rax
    js 2f
    movq 8(%rbx), %rdi
    movq 16(%rbx), %rsi
    movq 24(%rbx), %rdx
    movq 32(%rbx), %r10
    movq 40(%rbx), %r8
    movq 48(%rbx), %r9
migrate_script_call:
    syscall
    movq %rax, 56(%rbx)
    addq $64, %rbx
    jmp 1b
2:  int3
    jmp migrate_script_idle
migrate_script_park:
3:  leaq 0(%rbx), %rdi
    leaq 16(%rbx), %rsi
    xorl %edx, %edx
    movl $8, %r10d
    movl $128, %eax
    syscall
    testl %eax, %eax
    jle 3b
4:  movq 8(%rbx), %rdi
    leaq 16(%rbx), %rsi
    movl $128, %edx
    movl $1, %eax
    syscall
    cmpq $-4, %rax
    je 4b
    jmp 3b
migrate_script_idle:
5:  movl $34, %eax
    syscall
    jmp 5b
migrate_script_end:
  .popsection
)");

extern "C" {
extern const std::byte migrate_script_start[];
extern const std::byte migrate_script_call[];
extern const std::byte migrate_script_park[];
extern const std::byte migrate_script_idle[];
extern const std::byte migrate_script_end[];
}

namespace migrate::arch {

InterpreterCode interpreter_code() {
  const std::byte* start = migrate_script_start;
  return {.bytes = {start, migrate_script_end},
          .run_offset = 0,
          .system_call_offset = static_cast<std::size_t>(migrate_script_call - start),
          .park_offset = static_cast<std::size_t>(migrate_script_park - start),
          .idle_offset = static_cast<std::size_t>(migrate_script_idle - start)};
}

std::ptrdiff_t find_system_call(std::span<const std::byte> code) {
  constexpr std::array<std::byte, 2> kInstruction{std::byte{0x0f}, std::byte{0x05}};
  const auto found =
      std::search(code.begin(), code.end(), kInstruction.begin(), kInstruction.end());
  return found == code.end() ? -1 : found - code.begin();
}

}  // namespace migrate::arch
