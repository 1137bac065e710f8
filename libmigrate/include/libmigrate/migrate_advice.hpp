/// What a program says of its memory, in C++. Part of migrate.hpp, which programs include.
#pragma once

#include <libmigrate/migrate.h>

#include <cstddef>
#include <stdexcept>
#include <string>
#include <utility>

namespace migrate {

/// How memory is to follow in a move (migrate_advise). Throws std::runtime_error.
enum class advice {
  normal = MIGRATE_ADVICE_NORMAL,
  eager = MIGRATE_ADVICE_EAGER,
  lazy = MIGRATE_ADVICE_LAZY,
  discard = MIGRATE_ADVICE_DISCARD,
  local = MIGRATE_ADVICE_LOCAL,
  sequential = MIGRATE_ADVICE_SEQUENTIAL,
  random = MIGRATE_ADVICE_RANDOM,
  hot_first = MIGRATE_ADVICE_HOT_FIRST
};
inline void advise(void* address, std::size_t bytes, advice given) {
  if (migrate_advise(address, bytes, static_cast<int>(given)) != MIGRATE_DONE) {
    throw std::runtime_error(migrate_last_error());
  }
}

/// While one lives, memory has a name for rules of a policy. Throws std::runtime_error.
class arena_name {
 public:
  arena_name(std::string name, void* address, std::size_t bytes) : name_(std::move(name)) {
    if (migrate_arena_register(name_.c_str(), address, bytes) != MIGRATE_DONE) {
      throw std::runtime_error(migrate_last_error());
    }
  }
  arena_name(const arena_name&) = delete;
  arena_name& operator=(const arena_name&) = delete;
  ~arena_name() { static_cast<void>(migrate_arena_unregister(name_.c_str())); }

 private:
  std::string name_;
};

}  // namespace migrate
