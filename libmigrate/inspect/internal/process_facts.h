#pragma once

#include <map>
#include <string>
#include <utility>
#include <vector>

#include "base/result.h"
#include "libmigrate/inspect/internal/process_view.h"
#include "libmigrate/proc/thread_ids.h"

namespace migrate::inspect {

/// Threads of the process, leader first: id in this /proc, and innermost id; those in `known` are
/// not asked again. Errors: kNotFound if the process has ended.
Result<ThreadIds> read_threads(const ProcessView& view, const ThreadIds& known);

/// Fills name, scheduling, affinity, timer slack and credentials of each thread into `image`. With
/// a `draft`, credentials and slack of threads that it has come from there, except the leader's.
void read_thread_facts(const ProcessView& view, const ThreadIds& threads,
                       const wire::ProcessImage* draft, wire::ProcessImage& image,
                       Refusals& refusals);

/// Fills ids, umask and timers into `image`: of the process's facts those that are captured from
/// within the process, or needed for it. With the status text of `view`.
Result<void> read_process_facts(const ProcessView& view, const ThreadIds& threads,
                                wire::ProcessImage& image, Refusals& refusals);

/// Fills the other facts into `image`: working directory, memory map (without a `draft` with a
/// guess at the break, by the image's mappings), limits, auxiliary vector, personality, executable.
/// With a `draft`, the last three come from there, and the break stays unset. Looks at nothing that
/// read_process_facts() and read_thread_facts() change, and may run beside them.
Result<void> read_surroundings(const ProcessView& view, const wire::ProcessImage* draft,
                               wire::ProcessImage& image, Refusals& refusals);

/// Fills the control groups with their limits into `image`, as far as they are carried; the other
/// limits into `findings`.
void read_control_groups(const ProcessView& view, Findings& findings, wire::ProcessImage& image);

/// Namespaces of the calling process, by name in /proc/self/ns.
std::map<std::string, std::string> own_namespaces();

/// The rules about the process as a whole that are cheap: state, namespaces, root, seccomp.
/// `frozen`: our own tracer holds it, so being traced and stopped is no reason.
void check_process(const ProcessView& view, bool frozen, Refusals& refusals);

/// The rules about threads: what they do not share, and what of them is not carried.
void check_threads(const ProcessView& view, const ThreadIds& threads, bool frozen,
                   Refusals& refusals);

/// System V objects that the process made or uses.
void check_system_v(const ProcessView& view, Refusals& refusals);

}  // namespace migrate::inspect
