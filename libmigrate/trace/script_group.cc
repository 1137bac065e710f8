#include "libmigrate/trace/script_group.h"

#include <signal.h>
#include <sys/syscall.h>

#include <algorithm>
#include <cerrno>
#include <utility>
#include <vector>

#include "libmigrate/trace/tracee.h"

namespace migrate {
namespace {

using Build = std::function<Result<void>(std::size_t, Script&)>;
using Read = std::function<void(std::size_t, const Script&)>;

struct Started {
  std::size_t index;
  Script script;
};

// Those of `threads` from `first` to `end`, one in each slot. The others are added to `alone`.
Result<void> run_together(const ScriptArea& area, std::span<const ScriptThread> threads,
                          std::size_t first, std::size_t end, const Build& build, const Read& read,
                          std::vector<std::size_t>& alone) {
  std::vector<Started> started;
  Result<void> outcome;
  for (std::size_t i = first; i < end && outcome; ++i) {
    Script script(area, area.slot(i - first));
    outcome = build(i, script);
    if (outcome && !script.fits()) {
      alone.push_back(i);
    } else if (outcome) {
      const ScriptThread& thread = threads[i];
      outcome = script.start(thread.thread, thread.base, thread.signal_mask);
      if (outcome) {
        started.push_back({i, std::move(script)});
      }
    }
  }
  // The first thread of a process last: see wait_stop_of_first().
  for (auto at = started.rbegin(); at != started.rend(); ++at) {
    Started& one = *at;
    const ScriptThread& thread = threads[one.index];
    auto finished = one.script.finish(thread.thread, thread.base, thread.signal_mask);
    if (finished && read) {
      read(one.index, one.script);
    }
    if (!finished && outcome) {
      outcome = std::move(finished);
    }
  }
  return outcome;
}

Result<void> send_to_exit(const ScriptArea& area, const ScriptPlace& slot, pid_t thread) {
  Script script(area, slot);
  script.call(SYS_exit, {0});
  MIGRATE_TRY(script.load(thread, MIGRATE_TRY(arch::read_registers(thread)), kAllSignals));
  MIGRATE_TRY(write_signal_mask(thread, kAllSignals));
  return resume(thread);
}

// Whether a SIGSTOP came meanwhile, which no mask holds back.
Result<bool> await_exit(pid_t thread) {
  bool job_stop = false;
  for (;;) {
    const auto stop = wait_stop(thread);
    if (!stop && (stop.error().code == ErrorCode::kNotFound || stop.error().sys_errno == ECHILD)) {
      return job_stop;
    }
    job_stop = job_stop || (stop && stop->event == 0 && stop->signal == SIGSTOP);
    MIGRATE_TRY(stop ? resume(thread) : Result<void>(fail(stop.error())));
  }
}

}  // namespace

Result<void> end_threads(const ScriptArea& area, std::span<const pid_t> threads) {
  bool job_stop = false;
  for (std::size_t first = 0; first < threads.size(); first += ScriptArea::kSlots) {
    const auto some = threads.subspan(first, std::min(ScriptArea::kSlots, threads.size() - first));
    for (std::size_t i = 0; i < some.size(); ++i) {
      if (auto sent = send_to_exit(area, area.slot(i), some[i]);
          !sent && sent.error().code != ErrorCode::kNotFound) {
        return sent;
      }
    }
    for (const pid_t thread : some) {
      job_stop = MIGRATE_TRY(await_exit(thread)) || job_stop;
    }
  }
  if (job_stop) {
    send_stop_again(area.process);
  }
  return {};
}

Result<void> run_scripts(const ScriptArea& area, std::span<const ScriptThread> threads,
                         const Build& build, const Read& read) {
  std::vector<std::size_t> alone;
  for (std::size_t first = 0; first < threads.size(); first += ScriptArea::kSlots) {
    const std::size_t end = std::min(first + ScriptArea::kSlots, threads.size());
    MIGRATE_TRY(run_together(area, threads, first, end, build, read, alone));
  }
  for (const std::size_t i : alone) {
    Script script(area);
    MIGRATE_TRY(build(i, script));
    MIGRATE_TRY(script.run(threads[i].thread, threads[i].base, threads[i].signal_mask));
    if (read) {
      read(i, script);
    }
  }
  return {};
}

}  // namespace migrate
