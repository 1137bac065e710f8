#include "libmigrate/arch/x86_64/interpreter.h"

#include <algorithm>
#include <array>
#include <cstring>

// Never executed here: copied into the script area of a traced process.
// Numbers: getpid 39, gettid 186, rt_tgsigqueueinfo 297, rt_sigprocmask 14; rt_sigtimedwait 128,
// write 1, pause 34. The way back: flags while no signal can want the stack, then stack and mask,
// then all that system calls change, and all others. (.org fails if the code reaches that far.)
asm(R"(
  .pushsection .rodata
  .set way_back, migrate_script_start + 512
  .globl migrate_script_start, migrate_script_call, migrate_script_told, migrate_script_park
  .globl migrate_script_idle, migrate_script_end
  .hidden migrate_script_start, migrate_script_call, migrate_script_told, migrate_script_park
  .hidden migrate_script_idle, migrate_script_end
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
2:  movl $39, %eax
    syscall
    movl %eax, %edi
    movl $186, %eax
    syscall
    movl %eax, %esi
    movl $23, %edx
    leaq 16 + way_back(%rip), %r10
    movl $297, %eax
    syscall
migrate_script_told:
    movl $2, %edi
    leaq way_back(%rip), %rsi
    xorl %edx, %edx
    movl $8, %r10d
    movl $14, %eax
    syscall
    leaq 144 + way_back(%rip), %rsp
    popfq
    movq 152 + way_back(%rip), %rsp
    leaq 8 + way_back(%rip), %rsi
    movl $14, %eax
    syscall
    movq 168 + way_back(%rip), %rax
    movq 176 + way_back(%rip), %rbx
    movq 184 + way_back(%rip), %rcx
    movq 192 + way_back(%rip), %rdx
    movq 200 + way_back(%rip), %rsi
    movq 208 + way_back(%rip), %rdi
    movq 216 + way_back(%rip), %rbp
    movq 224 + way_back(%rip), %r8
    movq 232 + way_back(%rip), %r9
    movq 240 + way_back(%rip), %r10
    movq 248 + way_back(%rip), %r11
    movq 256 + way_back(%rip), %r12
    movq 264 + way_back(%rip), %r13
    movq 272 + way_back(%rip), %r14
    movq 280 + way_back(%rip), %r15
    jmpq *160 + way_back(%rip)
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
  .org way_back
  .popsection
)");

// NOLINTBEGIN(readability-identifier-naming): labels of the assembly above.
extern "C" {
extern const std::byte migrate_script_start[];
extern const std::byte migrate_script_call[];
extern const std::byte migrate_script_told[];
extern const std::byte migrate_script_park[];
extern const std::byte migrate_script_idle[];
extern const std::byte migrate_script_end[];
}
// NOLINTEND(readability-identifier-naming)

namespace migrate::arch {
namespace {

static_assert(kScriptSignal == 23 && kWayBackOffset == 512);  // In the code above.

constexpr std::uint64_t kTrapFlag = 0x100;
constexpr int kScriptMark = 0x4c4d5343;

}  // namespace

WayBack way_back(const GeneralRegisters& registers, std::uint64_t signal_mask) {
  const GeneralRegisters back = restarted(registers);
  WayBack way;
  way.signal_mask = signal_mask;
  siginfo_t information{};
  information.si_signo = kScriptSignal;
  information.si_code = SI_QUEUE;
  information.si_value.sival_int = kScriptMark;
  std::memcpy(way.signal_information, &information, sizeof(way.signal_information));
  way.flags = back.eflags & ~kTrapFlag;
  way.rsp = back.rsp;
  way.rip = back.rip;
  way.rax = back.rax;
  way.rbx = back.rbx;
  way.rcx = back.rcx;
  way.rdx = back.rdx;
  way.rsi = back.rsi;
  way.rdi = back.rdi;
  way.rbp = back.rbp;
  way.r8 = back.r8;
  way.r9 = back.r9;
  way.r10 = back.r10;
  way.r11 = back.r11;
  way.r12 = back.r12;
  way.r13 = back.r13;
  way.r14 = back.r14;
  way.r15 = back.r15;
  return way;
}

InterpreterCode interpreter_code() {
  const std::byte* start = migrate_script_start;
  return {.bytes = {start, migrate_script_end},
          .run_offset = 0,
          .system_call_offset = static_cast<std::size_t>(migrate_script_call - start),
          .end_offset = static_cast<std::size_t>(migrate_script_told - start),
          .park_offset = static_cast<std::size_t>(migrate_script_park - start),
          .idle_offset = static_cast<std::size_t>(migrate_script_idle - start)};
}

bool is_script_signal(const siginfo_t& information) {
  return information.si_code == SI_QUEUE
             ? information.si_value.sival_int == kScriptMark
             : information.si_code == SI_USER && information.si_pid == 0;
}

std::ptrdiff_t find_system_call(std::span<const std::byte> code) {
  constexpr std::array<std::byte, 2> kInstruction{std::byte{0x0f}, std::byte{0x05}};
  const auto found =
      std::search(code.begin(), code.end(), kInstruction.begin(), kInstruction.end());
  return found == code.end() ? -1 : found - code.begin();
}

}  // namespace migrate::arch
