#pragma once

#include <sys/types.h>

#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <set>
#include <string>
#include <utility>
#include <vector>

#include "base/assistant.h"
#include "base/result.h"
#include "libmigrate/inspect/state_table.h"
#include "libmigrate/proc/thread_ids.h"
#include "libmigrate/proto/image.pb.h"

namespace migrate {

/// What our own cell and deputy put into the process on an earlier move.
struct KnownObjects {
  std::map<std::uint64_t, std::uint64_t> relays;     ///< Inode of a relay's end to its stream id.
  std::map<std::uint64_t, std::uint64_t> terminals;  ///< The same of terminals, by st_rdev.
  /// The same of sockets that it has accepted from listeners that an earlier move gave it.
  std::function<std::optional<std::uint64_t>(std::uint64_t inode)> accepted_stream;
  std::set<std::string> own_namespaces;       ///< Links such as "pid:[4026531836]" of its cell.
  std::map<std::uint64_t, int> shared_files;  ///< OpenFile.shared_id to our own descriptor.
  bool own_userfaultfd = false;               ///< Mappings may be registered with our own pager,
  bool watches_writes = false;                ///< or those of the draft with our WriteTracker.
  /// The control groups of its home, while its text of /proc/PID/cgroup is still `group_places`.
  wire::ControlGroups home_groups;
  std::string group_places;
  /// Files open for reading only, up to this size, are hashed, so that a host that shares no file
  /// system can tell whether its own are the same. 0: none.
  std::uint64_t open_file_hash_limit_bytes = 0;
};

/// The draft of an image, and what is refused: movable if `refusals` is empty.
struct Inspection {
  wire::Image image;  ///< Of one process.
  std::vector<wire::Refusal> refusals;
};

/// Takes what an inspection takes the first time, some milliseconds, before anybody waits for it:
/// for this process and those that it forks.
void prepare_to_inspect();

/// Reads a process from outside through /proc and applies the rules to it: what they do not know to
/// be carried is refused. Never stops or changes the process. Root, in the process's PID namespace
/// or one above it. Move-only; owned by one thread at a time.
class ProcessInspector {
 public:
  /// Opens what it keeps of process `pid`, as numbered in this /proc.
  /// Errors: kNotFound (no such process, or a thread's id), kSystem. What has ended or is a kernel
  /// thread is no error here: its refusals say so.
  static Result<ProcessInspector> create(pid_t pid, KnownObjects known);

  ProcessInspector(ProcessInspector&& other) noexcept;
  ProcessInspector& operator=(ProcessInspector&& other) noexcept;
  ~ProcessInspector();

  /// Files, by their paths, of which the destination gets memory instead where they are mapped
  /// shared. For the inspections that follow.
  void carry_as_memory(std::set<std::string> files);

  /// What was mapped at the last inspection is watched for writes by us from now on: where it has
  /// grown since, that is no other pager's work.
  void note_watched();

  /// Everything that can be learned without stopping the process, and all refusals. The image lacks
  /// what only the process itself can tell (see capture_state). Blocks: hashes files without
  /// build-id, looks at all other processes, looks for guards in all page tables; also reads smaps
  /// and numa_maps where the kernel does not tell mappings' flags otherwise (MappingList). Errors:
  /// kNotFound if the process ended.
  Result<Inspection> inspect_running();

  /// What the tracer does with the facts about the process and its threads while its mappings and
  /// descriptors are still being read. It may map memory into the process.
  using Meanwhile = std::function<Result<void>(wire::ProcessImage& facts)>;

  /// The same for a process whose threads are all stopped by ptrace, after inspect_running(): reads
  /// mappings, descriptors and status again and takes the rest from `draft`, the image of the last
  /// inspection. The assistant reads half of it, while this thread goes on to `meanwhile`; that is
  /// left out where there are refusals already, and its errors are returned. Costs nothing that
  /// grows with memory unless there is a new anonymous mapping of a kind that is not known
  /// (MappingDetails), for which smaps is read.
  /// Runs the rules about what it reads again; those about the rest are check_frozen()'s.
  ///
  /// Not seen, because /proc does not show it cheaply: madvise() on a mapping that is in the draft,
  /// changed credentials of threads other than the first. Children that existed before the draft
  /// are found by the draft; those born since, by check_frozen(). Errors: kInvalid before
  /// inspect_running(), kNotFound if the process ended.
  Result<Inspection> inspect_frozen(const wire::Image& draft, Assistant& assistant,
                                    const Meanwhile& meanwhile);

  /// The rest of the rules for the frozen process, after inspect_frozen(): about the process as a
  /// whole, its relatives, and who else holds what it shares. The image does not depend on them, so
  /// that it can travel meanwhile; but they must have been asked before the process is committed.
  std::vector<wire::Refusal> check_frozen();

  /// What the process would lose by a move, after an inspection that gave `image`: as it is now,
  /// but for memory policies and what threads but the first have set, which are as of
  /// inspect_running(). Reads a few small files, while it runs two for each thread and some for
  /// each control group, and looks at each descriptor that is no regular file. `frozen`: after
  /// inspect_frozen(). Nothing of a process that is not there to be moved.
  std::vector<Loss> losses(const wire::Image& image, bool frozen);

  /// The threads of the last inspection.
  const ThreadIds& threads() const;

 private:
  Result<Inspection> read_facts(const wire::Image& draft);
  Result<Inspection> read_objects(const wire::Image& draft, const std::string& maps);

  struct State;
  explicit ProcessInspector(std::unique_ptr<State> state);

  std::unique_ptr<State> state_;
};

}  // namespace migrate
