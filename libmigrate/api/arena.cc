// Arenas: private anonymous memory with a name in the program's table of advice. What is free of it
// is noted in the heap, so that the arena holds what the program has put there and nothing else.
#include "libmigrate/api/arena.h"

#include <sys/mman.h>
#include <unistd.h>

#include <algorithm>
#include <bit>
#include <cstddef>
#include <memory>
#include <string>
#include <utility>

#include "libmigrate/api/free_ranges.h"
#include "libmigrate/api/result.h"
#include "libmigrate/api/turn.h"
#include "libmigrate/include/libmigrate/migrate.h"
#include "libmigrate/program/layout.h"

struct migrate_arena {
  std::string name;
  char* start = nullptr;
  std::size_t bytes = 0;
  migrate::client::FreeRanges ranges;
};

namespace migrate::client {
namespace {

constexpr std::size_t kArenaPage = program::kBlockBytes;
constexpr std::size_t kLargestArena = std::size_t{1} << 46U;
/// Of free memory, so much at a time is given back to the kernel.
constexpr std::size_t kGivenBack = 64UL << 10U;

/// Whose turn it is to allocate, in any arena.
constinit std::atomic<pid_t> allocator = 0;

Answer no_memory() {
  return answer_of(MIGRATE_ERROR, "make an arena: there is no memory of that size");
}

Answer make_arena(const char* name, std::size_t bytes, migrate_arena** arena) {
  if (arena == nullptr || bytes == 0 || bytes > kLargestArena) {
    return answer_of(MIGRATE_USAGE, "make an arena: give a size, and where it is to be put");
  }
  *arena = nullptr;
  bytes = (bytes + kArenaPage - 1) & ~(kArenaPage - 1);
  void* const memory = ::mmap(nullptr, bytes, PROT_READ | PROT_WRITE,
                              MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  if (memory == MAP_FAILED) {
    return no_memory();
  }
  const auto unmap = [bytes](void* mapped) { ::munmap(mapped, bytes); };
  std::unique_ptr<void, decltype(unmap)> mapped(memory, unmap);
  auto made = std::make_unique<migrate_arena>(migrate_arena{
      name == nullptr ? "" : name, static_cast<char*>(memory), bytes, FreeRanges(bytes)});
  if (const int status = migrate_arena_register(name, memory, bytes); status != MIGRATE_DONE) {
    return answer_of(status, migrate_last_error());
  }
  static_cast<void>(mapped.release());
  *arena = made.release();
  return answer_of(MIGRATE_DONE, {});
}

/// Zeros, which nobody has to send.
void give_back(const migrate_arena& arena, FreeRanges::Range range) {
  const std::size_t start = (range.start + kArenaPage - 1) & ~(kArenaPage - 1);
  const std::size_t end = range.end & ~(kArenaPage - 1);
  if (end > start && end - start >= kGivenBack) {
    ::madvise(arena.start + start, end - start, MADV_DONTNEED);
  }
}

}  // namespace

void hold_arenas() {
  Turn::take(allocator);
}

void release_arenas() {
  Turn::leave(allocator);
}

}  // namespace migrate::client

using namespace migrate::client;  // the functions below are C's

extern "C" int migrate_arena_create(const char* name, size_t bytes, migrate_arena** arena) {
  return guarded(nullptr, [&] { return make_arena(name, bytes, arena); });
}

extern "C" void migrate_arena_destroy(migrate_arena* arena) {
  if (arena != nullptr) {
    static_cast<void>(migrate_arena_unregister(arena->name.c_str()));
    ::munmap(arena->start, arena->bytes);
    delete arena;
  }
}

extern "C" void* migrate_arena_address(const migrate_arena* arena) {
  return arena == nullptr ? nullptr : arena->start;
}

extern "C" size_t migrate_arena_bytes(const migrate_arena* arena) {
  return arena == nullptr ? 0 : arena->bytes;
}

extern "C" void* migrate_arena_allocate(migrate_arena* arena, size_t bytes, size_t alignment) {
  alignment = alignment == 0 ? alignof(std::max_align_t) : alignment;
  if (arena == nullptr || !std::has_single_bit(alignment) || alignment > kArenaPage) {
    note_message("allocate in an arena: an alignment is a power of two, of 4096 at most");
    return nullptr;
  }
  try {
    const Turn turn(allocator);
    const auto start = arena->ranges.take(std::max<std::size_t>(bytes, 1), alignment);
    if (start) {
      return arena->start + *start;
    }
  } catch (const std::exception&) {
  }
  note_message("allocate in an arena: there is no room for that");
  return nullptr;
}

extern "C" int migrate_arena_free(migrate_arena* arena, void* memory) {
  if (memory == nullptr) {
    return MIGRATE_DONE;
  }
  const auto* const place = static_cast<const char*>(memory);
  if (arena != nullptr && place >= arena->start && place < arena->start + arena->bytes) {
    try {
      const Turn turn(allocator);
      if (const auto range = arena->ranges.give(static_cast<std::size_t>(place - arena->start))) {
        give_back(*arena, *range);
        return MIGRATE_DONE;
      }
    } catch (const std::exception&) {  // No memory to note that it is free: it stays taken.
      return MIGRATE_DONE;
    }
  }
  note_message("free in an arena: it was not allocated there");
  return MIGRATE_USAGE;
}
