#include "libmigrate/api/own_block.h"

#include <libmigrate/migrate.h>
#include <pthread.h>
#include <sys/mman.h>
#include <sys/uio.h>
#include <unistd.h>

#include <cerrno>

#include "libmigrate/api/arena.h"
#include "libmigrate/api/hooks.h"
#include "libmigrate/api/turn.h"

namespace migrate::client {
namespace {

using program::Block;

constinit std::atomic<Block*> current = nullptr;
constinit const std::uint32_t kNoBlockYet = 1;
constinit const std::uint32_t kNoPlace = 0;
static_assert(sizeof(std::atomic<std::uint32_t>) == sizeof(std::uint32_t) &&
              std::atomic<std::uint32_t>::is_always_lock_free);
/// Whose turn it is to make the block, so that no thread sees one that is not whole.
constinit std::atomic<pid_t> maker = 0;

/// What is at an address that is taken, as far as it can be read.
bool is_own_block(const void* address) {
  std::uint64_t words[2] = {};  // magic; version and process
  iovec local = {words, sizeof words};
  iovec remote = {const_cast<void*>(address), sizeof words};
  return ::process_vm_readv(::getpid(), &local, 1, &remote, 1, 0) ==
             static_cast<ssize_t>(sizeof words) &&
         words[0] == program::kBlockMagic &&
         words[1] >> 32U == static_cast<std::uint64_t>(::getpid());
}

/// A page of zeros at one of the addresses, or a block of this process that an earlier copy of the
/// library (dlopen) made there.
Block* find_place() {
  for (const std::uint64_t place : program::kBlockAddresses) {
    auto* const address = reinterpret_cast<void*>(place);
    void* const mapped = ::mmap(address, program::kBlockBytes, PROT_READ | PROT_WRITE,
                                MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED_NOREPLACE, -1, 0);
    if (mapped == address || (mapped == MAP_FAILED && errno == EEXIST && is_own_block(address))) {
      return static_cast<Block*>(address);
    }
    if (mapped != MAP_FAILED) {  // A kernel before 4.17 takes the address for a hint.
      ::munmap(mapped, program::kBlockBytes);
    }
  }
  return nullptr;
}

/// From now on migrate_point() asks `word` whether there is something to do.
void look_at_for_points(const std::uint32_t& word) {
  __atomic_store_n(&migrate_point_word, &word, __ATOMIC_RELEASE);
}

/// In a child: of what its parent asked for, it wants nothing.
void begin_anew(Block& block) {
  block.process = static_cast<std::uint32_t>(::getpid());
  block.holds = 0;
  block.at_point = 0;
  block.asked = 0;
  block.point = 0;
  block.answered = 0;
  block.hooking = 0;
  block.vetoed = 0;
}

void begin_anew_in_child() {
  if (Block* block = current.load(std::memory_order_acquire)) {
    begin_anew(*block);
  }
  after_fork_in_child();
  release_arenas();
}

void prepare_fork() {
  hold_arenas();
  before_fork();
}

void go_on_in_parent() {
  after_fork_in_parent();
  release_arenas();
}

Block* make_block() {
  const Turn turn(maker);
  if (Block* block = current.load(std::memory_order_acquire)) {
    return block;
  }
  Block* const block = find_place();
  if (block == nullptr) {
    look_at_for_points(kNoPlace);
    return nullptr;
  }
  block->process = static_cast<std::uint32_t>(::getpid());
  block->version = program::kBlockVersion;
  std::atomic_thread_fence(std::memory_order_release);
  block->magic = program::kBlockMagic;
  ::pthread_atfork(prepare_fork, go_on_in_parent, begin_anew_in_child);
  current.store(block, std::memory_order_release);
  look_at_for_points(reinterpret_cast<const std::uint32_t&>(block->point));
  return block;
}

}  // namespace

program::Block* own_block() {
  Block* block = current.load(std::memory_order_acquire);
  if (block == nullptr) {
    block = make_block();
  }
  if (block != nullptr && block->process != static_cast<std::uint32_t>(::getpid())) {
    begin_anew(*block);  // A child that was not made by fork(2).
  }
  return block;
}

}  // namespace migrate::client

/// Until there is a block, it says that there is something to do.
const std::uint32_t* migrate_point_word = &migrate::client::kNoBlockYet;
