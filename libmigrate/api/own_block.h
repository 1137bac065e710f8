#pragma once

#include "libmigrate/program/layout.h"

namespace migrate::client {

/// This process's block, made by the first call that needs one. Null: there is no place for it.
/// Thread-safe, and safe in a child of fork(2), which begins with a block that asks for nothing.
program::Block* own_block();

/// While it lives, the process is not moved: no move comes upon a connection that is open for a
/// moment only. Null is allowed.
class Holding {
 public:
  explicit Holding(program::Block* block) : block_(block) {
    if (block_ != nullptr) {
      block_->holds.fetch_add(1, std::memory_order_acq_rel);
    }
  }
  Holding(const Holding&) = delete;
  Holding& operator=(const Holding&) = delete;
  ~Holding() { release(); }
  void release() {
    if (block_ != nullptr) {
      block_->holds.fetch_sub(1, std::memory_order_acq_rel);
      block_ = nullptr;
    }
  }

 private:
  program::Block* block_;
};

}  // namespace migrate::client
