// Words counted in containers of Boost.Interprocess, which lie in an arena: a range of memory with
// a name, by which a policy says how it travels (kind = "arena", name = "words").
//
//   arena TEXTS HOST...        counts the words of TEXTS made-up texts at each of the hosts, moving
//                              itself there; comes to a point after each text
#include <boost/container/map.hpp>
#include <boost/interprocess/containers/string.hpp>
#include <cstdint>
#include <functional>
#include <iostream>
#include <libmigrate/migrate.hpp>
#include <libmigrate/migrate_interprocess.hpp>
#include <random>
#include <string>
#include <utility>

namespace {

using Arena = migrate::managed_arena;
using Word =
    boost::interprocess::basic_string<char, std::char_traits<char>, Arena::allocator<char>>;
using Counts = boost::container::map<Word, std::uint64_t, std::less<>,
                                     Arena::allocator<std::pair<const Word, std::uint64_t>>>;

void print_place() {
  const migrate::hold printing;
  try {
    const migrate::place place = migrate::here();
    std::cout << "at " << place.host << " after " << place.moves << " moves" << std::endl;
  } catch (const migrate::error& error) {
    std::cout << "nowhere: " << error.what() << std::endl;
  }
}

/// One text: some thousand words, few of them often.
void count_words(Arena& arena, Counts& counts, std::mt19937_64& source) {
  std::geometric_distribution<unsigned> number(0.001);
  for (int i = 0; i < 2000; ++i) {
    const std::string text = "a longer word, number " + std::to_string(number(source));
    ++counts[Word(text.c_str(), arena.get_allocator<char>())];
  }
}

std::uint64_t sum_of(const Counts& counts) {
  std::uint64_t sum = 0;
  for (const auto& [word, count] : counts) {
    for (const char each : word) {
      sum = sum * 31 + static_cast<unsigned char>(each);
    }
    sum = sum * 31 + count;
  }
  return sum;
}

}  // namespace

int main(int count, char** words) {
  if (count < 2) {
    std::cerr << "usage: arena TEXTS HOST...\n";
    return 2;
  }
  try {
    Arena arena("words", 64U << 20U);
    Counts& counts = *arena.segment().construct<Counts>("counts")(
        arena.get_allocator<std::pair<const Word, std::uint64_t>>());
    std::mt19937_64 source(42);
    print_place();
    for (int host = 1; host < count; ++host) {
      for (int text = std::stoi(words[1]); text > 0; --text) {
        count_words(arena, counts, source);
        if (migrate::point()) {
          print_place();
        }
      }
      if (host + 1 < count) {
        migrate::options options;
        options.retry = migrate::seconds(5);
        if (const auto moved = migrate::try_move_self(words[host + 1], options); !moved) {
          std::cout << "stays: " << moved.message() << std::endl;
        }
        print_place();
      }
    }
    // As any other part of the program would find it.
    const auto [found, number] = arena.segment().find<Counts>("counts");
    std::cout << "sum " << std::hex << sum_of(*found) << " of " << std::dec << found->size()
              << " words" << std::endl;
  } catch (const std::exception& error) {
    std::cerr << error.what() << "\n";
    return 1;
  }
}
