// What a program says of its memory: a table at a page of its own, to which its block leads. It is
// written while the program holds itself, so that a move finds whole entries.
#include <sys/mman.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <optional>
#include <span>
#include <string>
#include <string_view>

#include "libmigrate/api/own_block.h"
#include "libmigrate/api/result.h"
#include "libmigrate/api/turn.h"
#include "libmigrate/include/libmigrate/migrate.h"
#include "pager/page_range.h"

namespace migrate::client {
namespace {

using program::Advice;
using program::Advised;

constexpr std::uint64_t kPage = program::kBlockBytes;

/// Whose turn it is to write the table.
constinit std::atomic<pid_t> writer = 0;

using Table = std::span<Advice>;

struct Pages {
  std::uint64_t start = 0;
  std::uint64_t end = 0;
};

/// The table of this process, made if there is none yet; empty if there is no memory for it.
Table table_of(program::Block& block) {
  constexpr std::size_t kBytes = program::kMostAdvice * sizeof(Advice);
  std::uint64_t place = block.advice.load(std::memory_order_acquire);
  if (place == 0) {
    void* const made =
        ::mmap(nullptr, kBytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (made == MAP_FAILED) {
      return {};
    }
    place = reinterpret_cast<std::uint64_t>(made);
    block.advice.store(place, std::memory_order_release);
  }
  return {reinterpret_cast<Advice*>(place),
          program::kMostAdvice};  // NOLINT(performance-no-int-to-ptr)
}

bool is_free(const Advice& entry) {
  return entry.advised == Advised::kNothing;
}

bool is_range(const Advice& entry) {
  return !is_free(entry) && entry.advised != Advised::kArena;
}

void add(Table table, Pages pages, Advised advised, std::string_view name = {}) {
  const auto entry = std::ranges::find_if(table, is_free);
  *entry = Advice{.start = pages.start, .end = pages.end, .advised = advised, .name = {}};
  std::ranges::copy(name, entry->name);
}

/// Takes back what was said of these pages.
void forget(Table table, Pages pages) {
  for (Advice& entry : table) {
    if (!is_range(entry) || entry.end <= pages.start || entry.start >= pages.end) {
      continue;
    }
    const Pages after{pages.end, entry.end};
    entry.end = pages.start;
    const Advised advised = entry.advised;
    if (entry.start >= entry.end) {
      entry = Advice{};
    }
    if (after.start < after.end) {
      add(table, after, advised);
    }
  }
}

/// These pages, and all that adjoin them of which the same was said, which is forgotten.
Pages join_neighbours(Table table, Pages pages, Advised advised) {
  for (bool joins = true; joins;) {
    joins = false;
    for (Advice& entry : table) {
      if (entry.advised == advised && (entry.end == pages.start || entry.start == pages.end)) {
        pages = {std::min(pages.start, entry.start), std::max(pages.end, entry.end)};
        entry = Advice{};
        joins = true;
      }
    }
  }
  return pages;
}

int wrong(const char* what) {
  note_message(what);
  return MIGRATE_USAGE;
}

int no_room() {
  note_message("advise: there is no room for more; take back what counts no more");
  return MIGRATE_ERROR;
}

/// Calls `write` with the table, where the program holds itself.
template <class Write>
int with_table(Write write) {
  program::Block* const block = own_block();
  if (block == nullptr) {
    note_message("advise: there is no place in the program's memory to say so");
    return MIGRATE_ERROR;
  }
  const Holding holding(block);
  const Turn turn(writer);
  const Table table = table_of(*block);
  return table.empty() ? no_room() : write(table);
}

/// Whether there is room for what is left of a range that these pages are in the middle of, and for
/// themselves if there is something to say of them.
bool has_room(Table table, Pages pages, bool says) {
  std::ptrdiff_t room = says ? -1 : 0;
  for (const Advice& entry : table) {
    const bool goes = is_range(entry) && entry.start >= pages.start && entry.end <= pages.end;
    const bool splits = is_range(entry) && entry.start < pages.start && entry.end > pages.end;
    room += (is_free(entry) || goes ? 1 : 0) - (splits ? 1 : 0);
  }
  return room >= 0;
}

/// The word of the table. Nothing: it is none of MIGRATE_ADVICE_*.
std::optional<Advised> word_of(int advice) {
  switch (advice) {
    case MIGRATE_ADVICE_NORMAL:
      return Advised::kNothing;
    case MIGRATE_ADVICE_EAGER:
      return Advised::kEager;
    case MIGRATE_ADVICE_LAZY:
      return Advised::kLazy;
    case MIGRATE_ADVICE_DISCARD:
      return Advised::kDiscard;
    case MIGRATE_ADVICE_LOCAL:
      return Advised::kLocal;
    case MIGRATE_ADVICE_SEQUENTIAL:
      return Advised::kSequential;
    case MIGRATE_ADVICE_RANDOM:
      return Advised::kRandom;
    case MIGRATE_ADVICE_HOT_FIRST:
      return Advised::kHotFirst;
    default:
      return std::nullopt;
  }
}

bool is_address_range(const void* address, std::size_t bytes) {
  const auto start = reinterpret_cast<std::uint64_t>(address);
  return start < kAddressLimit && bytes > 0 && bytes <= kAddressLimit - start;
}

/// The pages of which the range has a part; or those that are in it.
Pages pages_of(const void* address, std::size_t bytes, bool whole) {
  const auto start = reinterpret_cast<std::uint64_t>(address);
  const std::uint64_t end = start + bytes;
  const auto floor = [](std::uint64_t at) { return at & ~(kPage - 1); };
  const auto ceiling = [&](std::uint64_t at) { return floor(at + kPage - 1); };
  return whole ? Pages{ceiling(start), floor(end)} : Pages{floor(start), ceiling(end)};
}

bool is_name(std::string_view name) {
  return !name.empty() && name.size() < program::kAdviceNameBytes &&
         std::ranges::all_of(name, [](char each) { return each >= ' ' && each <= '~'; });
}

Table::iterator find_arena(Table table, std::string_view name) {
  return std::ranges::find_if(table, [name](const Advice& entry) {
    return entry.advised == Advised::kArena && name == entry.name;
  });
}

}  // namespace
}  // namespace migrate::client

using namespace migrate::client;

extern "C" int migrate_advise(void* address, size_t bytes, int advice) {
  const std::optional<Advised> word = word_of(advice);
  if (!word || !is_address_range(address, bytes)) {
    return wrong("advise: give an address, a size and one of MIGRATE_ADVICE_*");
  }
  const Advised advised = *word;
  const Pages pages = pages_of(address, bytes, advised == Advised::kDiscard);
  if (pages.start >= pages.end) {
    return MIGRATE_DONE;  // No whole page is in it.
  }
  return with_table([&](Table table) {
    if (!has_room(table, pages, advised != Advised::kNothing)) {
      return no_room();
    }
    forget(table, pages);
    if (advised != Advised::kNothing) {
      add(table, join_neighbours(table, pages, advised), advised);
    }
    return static_cast<int>(MIGRATE_DONE);
  });
}

extern "C" int migrate_arena_register(const char* name, void* address, size_t bytes) {
  if (name == nullptr || !is_name(name) || !is_address_range(address, bytes)) {
    return wrong(
        "register an arena: give a name of 1 to 43 printable characters, an address, and "
        "a size");
  }
  return with_table([&](Table table) {
    if (find_arena(table, name) != table.end()) {
      return wrong("register an arena: there is one of this name");
    }
    if (std::ranges::none_of(table, is_free)) {
      return no_room();
    }
    add(table, pages_of(address, bytes, false), Advised::kArena, name);
    return static_cast<int>(MIGRATE_DONE);
  });
}

extern "C" int migrate_arena_unregister(const char* name) {
  return with_table([&](Table table) {
    const auto found = name == nullptr ? table.end() : find_arena(table, name);
    if (found == table.end()) {
      return wrong("unregister an arena: there is none of this name");
    }
    *found = Advice{};
    return static_cast<int>(MIGRATE_DONE);
  });
}
