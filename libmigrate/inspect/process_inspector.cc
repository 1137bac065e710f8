#include "libmigrate/inspect/process_inspector.h"

#include <fcntl.h>
#include <fmt/core.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <utility>

#include "base/clock.h"
#include "libmigrate/image/only_process.h"
#include "libmigrate/inspect/internal/descriptors.h"
#include "libmigrate/inspect/internal/losses.h"
#include "libmigrate/inspect/internal/mapping_details.h"
#include "libmigrate/inspect/internal/mappings.h"
#include "libmigrate/inspect/internal/outsiders.h"
#include "libmigrate/inspect/internal/process_facts.h"
#include "libmigrate/inspect/internal/process_view.h"
#include "libmigrate/inspect/internal/shared_files.h"
#include "libmigrate/proc/proc_text.h"

namespace migrate {

using inspect::Findings;
using inspect::ProcessView;
using inspect::SharedObjects;

struct ProcessInspector::State {
  ProcessView view;
  Findings findings;
  ThreadIds threads;
  SharedObjects shared;  // of the last inspection
  bool inspected = false;
};

namespace {

// Whose page tables take longer to walk than it takes to ask the kernel otherwise.
constexpr std::uint64_t kMuchMemoryKib = std::uint64_t{64} << 10U;

Result<UniqueFd> open_in(const ProcessView& view, const char* name, int flags) {
  const int fd = ::openat(view.directory.get(), name, flags | O_CLOEXEC);
  if (fd < 0) {
    return fail(system_error("open", fmt::format("/proc/{}/{}", view.pid, name)));
  }
  return UniqueFd(fd);
}

// Those bound to the program that runs now: they show nothing any more after an exec.
Result<void> open_memory_files(ProcessView& view) {
  view.maps = MIGRATE_TRY(open_in(view, "maps", O_RDONLY));
  view.pagemap = MIGRATE_TRY(open_in(view, "pagemap", O_RDONLY));
  return {};
}

// A process of which there is nothing to inspect: all that is said of it is this one refusal.
std::optional<wire::Refusal> unmovable(const ProcessView& view, std::string_view status) {
  const std::string who = inspect::describe_process(view.pid);
  const std::string_view state = find_field(status, "State:").value_or(std::string_view());
  if (state.starts_with('Z') || state.starts_with('X')) {
    return make_refusal("ZOMBIE", who);
  }
  if (!find_field(status, "VmSize:")) {  // An ending process has given its memory back already.
    constexpr std::uint64_t kKernelThreads = 2;  // kthreadd, the parent of all others.
    const bool of_kernel =
        view.pid == kKernelThreads || number_field(status, "PPid:") == kKernelThreads;
    return make_refusal(of_kernel ? "KERNEL_THREAD" : "ZOMBIE", who);
  }
  return std::nullopt;
}

// The maps that were opened are those of a program that is no more.
Error another_program(const char* operation, pid_t pid) {
  return make_error(ErrorCode::kRetry, operation, fmt::format("pid {}", pid),
                    "it has ended, or runs another program now (execve): try again");
}

}  // namespace

void prepare_to_inspect() {
  inspect::learn_mapping_details();
}

ProcessInspector::ProcessInspector(std::unique_ptr<State> state) : state_(std::move(state)) {}
ProcessInspector::ProcessInspector(ProcessInspector&& other) noexcept = default;
ProcessInspector& ProcessInspector::operator=(ProcessInspector&& other) noexcept = default;
ProcessInspector::~ProcessInspector() = default;

Result<ProcessInspector> ProcessInspector::create(pid_t pid, KnownObjects known) {
  auto state = std::make_unique<State>();
  ProcessView& view = state->view;
  view.pid = pid;
  view.known = std::move(known);
  const std::string path = fmt::format("/proc/{}", pid);
  const int directory = ::open(path.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC);
  if (directory < 0) {
    return fail(system_error("inspect", fmt::format("pid {}", pid), "check the process id"));
  }
  view.directory.reset(directory);
  view.status = MIGRATE_TRY(open_in(view, "status", O_RDONLY));
  const std::string status = MIGRATE_TRY(reread(view.status.get(), "/proc/PID/status"));
  if (number_field(status, "Tgid:") != static_cast<std::uint64_t>(pid)) {
    return fail(make_error(
        ErrorCode::kNotFound, "inspect", fmt::format("pid {}", pid),
        fmt::format("it is a thread of process {}; name that", number_field(status, "Tgid:"))));
  }
  view.inner_pid = static_cast<std::uint32_t>(last_number_field(status, "NSpid:"));
  if (unmovable(view, status)) {
    return ProcessInspector(std::move(state));
  }
  const int pidfd = static_cast<int>(::syscall(SYS_pidfd_open, pid, 0));
  if (pidfd < 0) {
    return fail(system_error("open a pidfd of", fmt::format("pid {}", pid)));
  }
  view.pidfd.reset(pidfd);
  view.root = MIGRATE_TRY(open_in(view, "root", O_PATH | O_DIRECTORY));
  view.tasks = MIGRATE_TRY(open_in(view, "task", O_RDONLY | O_DIRECTORY));
  view.descriptors = MIGRATE_TRY(open_in(view, "fd", O_RDONLY | O_DIRECTORY));
  view.details = MIGRATE_TRY(open_in(view, "fdinfo", O_RDONLY | O_DIRECTORY));
  view.own_namespaces = inspect::own_namespaces();
  view.load.reset(::open("/proc/loadavg", O_RDONLY | O_CLOEXEC));
  MIGRATE_TRY(open_memory_files(view));
  return ProcessInspector(std::move(state));
}

void ProcessInspector::note_watched() {
  state_->view.known.watches_writes = true;
}

void ProcessInspector::carry_as_memory(std::set<std::string> files) {
  state_->view.files_as_memory = std::move(files);
}

Result<Inspection> ProcessInspector::inspect_running() {
  ProcessView& view = state_->view;
  Inspection inspection;
  Refusals& refusals = inspection.refusals;
  wire::Objects& objects = *inspection.image.mutable_objects();
  wire::ProcessImage& image = mutable_only_process(inspection.image);
  view.status_text = MIGRATE_TRY(reread(view.status.get(), "/proc/PID/status"));
  if (auto refusal = unmovable(view, view.status_text)) {
    refusals.push_back(std::move(*refusal));
    return inspection;
  }
  MIGRATE_TRY(open_memory_files(view));
  if (!view.list && number_field(view.status_text, "VmRSS:") > kMuchMemoryKib) {
    if (auto list = MappingList::create()) {
      view.list.emplace(std::move(*list));
    }
  }
  Findings findings;
  findings.streams = std::move(state_->findings.streams);
  // Before the relatives are looked at, so that none born meanwhile is missed later.
  findings.newest_pid_us = now_us();
  findings.newest_pid = inspect::newest_pid(view);
  state_->threads = MIGRATE_TRY(inspect::read_threads(view, {}));
  SharedObjects shared;
  MIGRATE_TRY(inspect::MappingReader(view, findings, shared, objects, image, refusals).read_all());
  MIGRATE_TRY(
      inspect::DescriptorReader(view, findings, shared, objects, image, refusals).read(nullptr));
  MIGRATE_TRY(inspect::read_process_facts(view, state_->threads, image, refusals));
  MIGRATE_TRY(inspect::read_surroundings(view, nullptr, image, refusals));
  inspect::read_thread_facts(view, state_->threads, nullptr, image, refusals);
  inspect::read_control_groups(view, findings, image);
  inspect::check_process(view, false, refusals);
  inspect::check_threads(view, state_->threads, false, refusals);
  inspect::check_system_v(view, refusals);
  inspect::check_relatives(view, refusals);
  inspect::check_outsiders(view, shared, findings, refusals);
  inspect::check_shared_files(view, findings, objects, image, refusals);
  const auto is_elsewhere = [](const wire::Refusal& each) { return each.code() == "NAMESPACE"; };
  if (std::ranges::any_of(refusals, is_elsewhere) && inspect::is_in_cell(view)) {
    refusals.assign(1, make_refusal("BORN_AWAY", inspect::describe_process(view.pid)));
  }
  if (MIGRATE_TRY(reread(view.maps.get(), "/proc/PID/maps")).empty()) {
    return fail(another_program("inspect", view.pid));
  }
  state_->findings = std::move(findings);
  state_->shared = std::move(shared);
  state_->inspected = true;
  return inspection;
}

Result<Inspection> ProcessInspector::inspect_frozen(const wire::Image& draft, Assistant& assistant,
                                                    const Meanwhile& meanwhile) {
  ProcessView& view = state_->view;
  if (!state_->inspected) {
    return fail(make_error(ErrorCode::kInvalid, "inspect the frozen",
                           fmt::format("pid {}", view.pid), "inspect it while it runs first"));
  }
  // Before anything of ours is among the mappings.
  const std::string maps = MIGRATE_TRY(reread(view.maps.get(), "/proc/PID/maps"));
  if (maps.empty()) {
    return fail(another_program("inspect the frozen", view.pid));
  }
  Result<Inspection> objects;
  assistant.start([&] { objects = read_objects(draft, maps); });
  Result<Inspection> facts = read_facts(draft);
  Result<void> done;
  if (facts && facts->refusals.empty()) {
    done = meanwhile(mutable_only_process(facts->image));
  }
  assistant.wait();
  Inspection inspection = MIGRATE_TRY(std::move(facts));
  Inspection other = MIGRATE_TRY(std::move(objects));
  MIGRATE_TRY(std::move(done));
  *inspection.image.mutable_objects() = std::move(*other.image.mutable_objects());
  mutable_only_process(inspection.image).MergeFrom(only_process(other.image));
  inspection.refusals.insert(inspection.refusals.end(), other.refusals.begin(),
                             other.refusals.end());
  return inspection;
}

// About the process and its threads: what capturing needs.
Result<Inspection> ProcessInspector::read_facts(const wire::Image& draft) {
  ProcessView& view = state_->view;
  Inspection inspection;
  wire::ProcessImage& image = mutable_only_process(inspection.image);
  view.status_text = MIGRATE_TRY(reread(view.status.get(), "/proc/PID/status"));
  if (read_file_at(view.directory.get(), "cgroup").value_or("") != state_->findings.groups_text) {
    return fail(make_error(ErrorCode::kRetry, "inspect the frozen", fmt::format("pid {}", view.pid),
                           "it was put into another control group: try again"));
  }
  state_->threads = MIGRATE_TRY(inspect::read_threads(view, state_->threads));
  MIGRATE_TRY(inspect::read_process_facts(view, state_->threads, image, inspection.refusals));
  inspect::read_thread_facts(view, state_->threads, &only_process(draft), image,
                             inspection.refusals);
  // Until it is captured, from within the process.
  image.mutable_memory()->set_brk(only_process(draft).memory().brk());
  return inspection;
}

// Beside read_facts(): touches nothing that it changes.
Result<Inspection> ProcessInspector::read_objects(const wire::Image& draft,
                                                  const std::string& maps) {
  const ProcessView& view = state_->view;
  Findings& findings = state_->findings;
  SharedObjects& shared = state_->shared;
  Inspection inspection;
  wire::Objects& objects = *inspection.image.mutable_objects();
  wire::ProcessImage& image = mutable_only_process(inspection.image);
  Refusals& refusals = inspection.refusals;
  *objects.mutable_mapped_files() = draft.objects().mapped_files();
  *objects.mutable_shared_memories() = draft.objects().shared_memories();
  // Mappings that are as they were are not looked at again, and what they are of is not either.
  SharedObjects before = std::exchange(shared, SharedObjects());
  MIGRATE_TRY(inspect::MappingReader(view, findings, shared, objects, image, refusals)
                  .read_again(only_process(draft), maps));
  MIGRATE_TRY(inspect::DescriptorReader(view, findings, shared, objects, image, refusals)
                  .read(&draft.objects()));
  MIGRATE_TRY(inspect::read_surroundings(view, &only_process(draft), image, refusals));
  *image.mutable_control_groups() = only_process(draft).control_groups();
  // A file that it can only read, such as a C library's cache, is the same everywhere.
  std::erase_if(before.mappings, [](const auto& mapped) { return !mapped.second.writable; });
  shared.mappings.merge(before.mappings);
  shared.memories.merge(before.memories);
  return inspection;
}

std::vector<wire::Refusal> ProcessInspector::check_frozen() {
  const ProcessView& view = state_->view;
  Refusals refusals;
  inspect::check_process(view, true, refusals);
  inspect::check_threads(view, state_->threads, true, refusals);
  inspect::check_newcomers(view, state_->shared, state_->findings, refusals);
  inspect::check_outsiders(view, state_->shared, state_->findings, refusals);
  return refusals;
}

std::vector<Loss> ProcessInspector::losses(const wire::Image& image, bool frozen) {
  if (!state_->inspected) {
    return {};
  }
  return find_losses({.process = state_->view,
                      .threads = state_->threads,
                      .image = image,
                      .findings = state_->findings,
                      .frozen = frozen});
}

const ThreadIds& ProcessInspector::threads() const {
  return state_->threads;
}

}  // namespace migrate
