/// Arenas in C++. Part of migrate.hpp, which programs include.
///
///   migrate::arena arena("table", 1 << 30);
///   std::pmr::vector<double> table(100'000'000, &arena);
///   migrate::advise(arena.address(), arena.size(), migrate::advice::lazy);
#pragma once

#include <libmigrate/migrate.h>

#include <cstddef>
#include <memory_resource>
#include <new>
#include <stdexcept>
#include <string>

namespace migrate {

/// Memory with a name, from which containers allocate (migrate_arena_create). For many small
/// objects put a std::pmr::unsynchronized_pool_resource on top. By any threads; what is in it must
/// not outlive it. Throws std::runtime_error if it cannot be made, std::bad_alloc if it is full.
class arena final : public std::pmr::memory_resource {
 public:
  arena(const std::string& name, std::size_t bytes) {
    if (migrate_arena_create(name.c_str(), bytes, &owned_) != MIGRATE_DONE) {
      throw std::runtime_error(migrate_last_error());
    }
  }
  arena(const arena&) = delete;
  arena& operator=(const arena&) = delete;
  ~arena() override { migrate_arena_destroy(owned_); }

  void* address() const noexcept { return migrate_arena_address(owned_); }
  std::size_t size() const noexcept { return migrate_arena_bytes(owned_); }

 private:
  void* do_allocate(std::size_t bytes, std::size_t alignment) override {
    void* const memory = migrate_arena_allocate(owned_, bytes, alignment);
    return memory != nullptr ? memory : throw std::bad_alloc();
  }
  void do_deallocate(void* memory, std::size_t /*bytes*/, std::size_t /*alignment*/) override {
    static_cast<void>(migrate_arena_free(owned_, memory));
  }
  bool do_is_equal(const std::pmr::memory_resource& other) const noexcept override {
    return this == &other;
  }

  migrate_arena* owned_ = nullptr;
};

}  // namespace migrate
