#include "libmigrate/restore/restorer.h"

#include <fcntl.h>
#include <linux/rseq.h>
#include <linux/sched.h>
#include <sched.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/ptrace.h>
#include <sys/syscall.h>
#include <time.h>

#include <algorithm>
#include <array>
#include <map>
#include <span>
#include <string>
#include <utility>

#include "base/clock.h"
#include "base/file.h"
#include "base/owner_scope.h"
#include "libmigrate/capture/frozen_process.h"
#include "libmigrate/image/address_space.h"
#include "libmigrate/image/only_process.h"
#include "libmigrate/restore/descriptors.h"
#include "libmigrate/restore/process_state.h"
#include "libmigrate/trace/script_group.h"
#include "libmigrate/trace/tracee.h"

namespace migrate {
namespace {

constexpr std::size_t kMostNameBytes = 249;  // memfd_create(2)

constexpr std::uint64_t kThreadFlags =
    CLONE_VM | CLONE_FS | CLONE_FILES | CLONE_SIGHAND | CLONE_THREAD | CLONE_SYSVSEM;

constexpr std::uint64_t kDiscard = 24;  // MADV_DONTNEED_LOCKED, Linux 5.18

// The call that the kernel continues by a restart block, with another timeout.
void script_wait(Script& script, const arch::InterruptedCall& call, std::uint64_t timeout_ns) {
  std::array<std::uint64_t, 6> arguments{};
  std::copy(std::begin(call.arguments), std::end(call.arguments), arguments.begin());
  if (arch::is_poll(call.number)) {
    arguments[2] = (timeout_ns + kNanosecondsPerMillisecond - 1) / kNanosecondsPerMillisecond;
  } else {
    const std::uint64_t place = script.put_value(to_timespec(timeout_ns));
    arguments[call.number == SYS_nanosleep ? 0 : call.number == SYS_futex ? 3 : 2] = place;
  }
  script.call(call.number,
              {arguments[0], arguments[1], arguments[2], arguments[3], arguments[4], arguments[5]});
}

bool is_kernel_mapping(const std::string& name) {
  return name == "[vdso]" || name.starts_with("[vvar");
}

bool overlaps(std::uint64_t start, std::uint64_t end, std::uint64_t other_start,
              std::uint64_t other_end) {
  return start < other_end && other_start < end;
}

std::vector<PageRange> kernel_ranges(const std::vector<NamedRange>& mappings) {
  std::vector<PageRange> ranges;
  for (const NamedRange& mapping : mappings) {
    if (is_kernel_mapping(mapping.name)) {
      ranges.push_back(PageRange::between(mapping.start, mapping.end));
    }
  }
  return ranges;
}

// Where the image wants each of our kernel mappings; empty where it has none.
Result<std::vector<PageRange>> wanted_kernel_ranges(const wire::ProcessImage& image,
                                                    const std::vector<PageRange>& present) {
  std::vector<PageRange> wanted;
  for (const wire::Mapping& mapping : image.mappings()) {
    if (mapping.kind() == wire::Mapping::VDSO || mapping.kind() == wire::Mapping::VVAR) {
      wanted.push_back(PageRange::between(mapping.start(), mapping.end()));
    }
  }
  const bool same =
      wanted.size() == present.size() && std::equal(wanted.begin(), wanted.end(), present.begin(),
                                                    [](const PageRange& a, const PageRange& b) {
                                                      return a.page_count == b.page_count;
                                                    });
  if (!wanted.empty() && !same) {
    return fail(make_error(ErrorCode::kRefused, "place the vDSO", "of another size",
                           "move between hosts with the same kernel"));
  }
  return wanted;
}

/// What stands for an executable that this host does not have: a memory file of its name, without
/// content, which it keeps, whoever opens it. The kernel takes no file for it that anybody has open
/// for writing.
Result<UniqueFd> make_executable(const wire::ProcessImage& image) {
  constexpr std::string_view kDeleted = " (deleted)";  // as the kernel shows such a file
  const std::string& path = image.executable().path();
  std::string name = path.substr(path.find_last_of("/:") + 1);
  if (name.ends_with(kDeleted)) {
    name.resize(name.size() - kDeleted.size());
  }
  name.resize(std::min(name.size(), kMostNameBytes));
  const wire::Credentials& owner = image.threads(0).credentials();
  const OwnerScope as_owner(owner.uid_filesystem(), owner.gid_filesystem());
  const UniqueFd file(::memfd_create(name.c_str(), MFD_CLOEXEC | MFD_ALLOW_SEALING));
  if (!file.valid() || ::fcntl(file.get(), F_ADD_SEALS,
                               F_SEAL_SEAL | F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_WRITE) != 0) {
    return fail(system_error("make a memory file", name));
  }
  return open_file("/proc/self/fd/" + std::to_string(file.get()), O_RDONLY | O_CLOEXEC);
}

}  // namespace

Result<Restorer> Restorer::create(Cell& cell, bool trusted) {
  Restorer restorer(cell, trusted);
  const pid_t seed = cell.seed();
  MIGRATE_TRY(seize_for_life(seed));
  MIGRATE_TRY(interrupt(seed));
  const Stop stop = MIGRATE_TRY(wait_stop(seed));
  if (stop.event != PTRACE_EVENT_STOP) {
    return fail(make_error(ErrorCode::kSystem, "stop the seed of a cell"));
  }
  restorer.base_ = MIGRATE_TRY(arch::read_registers(seed));
  restorer.threads_.push_back({.id = cell.process_id(), .host_id = seed});
  return restorer;
}

Result<void> Restorer::prepare(const wire::Image& draft) {
  const wire::ProcessImage& process = only_process(draft);
  own_ = MIGRATE_TRY(own_credentials());
  file_user_ = FileUser(process.threads(0).credentials(), trusted_);
  MIGRATE_TRY(map_area(process));
  MIGRATE_TRY(empty_seed(process));
  memories_ = MIGRATE_TRY(make_shared_memories(draft.objects()));
  MappingPlan everything;
  for (const wire::Mapping& mapping : process.mappings()) {
    if (mapping.kind() != wire::Mapping::VDSO && mapping.kind() != wire::Mapping::VVAR) {
      everything.map.push_back(&mapping);
    }
  }
  MIGRATE_TRY(take_on(process));
  MIGRATE_TRY(map(draft, everything));
  limits_ = MIGRATE_TRY(read_limits(cell_->seed()));
  draft_ = draft;
  return match_threads(process);
}

// Finds a place that neither the seed nor the image uses, and maps the script area there.
Result<void> Restorer::map_area(const wire::ProcessImage& image) {
  const pid_t seed = cell_->seed();
  std::vector<NamedRange> taken = MIGRATE_TRY(read_mappings(seed));
  for (const NamedRange& range : taken) {
    if (range.name == "[vdso]") {
      system_call_ = MIGRATE_TRY(find_system_call_in(seed, range.start, range.end));
    }
  }
  const std::vector<NamedRange> wanted = ranges_of(image);
  taken.insert(taken.end(), wanted.begin(), wanted.end());
  const std::uint64_t place = MIGRATE_TRY(find_hole(taken, ScriptArea::kRecordOffset));
  area_ = MIGRATE_TRY(map_script_area(seed, seed, base_, system_call_, place, 0));
  return {};
}

Result<void> Restorer::empty_seed(const wire::ProcessImage& draft) {
  const pid_t seed = cell_->seed();
  const std::vector<NamedRange> mappings = MIGRATE_TRY(read_mappings(seed));
  const std::vector<PageRange> present = kernel_ranges(mappings);
  const std::vector<PageRange> wanted = MIGRATE_TRY(wanted_kernel_ranges(draft, present));
  Script script(area_);
  const RseqConfiguration rseq = MIGRATE_TRY(read_rseq(seed));
  if (rseq.address != 0) {
    script.must("unregister rseq", SYS_rseq,
                {rseq.address, rseq.length, RSEQ_FLAG_UNREGISTER, rseq.signature});
  }
  script.call(SYS_set_robust_list, {0, 24});
  script.call(SYS_set_tid_address, {0});
  for (const NamedRange& mapping : mappings) {
    const bool ours =
        overlaps(mapping.start, mapping.end, area_.address, area_.address + area_.length_bytes);
    if (!ours && !(is_kernel_mapping(mapping.name) && !wanted.empty())) {
      script.must("unmap", SYS_munmap, {mapping.start, mapping.end - mapping.start}, mapping.name);
    }
  }
  if (!wanted.empty() && !(wanted == present)) {
    std::vector<NamedRange> taken = mappings;
    const std::vector<NamedRange> image_ranges = ranges_of(draft);
    taken.insert(taken.end(), image_ranges.begin(), image_ranges.end());
    const std::uint64_t length = present.back().end() - present.front().start;
    script_vdso(script, present, wanted, MIGRATE_TRY(find_hole(taken, length)));
  }
  // The seed was stopped anywhere after it had sent its userfaultfd, perhaps before it closed it.
  script.must("close", SYS_close_range, {0, cell_->seed_descriptor() - 1, 0});
  MIGRATE_TRY(script.run(seed, base_, kScriptSignalMask));
  for (const wire::Mapping& mapping : draft.mappings()) {
    if (mapping.kind() == wire::Mapping::VDSO) {
      system_call_ = MIGRATE_TRY(find_system_call_in(seed, mapping.start(), mapping.end()));
    }
  }
  return {};
}

// What the draft tells of the process as a whole. Its files are opened here and sent to it: what a
// path leads to must be looked at before it is used.
Result<void> Restorer::take_on(const wire::ProcessImage& draft) {
  UniqueFd executable;
  UniqueFd directory;
  {
    FileUser::Scope as_user(file_user_);
    executable = draft.without_executable()
                     ? UniqueFd()
                     : MIGRATE_TRY(as_user.open(draft.executable(), O_RDONLY));
    directory = MIGRATE_TRY(as_user.open_directory(draft.working_directory()));
  }
  if (draft.without_executable()) {
    executable = MIGRATE_TRY(make_executable(draft));
  }
  Script script(area_);
  const std::array<int, 2> descriptors{executable.get(), directory.get()};
  MIGRATE_TRY(script_receive(script, *cell_, descriptors));
  script_draft_process(script, draft, 0, 1);
  script.must("close", SYS_close_range, {0, descriptors.size() - 1, 0});
  return script.run(cell_->seed(), base_, kScriptSignalMask);
}

Result<void> Restorer::map(const wire::Image& image, const MappingPlan& plan) {
  Script script(area_);
  for (const PageRange& range : plan.unmap) {
    script.must("unmap", SYS_munmap, {range.start, range.bytes()});
  }
  if (!script.empty()) {
    MIGRATE_TRY(script.run(cell_->seed(), base_, kScriptSignalMask));
  }
  for (std::span<const wire::Mapping* const> left(plan.map); !left.empty();) {
    left = left.subspan(MIGRATE_TRY(map_some(image, left)));
  }
  if (!plan.map.empty() || !plan.unmap.empty()) {
    mapped_.CopyFrom(image);
  }
  return {};
}

// As many of them as need no more than so many files: the descriptors of the seed are few. Returns
// how many that were.
Result<std::size_t> Restorer::map_some(const wire::Image& image,
                                       std::span<const wire::Mapping* const> mappings) {
  constexpr std::size_t kFilesAtOnce = 32;
  std::map<MappedFile, std::uint64_t> files;
  std::vector<UniqueFd> opened;
  std::vector<int> descriptors;
  const bool shared = std::any_of(mappings.begin(), mappings.end(), [](const auto* mapping) {
    return mapping->kind() == wire::Mapping::SHARED_MEMORY;
  });
  for (const UniqueFd& memory : memories_) {
    if (shared) {
      descriptors.push_back(memory.get());
    }
  }
  std::size_t count = 0;
  {
    FileUser::Scope as_user(file_user_);
    for (; count < mappings.size() && files.size() < kFilesAtOnce; ++count) {
      const auto file = mapped_file(image.objects(), *mappings[count]);
      if (!file || file->is_memory || files.contains(*file)) {
        continue;
      }
      files.emplace(*file, descriptors.size());
      opened.push_back(
          MIGRATE_TRY(as_user.open(image.objects().mapped_files(static_cast<int>(file->index)),
                                   file->writable ? O_RDWR : O_RDONLY)));
      descriptors.push_back(opened.back().get());
    }
  }
  for (const wire::Mapping* mapping : mappings.first(count)) {
    const auto file = mapped_file(image.objects(), *mapping);
    if (file && file->is_memory && files.try_emplace(*file, descriptors.size()).second) {
      opened.push_back(MIGRATE_TRY(
          open_file("/proc/self/fd/" + std::to_string(memories_.at(file->index).get()), O_RDONLY)));
      descriptors.push_back(opened.back().get());
    }
  }
  Script script(area_);
  MIGRATE_TRY(script_receive(script, *cell_, descriptors));
  script_mappings(script, image.objects(), mappings.first(count), files);
  if (!descriptors.empty()) {
    script.must("close", SYS_close_range, {0, descriptors.size() - 1, 0});
  }
  MIGRATE_TRY(script.run(cell_->seed(), base_, kScriptSignalMask));
  return count;
}

Result<void> Restorer::adapt(const wire::Image& image, const MappingPlan& plan) {
  const wire::ProcessImage& process = only_process(image);
  MIGRATE_TRY(finish_shared_memories(image.objects(), memories_));
  const bool in_the_way = std::any_of(
      process.mappings().begin(), process.mappings().end(), [&](const wire::Mapping& mapping) {
        return overlaps(mapping.start(), mapping.end(), area_.address,
                        area_.address + area_.length_bytes);
      });
  if (in_the_way) {
    const ScriptArea old = area_;
    MIGRATE_TRY(map_area(process));
    MIGRATE_TRY(unmap_script_area(old, cell_->seed(), base_, system_call_));
  }
  return map(image, plan);
}

Result<void> Restorer::discard(const PageSet& pages) {
  Script script(area_);
  for (const PageRange& range : pages) {
    script.must("take away a page", SYS_madvise, {range.start, range.bytes(), kDiscard});
  }
  return script.empty() ? Result<void>() : script.run(cell_->seed(), base_, kScriptSignalMask);
}

Result<void> Restorer::finish(const wire::Image& image,
                              const std::map<std::uint64_t, int>& relays) {
  const wire::ProcessImage& process = only_process(image);
  stamp_shared_memories(image.objects(), memories_);
  MIGRATE_TRY(match_threads(process));
  for (const RestoredThread& thread : threads_) {
    run_first(thread.host_id, process);
  }
  for (std::size_t i = 0; i < threads_.size(); ++i) {
    process.threads(static_cast<int>(i))
        .general_registers()
        .copy(reinterpret_cast<char*>(&threads_[i].registers), sizeof(threads_[i].registers));
  }
  std::vector<ScriptThread> others;
  for (std::size_t i = 1; i < threads_.size(); ++i) {
    others.push_back({threads_[i].host_id, base_, kScriptSignalMask});
  }
  MIGRATE_TRY(run_scripts(area_, others, [&](std::size_t i, Script& script) -> Result<void> {
    script_thread(script, process, process.threads(static_cast<int>(i + 1)), own_);
    return {};
  }));
  // Last: its timers may name any thread.
  MIGRATE_TRY(make_leader(image, relays));
  set_scores(cell_->seed(), process, limits_, trusted_);
  MIGRATE_TRY(sleep_on(process));
  if (system_call_ != 0) {
    MIGRATE_TRY(unmap_script_area(area_, cell_->seed(), base_, system_call_));
    MIGRATE_TRY(show_to_user(process));
  }
  return set_registers(process);
}

// From here on its user can write into its memory (PR_SET_DUMPABLE): so this is the last call that
// is made in it. Not by a script, which he would rewrite. Until then it is like any program that
// has changed its ids: nobody's but root's to look into.
Result<void> Restorer::show_to_user(const wire::ProcessImage& image) {
  if (image.dumpable() != 1) {
    return {};  // It is shown to nobody already.
  }
  const std::int64_t result = MIGRATE_TRY(
      call_once(cell_->seed(), base_, system_call_, SYS_prctl, {PR_SET_DUMPABLE, 1, 0, 0, 0, 0}));
  return result == 0 ? Result<void>()
                     : fail(system_error_from(static_cast<int>(-result), "set dumpable"));
}

// What all threads share, and what is the first thread's own.
Result<void> Restorer::make_leader(const wire::Image& image,
                                   const std::map<std::uint64_t, int>& relays) {
  const wire::ProcessImage& process = only_process(image);
  const FileUser user(process.threads(0).credentials(), trusted_);
  std::vector<UniqueFd> files = MIGRATE_TRY(make_open_files(
      image.objects(), relays, memories_, MIGRATE_TRY(make_by_itself(image)), user, cell_->seed()));
  std::vector<int> descriptors;
  descriptors.reserve(files.size());
  for (const UniqueFd& file : files) {
    descriptors.push_back(file.get());
  }
  Script script(area_);
  script_process(script, process);
  script_guards(script, process);
  if (process.working_directory() != only_process(draft_).working_directory()) {
    const UniqueFd directory =
        MIGRATE_TRY(FileUser::Scope(file_user_).open_directory(process.working_directory()));
    const int fd = directory.get();
    MIGRATE_TRY(script_receive(script, *cell_, std::span(&fd, 1)));
    script_enter(script, 0);
    script.must("close", SYS_close, {0});
  }
  MIGRATE_TRY(script_receive(script, *cell_, descriptors));
  script_descriptor_table(script, image.objects(), process, cell_->seed_descriptor());
  script_timers_and_signals(script, process, own_);
  script_limits(script, process, limits_);
  script_thread(script, process, process.threads(0), own_);
  MIGRATE_TRY(script.run(cell_->seed(), base_, kScriptSignalMask));
  for (std::size_t i = 0; i < files.size(); ++i) {
    if (const auto id = image.objects().files(static_cast<int>(i)).shared_id(); id != 0) {
      shared_files_.emplace(id, std::move(files[i]));
    }
  }
  return {};
}

// In the process, whose descriptors other than the seed's come later.
Result<SelfMade> Restorer::make_by_itself(const wire::Image& image) {
  const wire::Objects& objects = image.objects();
  if (!SelfMaking::is_needed(objects)) {
    SelfMade nothing;
    nothing.files.resize(static_cast<std::size_t>(objects.files_size()));
    return nothing;
  }
  Script script(area_);
  const SelfMaking making(script, objects, only_process(image).threads(0).credentials(), own_);
  MIGRATE_TRY(script.run(cell_->seed(), base_, kScriptSignalMask));
  auto made = MIGRATE_TRY(making.fetch(script, cell_->seed()));
  Script close(area_);
  close.must("close", SYS_close_range, {0, cell_->seed_descriptor() - 1, 0});
  MIGRATE_TRY(close.run(cell_->seed(), base_, kScriptSignalMask));
  return made;
}

// Makes the threads those of the image, in its order: most are the draft's.
Result<void> Restorer::match_threads(const wire::ProcessImage& image) {
  std::map<std::uint32_t, RestoredThread> present;
  for (const RestoredThread& thread : threads_) {
    present.emplace(thread.id, thread);
  }
  Script script(area_);
  std::vector<std::uint32_t> added;
  for (const wire::Thread& wanted : image.threads()) {
    if (present.contains(wanted.id())) {
      continue;
    }
    clone_args arguments{};
    arguments.flags = kThreadFlags;
    arguments.set_tid = script.put_value(static_cast<pid_t>(wanted.id()));
    arguments.set_tid_size = 1;
    script.must("make a thread", SYS_clone3, {script.put_value(arguments), sizeof(arguments)},
                "thread " + std::to_string(wanted.id()));
    added.push_back(wanted.id());
  }
  if (!added.empty()) {
    MIGRATE_TRY(script.run(cell_->seed(), base_, kScriptSignalMask));
  }
  for (std::size_t i = 0; i < added.size(); ++i) {
    const pid_t thread = script.new_threads().at(i);
    const Stop stop = MIGRATE_TRY(wait_stop(thread));
    if (stop.event != PTRACE_EVENT_STOP) {
      return fail(make_error(ErrorCode::kSystem, "stop a new thread"));
    }
    present.emplace(added[i], RestoredThread{.id = added[i], .host_id = thread, .age = traced_++});
  }
  threads_.clear();
  for (const wire::Thread& wanted : image.threads()) {
    threads_.push_back(present.at(wanted.id()));
    present.erase(wanted.id());
  }
  std::vector<pid_t> gone;  // Those of the draft that have ended at the source since.
  gone.reserve(present.size());
  for (const auto& [id, thread] : present) {
    gone.push_back(thread.host_id);
  }
  return end_threads(area_, gone);
}

// Starts what remains of interrupted waits and interrupts them again, so that the kernel holds in
// their threads how to continue them. As many at once as there are slots for their calls, the first
// thread last.
Result<void> Restorer::sleep_on(const wire::ProcessImage& image) {
  std::vector<Sleeper> sleepers;
  for (std::size_t left = threads_.size(); left > 0; --left) {
    RestoredThread& waiting = threads_[left - 1];
    const wire::Thread& thread = image.threads(static_cast<int>(left - 1));
    const arch::InterruptedCall call = arch::interrupted_call(waiting.registers);
    if (thread.wait_remaining_ns() == 0 || !call.restart_block) {
      continue;
    }
    if (sleepers.size() == ScriptArea::kSlots) {
      MIGRATE_TRY(interrupt_sleepers(sleepers));
      sleepers.clear();
    }
    Script script(area_, area_.slot(sleepers.size()));
    script_wait(script, call, thread.wait_remaining_ns());
    MIGRATE_TRY(script.load(waiting.host_id, base_, kAllSignals));
    MIGRATE_TRY(write_signal_mask(waiting.host_id, kAllSignals));  // Those pending would end it.
    MIGRATE_TRY(resume_to_call(waiting.host_id));
    sleepers.push_back({&waiting, call.number});
  }
  return interrupt_sleepers(sleepers);
}

// Interrupted at the call's entry, hence in it: an interrupt at any other time may come before it.
// It stops the thread when the call has returned, also one whose time was over at once.
Result<void> Restorer::interrupt_sleepers(const std::vector<Sleeper>& sleepers) {
  bool job_stop = false;
  for (const Sleeper& sleeper : sleepers) {
    const pid_t thread = sleeper.thread->host_id;
    for (;;) {
      const Stop stop = MIGRATE_TRY(await_stop(thread));
      if (stop.event == 0 && stop.signal == SIGTRAP) {
        break;
      }
      job_stop = job_stop || (stop.event == 0 && stop.signal == SIGSTOP);
      MIGRATE_TRY(resume_to_call(thread));
    }
  }
  for (const Sleeper& sleeper : sleepers) {
    MIGRATE_TRY(interrupt(sleeper.thread->host_id));
    MIGRATE_TRY(resume(sleeper.thread->host_id));
  }
  for (const Sleeper& sleeper : sleepers) {
    const pid_t thread = sleeper.thread->host_id;
    for (;;) {
      const Stop stop = MIGRATE_TRY(await_stop(thread));
      if (stop.event == PTRACE_EVENT_STOP) {
        break;
      }
      job_stop = job_stop || (stop.event == 0 && stop.signal == SIGSTOP);
      MIGRATE_TRY(resume_to_interrupt(thread));
    }
    const auto registers = MIGRATE_TRY(arch::read_registers(thread));
    if (!arch::can_continue(registers, sleeper.call)) {
      arch::complete_call(sleeper.thread->registers, arch::result_of(registers));
    }
  }
  if (job_stop) {
    send_stop_again(cell_->seed());
  }
  return {};
}

Result<Stop> Restorer::await_stop(pid_t thread) const {
  return thread == cell_->seed() ? wait_stop_of_first(thread) : wait_stop(thread);
}

Result<void> Restorer::set_registers(const wire::ProcessImage& image) {
  for (std::size_t i = 0; i < threads_.size(); ++i) {
    const wire::Thread& wanted = image.threads(static_cast<int>(i));
    MIGRATE_TRY(arch::write_extended_state(threads_[i].host_id, wanted.extended_state()));
    MIGRATE_TRY(arch::write_registers(threads_[i].host_id, threads_[i].registers));
    MIGRATE_TRY(write_signal_mask(threads_[i].host_id, wanted.signal_mask()));
    MIGRATE_TRY(set_scheduling(threads_[i].host_id, wanted, limits_));
  }
  return {};
}

std::vector<pid_t> Restorer::host_threads() const {
  std::vector<pid_t> threads;
  for (const RestoredThread& thread : threads_) {
    threads.push_back(thread.host_id);
  }
  return threads;
}

Result<void> Restorer::release() {
  // When a tracer dies the kernel lets its threads go one by one, the newest first, and kills the
  // whole process at the first one that is to die with it. So the newest is released last: whenever
  // we die, none has run, or all may.
  std::vector<RestoredThread> oldest_first = threads_;
  std::sort(oldest_first.begin(), oldest_first.end(),
            [](const auto& a, const auto& b) { return a.age < b.age; });
  for (const RestoredThread& thread : oldest_first) {
    MIGRATE_TRY(keep_running(thread.host_id));
  }
  return {};
}

Result<void> Restorer::run() {
  for (const RestoredThread& thread : threads_) {
    MIGRATE_TRY(detach(thread.host_id));
  }
  return {};
}

}  // namespace migrate
