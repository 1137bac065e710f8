#pragma once
// What the files of the program `pairs` share: a table of steps, each of which gives this process
// an attribute or an object that is drawn from a random source, and a view of all that it has.

#include <span>

#include "tests/programs/check.h"

namespace pairs {

using check::Random;

/// One thing that a process may have.
struct Step {
  const char* name;
  bool seldom;  ///< Drawn seldom: most that have it are refused.
  /// False, with errno, if this kernel or the rights of this process do not allow it.
  bool (*make)(Random& random);
};

std::span<const Step> attribute_steps();
/// Taken after all others: they take away what others need.
std::span<const Step> last_steps();
std::span<const Step> file_steps();
std::span<const Step> object_steps();
std::span<const Step> mapping_steps();

/// Prints all that this process can learn of itself, as lines "NUMBER KEY=VALUE".
void show(int number);

/// The content of this memory is part of the view.
void show_memory(const void* start, std::size_t length_bytes);
/// The end of the program undoes what would outlive it.
void at_end(void (*undo)(int number), int number);

inline bool chance(Random& random, std::uint64_t percent) {
  return random.below(100) < percent;
}

template <typename Value, std::size_t Count>
const Value& one_of(Random& random, const Value (&values)[Count]) {
  return values[random.below(Count)];
}

/// Each of some bits with a chance of one half.
template <std::size_t Count>
int some_of(Random& random, const int (&bits)[Count]) {
  int all = 0;
  for (const int bit : bits) {
    all |= chance(random, 50) ? bit : 0;
  }
  return all;
}

/// FIONREAD of a terminal, which gets what was written to its other side a little later.
int count_when_settled(int fd, int& waiting);

/// A path of a file that is not there yet, in the folder that all hosts see.
std::string new_path(const char* name);

}  // namespace pairs
