// A program that becomes someone else, step by step, while it holds memory that must stay whole:
//   credentials STEP...
//     say WORD         prints a line
//     wait PATH        until there is such a file
//     root             all its user and group ids become 0 (of a set-user-id program)
//     become ID        all its user and group ids become ID, for good
//     hide, show       PR_SET_DUMPABLE 0 and 1
//     fork             a child finds the memory whole
//     leave PATH       a child goes on; this process waits until there is such a file, and exits
//     hold             maps pages where a static program has its code, not random places
//     look             says "mine" if these have what was written to them, else "leak"
//     exec PROGRAM STEP...   becomes another program
//     end              prints "ok" if the memory is whole, and exits with kSurvived
#include <grp.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/wait.h>

#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <string>

#include "tests/programs/check.h"

namespace {

constexpr std::size_t kBytes = 8U << 20U;
constexpr std::size_t kWords = kBytes / sizeof(std::uint64_t);

std::uint64_t word_of(std::size_t index) {
  return index * 0xBF58476D1CE4E5B9U + 1;
}

std::uint64_t* make_words() {
  auto* words = static_cast<std::uint64_t*>(check::map_memory(kBytes));
  for (std::size_t index = 0; index < kWords; ++index) {
    words[index] = word_of(index);
  }
  return words;
}

bool is_whole(const std::uint64_t* words) {
  for (std::size_t index = 0; index < kWords; ++index) {
    if (words[index] != word_of(index)) {
      return false;
    }
  }
  return true;
}

void must(int result, const char* what) {
  if (result < 0) {
    std::perror(what);
    std::exit(1);
  }
}

void become(unsigned id) {
  if (::geteuid() == 0) {
    must(::setgroups(0, nullptr), "setgroups");
  }
  must(::setresgid(id, id, id), "setresgid");
  must(::setresuid(id, id, id), "setresuid");
}

void run_child(const std::uint64_t* words) {
  const pid_t child = ::fork();
  must(child, "fork");
  if (child == 0) {
    ::_exit(is_whole(words) ? 0 : 1);
  }
  int status = 0;
  must(::waitpid(child, &status, 0), "waitpid");
  if (status != 0) {
    check::fail("a child ended with status %x", static_cast<unsigned>(status));
  }
}

/// Where the linker puts the code of a program that is not position independent.
constexpr std::uintptr_t kHeldAddress = 0x400000;
constexpr std::size_t kHeldBytes = 0x4000;
constexpr int kHeld = 'A';

void hold() {
  void* const held =
      ::mmap(reinterpret_cast<void*>(kHeldAddress), kHeldBytes, PROT_READ | PROT_WRITE,
             MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED_NOREPLACE, -1, 0);
  must(held == MAP_FAILED ? -1 : 0, "mmap");
  std::memset(held, kHeld, kHeldBytes);
}

void look() {
  const auto* const held = reinterpret_cast<const volatile char*>(kHeldAddress);
  bool mine = true;
  for (std::size_t at = 0; at < kHeldBytes; ++at) {
    mine = held[at] == kHeld && mine;
  }
  check::say(mine ? "mine\n" : "leak\n");
}

void await_file(const char* path) {
  constexpr std::int64_t kLookNs = 5'000'000;
  while (::access(path, F_OK) != 0) {
    check::sleep_ns(kLookNs);
  }
}

void leave(const char* path) {
  const pid_t child = ::fork();
  must(child, "fork");
  if (child != 0) {
    await_file(path);
    ::_exit(check::kSurvived);
  }
}

}  // namespace

int main(int count, char** words) {
  const std::uint64_t* const memory = make_words();
  for (int at = 1; at < count; ++at) {
    const std::string step = words[at];
    const bool takes_one =
        step == "say" || step == "wait" || step == "become" || step == "exec" || step == "leave";
    const char* const argument = takes_one && at + 1 < count ? words[++at] : "";
    if (step == "say") {
      check::say((std::string(argument) + "\n").c_str());
    } else if (step == "wait") {
      await_file(argument);
    } else if (step == "root") {
      become(0);
    } else if (step == "become") {
      become(static_cast<unsigned>(std::strtoul(argument, nullptr, 10)));
    } else if (step == "hide" || step == "show") {
      must(::prctl(PR_SET_DUMPABLE, step == "show" ? 1 : 0, 0, 0, 0), "prctl");
    } else if (step == "fork") {
      run_child(memory);
    } else if (step == "leave") {
      leave(argument);
    } else if (step == "hold") {
      hold();
    } else if (step == "look") {
      look();
    } else if (step == "exec") {
      ::execv(argument, words + at);
      must(-1, "exec");
    } else if (step == "end") {
      if (!is_whole(memory)) {
        check::fail("its memory");
      }
      check::say("ok\n");
      return check::kSurvived;
    } else {
      return 2;
    }
  }
  return 1;
}
