#pragma once

#include <sys/types.h>

#include "base/result.h"
#include "libmigrate/arch/arch.h"

namespace migrate {

/// A thread that was stopped inside a restartable sequence (rseq(2)) would be sent to the abort
/// handler of that when it goes on. What it runs for its tracer before makes the kernel forget
/// that: sends it there now. `registers` are those with which the stopped `thread` of `process` is
/// to go on. Thread: the tracer. Errors: kNotFound (it is gone), kSystem. Kernel: Linux 5.13
/// (PTRACE_GET_RSEQ_CONFIGURATION). Source: kernel/rseq.c, include/uapi/linux/rseq.h.
Result<void> leave_critical_section(pid_t process, pid_t thread, arch::GeneralRegisters& registers);

}  // namespace migrate
