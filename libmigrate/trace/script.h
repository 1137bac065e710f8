#pragma once

#include <signal.h>
#include <sys/types.h>

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <initializer_list>
#include <span>
#include <string>
#include <vector>

#include "base/result.h"
#include "libmigrate/arch/arch.h"
#include "libmigrate/trace/script_area.h"
#include "libmigrate/trace/tracee.h"

namespace migrate {

/// The signals that a thread which runs scripts has blocked: all but that by which a script ends.
inline constexpr std::uint64_t kAllSignals = ~0ULL;
inline constexpr std::uint64_t kScriptSignalMask =
    ~(1ULL << (static_cast<unsigned>(arch::kScriptSignal) - 1U));

/// Sends the SIGSTOP again that was taken by what ran in `process` for the tracer, as no mask holds
/// it back: it waits then until the process itself goes on. One that a SIGCONT followed is over.
void send_stop_again(pid_t process);

/// Sends a signal again that was taken in `thread` of `process`, to the thread or to the process.
/// The kernel lets no one forge the sender of each.
Result<void> send_again(pid_t process, pid_t thread, bool to_thread, siginfo_t information);

/// Runs one system call in a stopped first thread of a process by the system call instruction at
/// `instruction` and leaves the thread stopped with changed registers and all signals blocked. If
/// the tracer dies meanwhile (some microseconds), the thread goes astray. Thread: the tracer.
Result<std::int64_t> call_once(pid_t thread, const arch::GeneralRegisters& base,
                               std::uint64_t instruction, std::int64_t number,
                               const std::uint64_t (&arguments)[6]);

/// Maps an area into `process` through its stopped `thread`, at `wanted` (must be free) or, if 0,
/// anywhere, with room for a record of `record_bytes`. The thread's registers change.
Result<ScriptArea> map_script_area(pid_t process, pid_t thread, const arch::GeneralRegisters& base,
                                   std::uint64_t instruction, std::uint64_t wanted,
                                   std::uint64_t record_bytes);
/// Removes the area, by an instruction outside it. The thread's registers change.
Result<void> unmap_script_area(const ScriptArea& area, pid_t thread,
                               const arch::GeneralRegisters& base, std::uint64_t instruction);

/// A list of system calls that a stopped thread runs in one go, with the data that they read and
/// write. Build it, run() it, look at results. Thread: the tracer.
class Script {
 public:
  explicit Script(const ScriptArea& area) : Script(area, area.place()) {}
  /// In a slot of `area`, where others run at the same time. For few calls: see fits().
  Script(const ScriptArea& area, const ScriptPlace& place) : area_(area), place_(place) {}

  /// Adds a call whose failure the caller looks at by result(). Returns its index.
  std::size_t call(std::int64_t number, std::initializer_list<std::uint64_t> arguments);
  /// Adds a call that must succeed: run() reports its failure as an Error of `operation` (a string
  /// literal) on `object`.
  std::size_t must(const char* operation, std::int64_t number,
                   std::initializer_list<std::uint64_t> arguments, std::string object = {});

  /// Places bytes into the script's data; returns their address in the process, 16-aligned.
  std::uint64_t put(std::span<const std::byte> bytes);
  std::uint64_t put_string(const std::string& text);
  template <class T>
  std::uint64_t put_value(const T& value) {
    return put(std::as_bytes(std::span(&value, 1)));
  }
  std::uint64_t reserve(std::size_t length_bytes);

  bool empty() const { return entries_.empty(); }
  /// Whether there is room for it. Only a script in a slot may have too many calls.
  bool fits() const;

  /// A page of the area that scripts do not use: the last one, of the record.
  std::uint64_t spare_page() const { return area_.address + area_.length_bytes - kPageBytes; }

  /// Keeps what others send of the signal that ends a script in `signals`, as siginfo_t bytes.
  /// Without this it is sent again when the script is over.
  void keep_signals(std::vector<std::string>& signals) { kept_signals_ = &signals; }

  /// Calls this for each thread that a clone call makes, before its maker goes on with the script.
  void at_birth(std::function<Result<void>(pid_t)> hook) { at_birth_ = std::move(hook); }

  /// Runs all calls on the stopped `thread`, and leaves it stopped with the registers `base` and
  /// the mask `signal_mask`. The calls run to the end whatever fails. Reports the first must() that
  /// failed. Threads born of clone calls are left for the caller in new_threads(), each with its
  /// first stop still to be awaited. A SIGSTOP that comes is sent again when the script is over. If
  /// the tracer dies meanwhile, the thread runs the script to its end and then goes on by itself
  /// with `base` and `signal_mask`.
  Result<void> run(pid_t thread, const arch::GeneralRegisters& base, std::uint64_t signal_mask);
  /// The same in two steps, for one that fits at once. After start() finish() must follow, whatever
  /// becomes of other scripts.
  Result<void> start(pid_t thread, const arch::GeneralRegisters& base, std::uint64_t signal_mask);
  Result<void> finish(pid_t thread, const arch::GeneralRegisters& base, std::uint64_t signal_mask);

  /// Only puts the script and the thread's registers into place, for who resumes it otherwise.
  Result<void> load(pid_t thread, const arch::GeneralRegisters& base, std::uint64_t signal_mask);

  std::int64_t result(std::size_t index) const { return entries_[index].result; }
  const std::vector<pid_t>& new_threads() const { return new_threads_; }

  /// Where the number of a call stands in the process, and where one of its arguments.
  std::uint64_t address_of(std::size_t index) const {
    return place_.entries() + index * sizeof(arch::ScriptEntry);
  }
  std::uint64_t address_of(std::size_t index, std::size_t argument) const {
    return address_of(index) + offsetof(arch::ScriptEntry, arguments) + argument * 8;
  }

  /// Data as the calls left it, at an address that put() or reserve() gave.
  std::span<const std::byte> data(std::uint64_t address, std::size_t length_bytes) const;
  template <class T>
  T value(std::uint64_t address) const {
    T value{};
    const auto bytes = data(address, sizeof(T));
    std::copy(bytes.begin(), bytes.end(), reinterpret_cast<std::byte*>(&value));
    return value;
  }

 private:
  struct Requirement {
    std::size_t index;
    const char* operation;
    std::string object;
  };

  Result<void> write(const arch::WayBack& back, std::size_t first, std::size_t count);
  Result<void> read(std::size_t first, std::size_t count);
  Result<void> load_part(pid_t thread, const arch::GeneralRegisters& base,
                         std::uint64_t signal_mask, std::size_t first, std::size_t count);
  Result<void> start_part(pid_t thread, const arch::GeneralRegisters& base,
                          std::uint64_t signal_mask, std::size_t first, std::size_t count);
  Result<void> finish_part(pid_t thread, const arch::GeneralRegisters& base,
                           std::uint64_t signal_mask);
  Result<void> check() const;
  Result<void> wait_for_end(pid_t thread);
  Result<void> give_back_signals(pid_t thread);
  Result<Stop> await_stop(pid_t thread) const;

  ScriptArea area_;
  ScriptPlace place_;
  std::vector<arch::ScriptEntry> entries_;
  std::vector<Requirement> requirements_;
  std::vector<std::byte> data_;
  std::vector<pid_t> new_threads_;
  std::vector<std::string> own_;    // signals that waited for the thread before the script
  std::vector<siginfo_t> foreign_;  // signals like that which ends a script, sent by someone else
  std::vector<std::string>* kept_signals_ = nullptr;
  std::function<Result<void>(pid_t)> at_birth_;
  bool job_stop_ = false;  // SIGSTOP came
};

}  // namespace migrate
