#pragma once

#include <atomic>
#include <cstddef>
#include <cstdint>

namespace migrate::program {

/// What a program that uses libmigrate.so says of itself, in one page of its own memory: private,
/// anonymous, at the first of kBlockAddresses that was free. So it is found without a registration,
/// is where it was after every move, and costs nothing to whoever does not look. Both sides may be
/// of different versions: members are only added, at the end, and `version` says which there are.
///
/// Nothing that the program writes here is believed to be more than its wish. Who writes what:
/// the program all but the words from outside, which a daemon or worker writes into the running
/// process, or, of a process that moves, into the page as it arrives. No lock: each word is written
/// whole, and `news` after the others.
struct Block {
  std::uint64_t magic;
  std::uint32_t version;
  std::uint32_t process;  ///< Its pid, as it sees it: in a child, the block is not its own.
  std::atomic<std::uint32_t> holds;     ///< Sections in which it is not to be moved.
  std::atomic<std::uint32_t> at_point;  ///< The request at whose point a thread waits; 0: none.
  std::atomic<std::uint64_t> asked;     ///< With what a thread asks for something; 0: none does.
  // From outside.
  std::atomic<std::uint32_t> point;     ///< The request that waits for a point; 0: none.
  std::atomic<std::uint32_t> moves;     ///< Grows with each move.
  std::atomic<std::uint64_t> answered;  ///< Whose answer is in `answer`: what was asked with.
  std::atomic<std::uint32_t> answer_bytes;
  std::atomic<std::uint32_t>
      news;  ///< Grows with each word from outside (the program waits on it).
  // Of the program again, since version 2; zeros before.
  std::atomic<std::uint32_t> hooks;    ///< How many sets of hooks it has.
  std::atomic<std::uint32_t> hooking;  ///< The request for a point whose hooks run; 0: none.
  std::atomic<std::uint32_t> vetoed;   ///< The request that a hook has vetoed, as `veto` says.
  std::uint32_t veto_bytes;
  std::atomic<std::uint64_t> advice;  ///< Since version 3: where its Advice is, kMostAdvice; or 0.
  std::uint64_t reserved[6];          ///< Zeros.
  char answer[3712];                  ///< JSON, the object of a `result` event.
  char veto[256];                     ///< Text.
};

/// What it says of a range of its memory.
enum class Advised : std::uint32_t {
  kNothing,  ///< An entry that is free.
  kEager,
  kLazy,
  kDiscard,
  kArena,  ///< It has a name.
  kLocal,
  kSequential,
  kRandom,
  kHotFirst,
};
inline constexpr std::size_t kAdviceNameBytes = 44;
/// One entry of a table that lies at a page of its own. It is written while the program holds
/// itself (Block::holds), so that a frozen process has whole ones.
struct Advice {
  std::uint64_t start;  ///< Of a page.
  std::uint64_t end;
  Advised advised;
  char name[kAdviceNameBytes];  ///< Ends with a zero.
};
inline constexpr std::size_t kMostAdvice = 1024;

inline constexpr std::uint64_t kBlockMagic = 0x4b4c42474f52504dU;  // "MPROGBLK"
inline constexpr std::uint32_t kBlockVersion = 3;
inline constexpr std::uint32_t kFirstBlockVersion = 1;
inline constexpr std::size_t kBlockBytes = 4096;
/// Below where Linux puts libraries, far above programs and heaps, and where ThreadSanitizer lets a
/// program have memory: it ends one that asks for a page elsewhere.
inline constexpr std::uint64_t kBlockAddresses[] = {0x7e8d69672000U, 0x7e9d69672000U};

static_assert(sizeof(Block) == kBlockBytes);
static_assert(offsetof(Block, holds) == 16 && offsetof(Block, at_point) == 20);
static_assert(offsetof(Block, asked) == 24 && offsetof(Block, point) == 32);
static_assert(offsetof(Block, moves) == 36 && offsetof(Block, answered) == 40);
static_assert(offsetof(Block, answer_bytes) == 48 && offsetof(Block, news) == 52);
static_assert(sizeof(Advice) == 64 && kMostAdvice * sizeof(Advice) % kBlockBytes == 0);
static_assert(offsetof(Block, advice) == 72);
static_assert(offsetof(Block, hooks) == 56 && offsetof(Block, vetoed) == 64);
static_assert(offsetof(Block, answer) == 128 && offsetof(Block, veto) == 3840);
static_assert(std::atomic<std::uint64_t>::is_always_lock_free);

}  // namespace migrate::program
