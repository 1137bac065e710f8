#pragma once

#include <sys/types.h>

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "base/result.h"
#include "libmigrate/arch/arch.h"
#include "libmigrate/proc/thread_ids.h"
#include "libmigrate/trace/script.h"

namespace migrate {

/// One stopped thread with what was in its registers.
struct FrozenThread {
  pid_t host_id = 0;     ///< As this host sees it.
  std::uint32_t id = 0;  ///< As the process itself sees it.
  arch::GeneralRegisters registers{};
  std::uint64_t signal_mask = 0;
  bool stopped = false;  ///< Else it was only asked to stop.
};

/// A process all of whose threads we hold stopped, able to run scripts once it has an area.
/// Destroying it without park() or thaw() thaws it: the process goes on as if nothing had been.
/// Owned by the thread that froze it (ptrace is bound to that thread).
class FrozenProcess {
 public:
  /// Stops every thread of `process`. `system_call` is the address of a system call instruction in
  /// it (in its vDSO). `known`: threads whose ids need not be looked up. `starts`: it is to run
  /// elsewhere or nowhere. It may be in a job control stop, which is over then, and begins anew if
  /// it is thawed (a SIGCONT is left pending); until it is thawed or parked, it ends if its tracer
  /// does. Errors: kRefused (in such a stop, but not `starts`), kNotFound, kSystem; the process
  /// runs on, or is stopped as before.
  static Result<FrozenProcess> freeze(pid_t process, std::uint64_t system_call,
                                      const ThreadIds& known, bool starts = false);

  FrozenProcess(FrozenProcess&& other) noexcept;
  FrozenProcess& operator=(FrozenProcess&& other) = delete;
  FrozenProcess(const FrozenProcess&) = delete;
  ~FrozenProcess();

  pid_t process() const { return process_; }
  /// As of freeze().
  bool starts() const { return starts_; }
  /// The leader first.
  const std::vector<FrozenThread>& threads() const { return threads_; }
  const FrozenThread& leader() const { return threads_.front(); }
  /// Their ids on this host, in the same order.
  std::vector<pid_t> host_ids() const;

  /// Maps the script area (after whatever reads the list of mappings). Errors: kRetry (it runs
  /// another program than the one that `system_call` was found in), kSystem.
  Result<void> open_area(std::uint64_t record_bytes);
  /// Takes it away again; thaw() does, too.
  Result<void> close_area();
  const ScriptArea& area() const { return *area_; }
  std::uint64_t system_call() const { return system_call_; }

  /// Takes the area away, puts everything back and lets the process run.
  Result<void> thaw();
  /// Leaves the process stopped and traced: from now on the caller decides.
  void release() { held_ = false; }
  /// Neither parked, thawed nor released.
  bool is_held() const { return held_; }

 private:
  FrozenProcess(pid_t process, std::uint64_t system_call, bool starts)
      : process_(process), system_call_(system_call), starts_(starts) {}

  Result<void> stop_all();
  Result<Stop> await_stop(pid_t thread) const;
  Result<bool> stop_one(pid_t thread);
  FrozenThread& find(pid_t thread);
  Result<void> read_state(const ThreadIds& known);
  Result<void> put_back();

  pid_t process_;
  std::uint64_t system_call_;
  bool starts_;
  bool was_in_stop_ = false;
  bool held_ = true;
  std::vector<FrozenThread> threads_;
  std::optional<ScriptArea> area_;
};

/// Address of a system call instruction in the vDSO of `process`, which is mapped at `start`.
Result<std::uint64_t> find_system_call_in(pid_t process, std::uint64_t start, std::uint64_t end);

}  // namespace migrate
