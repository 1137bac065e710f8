#pragma once

#include <sys/types.h>

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "base/result.h"
#include "base/unique_fd.h"
#include "libmigrate/program/layout.h"
#include "libmigrate/proto/image.pb.h"
#include "pager/page_range.h"

namespace migrate {

/// What a block says, as it was read at one moment.
struct ProgramWish {
  std::uint64_t address = 0;   ///< Of the block.
  std::uint32_t holds = 0;     ///< Sections in which it is not to be moved.
  std::uint32_t at_point = 0;  ///< The request at whose point a thread waits; 0: none.
  std::uint32_t point = 0;     ///< The request that waits for a point; 0: none.
  std::uint64_t asked = 0;     ///< With what a thread asks for something; 0: none does.
  std::uint32_t hooks = 0;     ///< Sets of hooks, which it calls before it is moved.
  std::uint32_t hooking = 0;   ///< The request at whose point they run; 0: none.
  std::uint32_t vetoed = 0;    ///< The request that one of them has vetoed.
};

/// What a program has said of a range of its addresses.
struct ProgramAdvice {
  PageRange range;
  program::Advised advised = program::Advised::kNothing;
  std::string name;  ///< Of an arena, printable; else empty.
};

/// A program that uses libmigrate.so, by its block (layout.h). Everything read is its user's to
/// write: it is taken as a wish and bounded by the size of a page.
///
/// The memory is that of the address space which the process had when this was opened: another
/// program that the process becomes (execve) is neither read nor written. A move-only value.
class Program {
 public:
  /// Of a process of this host. Opens, but decides nothing about who may. Errors: kNotFound (it has
  /// ended, or does not use the library), kSystem.
  static Result<Program> open(pid_t process);
  /// Of memory that open() gave another process of ours. Errors: as open().
  static Result<Program> adopt(UniqueFd memory);
  /// Makes the block of a copy of another process, which runs nothing yet, its own: it asks for
  /// nothing, as the library has it in a child of fork(2). Does nothing if there is no block.
  /// Errors: kSystem.
  static Result<void> begin_anew(pid_t copy);

  /// What it says now. Errors: kNotFound (its memory is gone, or the block).
  Result<ProgramWish> read() const;
  /// Why one of its hooks has vetoed a move: one line of printable characters, in UTF-8 if it keeps
  /// to that. Errors: kNotFound.
  Result<std::string> veto() const;
  /// What it says of its memory; what makes no sense is left out. Of a process that runs it may be
  /// a little of what was before and of what comes.
  std::vector<ProgramAdvice> advice() const;
  /// Tells it that `request`, not 0, waits for one of its points; 0: none does any more. Errors:
  /// kNotFound, kSystem.
  Result<void> ask_for_point(std::uint32_t request) const;
  /// Answers what it asks with `token`, or waits with at its point: `result` is a JSON object. Of
  /// one that is too long refusals are left out. Errors: kNotFound, kSystem.
  Result<void> answer(std::uint64_t token, std::string result) const;

  /// Borrowed: /proc/PID/mem.
  int memory() const { return memory_.get(); }

 private:
  Program(UniqueFd memory, std::uint64_t address) : memory_(std::move(memory)), address_(address) {}

  bool read_at(std::size_t offset, void* bytes, std::size_t count) const;
  Result<void> write(std::size_t offset, const void* bytes, std::size_t count) const;
  Result<void> tell_news() const;

  UniqueFd memory_;
  std::uint64_t address_;
};

/// Whether a program is in a section in which it is not to be moved.
bool holds_itself(pid_t process);

/// The block of a process all of whose threads are stopped, if it has one. `image` has its pid and
/// its mappings.
std::optional<ProgramWish> wish_of_frozen(pid_t process, const wire::ProcessImage& image);

/// Makes the block in the image of a frozen process what it is to be where that arrives: it has
/// moved, no point is waited for, and what was asked with `asked` (0: nothing) has come true.
/// Errors: kSystem.
Result<void> note_arrival(pid_t process, const ProgramWish& wish, std::uint64_t asked,
                          wire::ProcessImage& image);

}  // namespace migrate
