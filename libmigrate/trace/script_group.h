#pragma once

#include <sys/types.h>

#include <cstddef>
#include <cstdint>
#include <functional>
#include <span>

#include "base/result.h"
#include "libmigrate/arch/arch.h"
#include "libmigrate/trace/script.h"

namespace migrate {

/// A stopped thread, and what a script leaves it with.
struct ScriptThread {
  pid_t thread = 0;
  arch::GeneralRegisters base{};
  std::uint64_t signal_mask = 0;
};

/// Runs a script in each of several stopped threads of one process, as many at once as `area` has
/// slots: most of the time of a short script goes into waking its thread and being woken by it.
/// `build(i, script)` makes that of `threads[i]`, twice if it is too long for a slot: it runs alone
/// then, after the others. `read(i, script)` looks at the results of one that succeeded.
/// Each thread is left as by Script::run(), whatever becomes of others; after an error, the first
/// of which is reported, no more are started. Thread: the tracer.
Result<void> run_scripts(const ScriptArea& area, std::span<const ScriptThread> threads,
                         const std::function<Result<void>(std::size_t, Script&)>& build,
                         const std::function<void(std::size_t, const Script&)>& read = nullptr);

/// Ends stopped threads of one process, none of which is its first, by exit(2), all signals
/// blocked. One that has ended already is no error. Thread: the tracer.
Result<void> end_threads(const ScriptArea& area, std::span<const pid_t> threads);

}  // namespace migrate
