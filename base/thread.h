#pragma once

#include <csignal>
#include <system_error>
#include <thread>
#include <utility>

#include "base/crash_report.h"
#include "base/result.h"

namespace migrate {

/// Starts a thread that blocks all signals, which are for the process's first thread, but those
/// that report its own mistakes. Errors: kSystem (no more threads, no memory).
template <class Function>
Result<std::thread> start_thread(Function&& function) {
  sigset_t all;
  sigset_t before;
  sigfillset(&all);
  for (const int signal : kFatalSignals) {
    sigdelset(&all, signal);
  }
  ::pthread_sigmask(SIG_SETMASK, &all, &before);
  Result<std::thread> started;
  try {
    started = std::thread(std::forward<Function>(function));
  } catch (const std::system_error& error) {
    started = fail(system_error_from(error.code().value(), "start a thread", {},
                                     "raise the limit of threads (ulimit -u, pids.max)"));
  }
  ::pthread_sigmask(SIG_SETMASK, &before, nullptr);
  return started;
}

/// Runs `work` in such a thread and waits for it; what it does to its own namespaces ends with it.
/// Errors: those of the work, kSystem (no thread).
template <class Work>
Result<void> run_in_thread(Work&& work) {
  Result<void> done;
  MIGRATE_TRY(start_thread([&] { done = work(); })).join();
  return done;
}

}  // namespace migrate
