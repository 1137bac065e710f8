#pragma once

#include <sys/types.h>

#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>

#include "base/result.h"
#include "base/unique_fd.h"
#include "libmigrate/arch/arch.h"
#include "pager/page_range.h"

namespace migrate {

/// Most POSIX timers, and most pending signals, of a process that is moved: so many fit into the
/// data of the one script that makes a process what it was, with all else that this needs.
inline constexpr int kMostPosixTimers = 512;
inline constexpr int kMostPendingSignals = 1024;

/// Where a script runs: the interpreter's code, the way back, entries, and data, in this order.
struct ScriptPlace {
  static constexpr std::uint64_t kEntriesOffset = arch::kWayBackOffset + sizeof(arch::WayBack);

  std::uint64_t address = 0;      ///< Of the code.
  std::uint64_t data_offset = 0;  ///< From there, and so the end of the entries.
  std::uint64_t length_bytes = 0;

  std::uint64_t entries() const { return address + kEntriesOffset; }
  std::uint64_t data() const { return address + data_offset; }
  std::size_t most_entries() const {
    return (data_offset - kEntriesOffset) / sizeof(arch::ScriptEntry) - 1;  // One ends them.
  }
};

/// Memory that we map into a traced process to run scripts there: the place of one script, the
/// parking data, and a record that outlives the tracer. One anonymous mapping, readable, writable
/// and executable. The scripts of several threads that run at once have a slot each. A value: it
/// names memory of the process.
struct ScriptArea {
  static constexpr std::uint64_t kDataOffset = 131072;
  static constexpr std::uint64_t kDataBytes = 262144;
  static constexpr std::uint64_t kSlotsOffset = kDataOffset + kDataBytes;
  static constexpr std::uint64_t kSlotBytes = kPageBytes;
  static constexpr std::uint64_t kSlotDataOffset = 2432;  ///< For 24 calls.
  static constexpr std::size_t kSlots = 64;
  static constexpr std::uint64_t kParkingOffset = kSlotsOffset + kSlots * kSlotBytes;
  static constexpr std::uint64_t kRecordOffset = kParkingOffset + kPageBytes;

  pid_t process = 0;
  std::uint64_t address = 0;
  std::uint64_t length_bytes = 0;
  /// /proc/PID/mem, which stays with the address space that the area is in: a process that is made
  /// to run another program (execve) is neither read nor written by it. Null before open_memory():
  /// then by the process's id.
  std::shared_ptr<const UniqueFd> memory = {};

  /// To be called while the process is stopped and surely the one that was meant. Errors: kSystem.
  Result<void> open_memory();
  Result<UniqueFd> duplicate_memory() const;
  /// Memory of the process, anywhere. Errors: kSystem (EFAULT, with address; that address space
  /// is no more).
  Result<void> read(std::uint64_t from, std::span<std::byte> into) const;
  Result<void> write(std::uint64_t to, std::span<const std::byte> bytes) const;

  std::uint64_t code() const { return address; }
  ScriptPlace place() const { return {address, kDataOffset, kSlotsOffset}; }
  ScriptPlace slot(std::size_t number) const {
    return {address + kSlotsOffset + number * kSlotBytes, kSlotDataOffset, kSlotBytes};
  }
  std::uint64_t parking() const { return address + kParkingOffset; }
  std::uint64_t record() const { return address + kRecordOffset; }
  std::uint64_t record_bytes() const { return length_bytes - kRecordOffset; }
  bool contains(std::uint64_t place) const {
    return place >= address && place - address < length_bytes;
  }
};

}  // namespace migrate
