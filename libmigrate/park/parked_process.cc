#include "libmigrate/park/parked_process.h"

#include <fcntl.h>
#include <netinet/in.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/ptrace.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <charconv>
#include <cstring>
#include <optional>
#include <set>
#include <span>
#include <utility>

#include "base/file.h"
#include "base/log.h"
#include "libmigrate/carriers/carriers.h"
#include "libmigrate/image/address_space.h"
#include "libmigrate/image/only_process.h"
#include "libmigrate/park/internal/parking.h"
#include "libmigrate/proc/proc_text.h"
#include "libmigrate/trace/script_group.h"
#include "libmigrate/trace/tracee.h"

namespace migrate {
namespace {

constexpr std::uint64_t kSmallStackBytes = 1U << 20U;
constexpr std::uint64_t kRecordSlackBytes = 1U << 20U;
constexpr std::uint64_t kBytesPerThread = 16384;  // Registers with AVX-512, and more with AMX.
constexpr std::size_t kRangesPerScript = 512;

int signal_number(const std::string& siginfo) {
  siginfo_t information{};
  siginfo.copy(reinterpret_cast<char*>(&information), sizeof(information));
  return information.si_signo;
}

// From now on its user cannot write into it what the process would get as its own, wherever that is
// and whatever it has become.
void script_hide(Script& script) {
  script.call(SYS_prctl, {PR_SET_DUMPABLE, 0, 0, 0, 0});
}

// The lowest number from `from` that is free in a process, which the next descriptor gets.
Result<std::uint32_t> lowest_free_descriptor(pid_t process, std::uint32_t from = 0) {
  std::set<std::uint64_t> taken;
  for (const std::string& name :
       MIGRATE_TRY(list_directory("/proc/" + std::to_string(process) + "/fd"))) {
    taken.insert(parse_number(name).value_or(0));
  }
  std::uint32_t number = from;
  while (taken.contains(number)) {
    ++number;
  }
  return number;
}

}  // namespace

std::uint64_t ParkedProcess::record_bytes(const wire::Image& draft) {
  std::uint64_t contents = 0;
  for (const carriers::Carrier* carrier : carriers::all_carriers()) {
    contents +=
        carrier->most_content_bytes != nullptr ? carrier->most_content_bytes(draft.objects()) : 0;
  }
  return sizeof(ParkingRecord) + 2 * draft.ByteSizeLong() + contents + kRecordSlackBytes +
         kBytesPerThread * static_cast<std::uint64_t>(only_process(draft).threads_size() + 16);
}

Result<ParkedProcess> ParkedProcess::park(FrozenProcess& frozen, const wire::ProcessImage& image) {
  ParkedProcess parked(frozen.process(), frozen.area());
  for (const FrozenThread& thread : frozen.threads()) {
    if (find_thread(image, thread.id) == nullptr) {  // What the image lacks could not come back.
      return fail(make_error(ErrorCode::kRetry, "park", "thread " + std::to_string(thread.id)));
    }
    parked.threads_.push_back({thread.host_id, thread.id});
  }
  auto done = parked.park_threads(frozen, image);
  if (done && frozen.starts()) {
    done = parked.outlive_tracer();
  }
  frozen.release();
  if (!done && frozen.starts()) {
    parked.end();
    return fail(std::move(done).error());
  }
  if (!done) {
    if (auto back = parked.unpark(image); !back) {
      log::error("process {} could not be resumed whole: {}", parked.process_,
                 back.error().message());
    }
    return fail(std::move(done).error());
  }
  return parked;
}

// Of one that starts elsewhere: from now on the next worker knows what is to become of it.
Result<void> ParkedProcess::outlive_tracer() const {
  for (const ParkedThread& thread : threads_) {
    MIGRATE_TRY(migrate::outlive_tracer(thread.host_id));
  }
  return {};
}

Result<void> ParkedProcess::write_record(const FrozenProcess& frozen, std::string_view image,
                                         const SessionId& session, const SessionId& process) {
  const ScriptArea& area = frozen.area();
  if (sizeof(ParkingRecord) + image.size() > area.record_bytes()) {
    return fail(make_error(ErrorCode::kRetry, "write the parking record of",
                           "process " + std::to_string(area.process),
                           "it grew while it was being moved; try again"));
  }
  ParkingRecord record;
  record.session = session;
  record.process = process;
  record.area_bytes = area.length_bytes;
  record.image_bytes = image.size();
  MIGRATE_TRY(area.write(area.record(), std::as_bytes(std::span(&record, 1))));
  return area.write(area.record() + sizeof(record), std::as_bytes(std::span(image)));
}

Result<void> ParkedProcess::park_threads(FrozenProcess& frozen, const wire::ProcessImage& image) {
  const FrozenThread& leader = frozen.leader();
  const arch::InterpreterCode code = arch::interpreter_code();
  // If we die, those that were not touched run on, and the others wait.
  std::vector<ScriptThread> others;
  std::vector<const wire::Thread*> known;
  for (std::size_t i = 1; i < frozen.threads().size(); ++i) {
    const FrozenThread& thread = frozen.threads()[i];
    known.push_back(find_thread(image, thread.id));
    others.push_back({thread.host_id, idle_registers(thread.registers, area_), kAllSignals});
  }
  std::vector<std::vector<std::string>> came(others.size());
  const auto parked =
      run_scripts(area_, others, [&](std::size_t i, Script& script) -> Result<void> {
        script.keep_signals(came[i]);
        script_untie(script, *known[i]);
        return {};
      });
  for (std::size_t i = 0; i < came.size(); ++i) {
    MIGRATE_TRY(keep_signals_of(others[i].thread, *known[i], std::move(came[i]), image));
  }
  MIGRATE_TRY(parked);
  MIGRATE_TRY(park_leader(frozen, image));
  // The last step, and the decision: see read_state().
  return arch::write_registers(
      leader.host_id,
      arch::script_registers(leader.registers, area_.code() + code.park_offset, area_.parking()));
}

// Pending signals travel in the image: takes them here, and keeps those that came since.
Result<void> ParkedProcess::park_leader(const FrozenProcess& frozen,
                                        const wire::ProcessImage& image) {
  const FrozenThread& leader = frozen.leader();
  const std::size_t waiting = MIGRATE_TRY(peek_signals(leader.host_id, true)).size() +
                              MIGRATE_TRY(peek_signals(leader.host_id, false)).size();
  Script script(area_);
  std::vector<std::string> came;
  script.keep_signals(came);
  script_action(script, nullptr);
  script_untie(script, image.threads(0));
  script_timers(script, image, false);
  const std::uint64_t pipe = script.reserve(2 * sizeof(int));
  script.must("make a pipe for signals", SYS_pipe2, {pipe, O_CLOEXEC});
  const std::uint64_t all = script.put_value(kAllSignals);
  const std::uint64_t none = script.put_value(timespec{});
  std::vector<std::pair<std::size_t, std::uint64_t>> taken;
  for (std::size_t i = 0; i < waiting; ++i) {
    const std::uint64_t place = script.reserve(sizeof(siginfo_t));
    taken.emplace_back(script.call(SYS_rt_sigtimedwait, {all, place, none, 8}), place);
  }
  MIGRATE_TRY(script.run(leader.host_id, idle_registers(leader.registers, area_), kAllSignals));
  for (const auto& [index, place] : taken) {
    const auto bytes = script.data(place, sizeof(siginfo_t));
    if (script.result(index) > 0) {
      came.emplace_back(reinterpret_cast<const char*>(bytes.data()), bytes.size());
    }
  }
  keep_signals(std::move(came), image);
  const auto ends = script.value<std::array<int, 2>>(pipe);
  ParkingPage page;
  page.data.pipe_descriptor = static_cast<std::uint64_t>(ends[1]);
  page.notes.pipe[0] = static_cast<std::uint32_t>(ends[0]);
  page.notes.pipe[1] = static_cast<std::uint32_t>(ends[1]);
  page.notes.signal_count = static_cast<std::uint32_t>(signals_.size());
  if (!signals_.empty()) {
    std::string all_signals;
    for (const std::string& signal : signals_) {
      all_signals += signal;
    }
    // Scripts are over: their data has room for as many signals as a script could take.
    MIGRATE_TRY(area_.write(area_.place().data(), std::as_bytes(std::span(all_signals))));
  }
  MIGRATE_TRY(area_.write(area_.parking(), std::as_bytes(std::span(&page, 1))));
  return fetch_pipe(page.notes);
}

// What the image has as the thread's own stays with it; all else was sent to the process.
Result<void> ParkedProcess::keep_signals_of(pid_t thread, const wire::Thread& known,
                                            std::vector<std::string> taken,
                                            const wire::ProcessImage& image) {
  const auto& own = known.pending_signals();
  for (std::string& signal : taken) {
    if (std::find(own.begin(), own.end(), signal) == own.end()) {
      keep_signals({std::move(signal)}, image);
      continue;
    }
    siginfo_t information{};
    signal.copy(reinterpret_cast<char*>(&information), sizeof(information));
    MIGRATE_TRY(send_again(process_, thread, true, information));
  }
  return {};
}

// Of the signals taken, those that the image does not bring to the destination.
void ParkedProcess::keep_signals(std::vector<std::string> taken, const wire::ProcessImage& image) {
  std::vector<std::string> captured = captured_signals(image);
  for (std::string& signal : taken) {
    const auto known =
        std::find_if(captured.begin(), captured.end(), [&](const std::string& other) {
          // Of those that end scripts, all but the number may have been lost (Script::run).
          return other == signal || (signal_number(signal) == arch::kScriptSignal &&
                                     signal_number(other) == arch::kScriptSignal);
        });
    if (known != captured.end()) {
      captured.erase(known);
    } else if (!is_of_timer(signal)) {
      // A timer that fired since it was captured fires again where it is armed as captured.
      signals_.push_back(std::move(signal));
    }
  }
}

Result<void> ParkedProcess::fetch_pipe(const ParkingNotes& notes) {
  const UniqueFd pidfd(static_cast<int>(::syscall(SYS_pidfd_open, process_, 0)));
  signal_pipe_.reset(static_cast<int>(::syscall(SYS_pidfd_getfd, pidfd.get(), notes.pipe[0], 0)));
  if (!signal_pipe_.valid()) {
    return fail(system_error("fetch the signal pipe of", "process " + std::to_string(process_)));
  }
  pipe_descriptors_ = {notes.pipe[0], notes.pipe[1]};
  return {};
}

Result<void> ParkedProcess::settle(const std::set<std::uint32_t>& kept) {
  std::vector<pid_t> others;
  for (std::size_t i = 1; i < threads_.size(); ++i) {
    others.push_back(threads_[i].host_id);
  }
  MIGRATE_TRY(end_threads(area_, others));
  threads_.resize(std::min<std::size_t>(threads_.size(), 1));
  Script script(area_);
  const std::uint64_t slots = area_.slot(0).address;
  script.call(SYS_madvise, {slots, area_.parking() - slots, MADV_DONTNEED});
  script_hide(script);
  const std::string path = "/proc/" + std::to_string(process_) + "/fd";
  for (const std::string& name : MIGRATE_TRY(list_directory(path))) {
    std::uint32_t number = 0;
    std::from_chars(name.data(), name.data() + name.size(), number);
    if (!kept.contains(number) && !pipe_descriptors_.contains(number)) {
      script.call(SYS_close, {number});
    }
  }
  return run_in_leader(script);
}

Result<void> ParkedProcess::hide(const std::vector<std::uint32_t>& descriptors) {
  Script script(area_);
  script_hide(script);
  for (const std::uint32_t descriptor : descriptors) {
    script.call(SYS_close, {descriptor});
  }
  return run_in_leader(script);
}

// Stops the leader in its loop, ready for a script.
Result<arch::GeneralRegisters> ParkedProcess::stop_leader() {
  if (looping_) {
    MIGRATE_TRY(interrupt(process_));
    for (;;) {
      const Stop stop = MIGRATE_TRY(wait_stop_of_first(process_));
      const bool job_stop = stop.event == 0 && stop.signal == SIGSTOP;
      // One that check_state() has not seen is to come again, for it.
      stop_again_ = stop_again_ || ((job_stop || stop.group_stop) && !listening_);
      if (stop.event == PTRACE_EVENT_STOP) {
        break;
      }
      MIGRATE_TRY(resume_to_interrupt(process_, stop.event == 0 && !job_stop ? stop.signal : 0));
    }
    looping_ = false;
  }
  return arch::read_registers(process_);
}

Result<void> ParkedProcess::run_in_leader(Script& script) {
  const arch::GeneralRegisters registers = MIGRATE_TRY(stop_leader());
  auto done = script.run(process_, registers, kAllSignals);
  if (!done && done.error().code == ErrorCode::kNotFound) {
    return done;
  }
  MIGRATE_TRY(write_signal_mask(process_, kAllSignals));
  MIGRATE_TRY(arch::write_registers(process_, registers));
  MIGRATE_TRY(resume(process_));
  looping_ = true;
  if (std::exchange(stop_again_, false)) {
    send_stop_again(process_);
  }
  return done;
}

Result<void> ParkedProcess::close(const std::vector<std::uint32_t>& descriptors) {
  Script script(area_);
  for (const std::uint32_t descriptor : descriptors) {
    script.call(SYS_close, {descriptor});
  }
  return run_in_leader(script);
}

// The number that its next descriptor will have, if it may have one more.
Result<std::uint64_t> ParkedProcess::number_for_another(std::uint32_t from,
                                                        std::size_t others) const {
  constexpr std::uint64_t kSpare = 8;  // That number, and those of the pipe.
  // Not by prlimit(2), for which the kernel wants more than for this.
  const auto limits = read_file("/proc/" + std::to_string(process_) + "/limits");
  const std::uint64_t most =
      limits ? number_field(*limits, "Max open files", 10, UINT64_MAX) : std::uint64_t{0};
  if (most < from + others + kSpare) {
    return fail(make_error(ErrorCode::kRetry, "make a connection for",
                           "process " + std::to_string(process_),
                           "its limit of open files (RLIMIT_NOFILE) is reached"));
  }
  return lowest_free_descriptor(process_);
}

// In one script, which runs to its end whoever dies: nobody finds it at a number that has been
// another's.
Result<std::uint32_t> ParkedProcess::accept(std::uint32_t listener, std::uint32_t from,
                                            std::size_t others) {
  const std::string who = "process " + std::to_string(process_);
  const std::uint64_t number = MIGRATE_TRY(number_for_another(from, others));
  Script script(area_);
  script.must("accept a connection in", SYS_accept4, {listener, 0, 0, SOCK_CLOEXEC}, who);
  const std::size_t kept =
      script.must("keep a connection of", SYS_fcntl, {number, F_DUPFD_CLOEXEC, from}, who);
  script.call(SYS_close, {number});
  MIGRATE_TRY(run_in_leader(script));
  return static_cast<std::uint32_t>(script.result(kept));
}

Result<std::uint32_t> ParkedProcess::make_pipe(std::uint32_t from, std::size_t others) {
  const std::string who = "process " + std::to_string(process_);
  const std::uint64_t reader = MIGRATE_TRY(number_for_another(from, others));
  const std::uint64_t writer =
      MIGRATE_TRY(lowest_free_descriptor(process_, static_cast<std::uint32_t>(reader) + 1));
  Script script(area_);
  script.must("make a pipe in", SYS_pipe2,
              {script.put_value(std::array<int, 2>{}), O_CLOEXEC | O_NONBLOCK}, who);
  const std::size_t kept =
      script.must("keep a pipe of", SYS_fcntl, {reader, F_DUPFD_CLOEXEC, from}, who);
  script.call(SYS_close, {reader});
  script.call(SYS_close, {writer});
  MIGRATE_TRY(run_in_leader(script));
  return static_cast<std::uint32_t>(script.result(kept));
}

// What does not come about leaves the number unused, which the other calls find then.
Result<ParkedProcess::MadeSocket> ParkedProcess::make_socket(int type, const std::string& local,
                                                             const std::string& peer,
                                                             std::uint32_t from,
                                                             std::size_t others) {
  const std::string who = "process " + std::to_string(process_);
  const std::uint64_t number = MIGRATE_TRY(number_for_another(from, others));
  sockaddr_in any_port{};  // As far as that, both kinds of addresses are the same.
  std::memcpy(&any_port, local.data(), std::min(sizeof(any_port), local.size()));
  any_port.sin_port = 0;
  std::string like = local;
  std::memcpy(like.data(), &any_port, std::min(sizeof(any_port), like.size()));
  Script script(area_);
  script.must(
      "make a socket in", SYS_socket,
      {any_port.sin_family, static_cast<std::uint64_t>(type | SOCK_CLOEXEC | SOCK_NONBLOCK), 0},
      who);
  const int yes = 1;
  if (type == SOCK_STREAM) {
    script.call(SYS_setsockopt,
                {number, SOL_SOCKET, SO_REUSEADDR, script.put_value(yes), sizeof(yes)});
  }
  for (const std::string* const name : {&local, &std::as_const(like)}) {  // One of both.
    script.call(SYS_bind, {number, script.put(std::as_bytes(std::span(*name))), name->size()});
  }
  std::optional<std::size_t> connected;
  if (!peer.empty()) {
    connected =
        script.call(SYS_connect, {number, script.put(std::as_bytes(std::span(peer))), peer.size()});
  }
  const std::size_t kept =
      script.must("keep a socket of", SYS_fcntl, {number, F_DUPFD_CLOEXEC, from}, who);
  script.call(SYS_close, {number});
  MIGRATE_TRY(run_in_leader(script));
  const std::int64_t result = connected ? script.result(*connected) : 0;
  return MadeSocket{static_cast<std::uint32_t>(script.result(kept)),
                    result < 0 && result != -EINPROGRESS ? static_cast<int>(-result) : 0};
}

// In two scripts: what could not be bound would listen at another name.
Result<std::uint32_t> ParkedProcess::listen(const std::string& name, bool only_ipv6, int backlog,
                                            std::uint32_t from, std::size_t others) {
  const std::string who = "process " + std::to_string(process_);
  const std::uint64_t number = MIGRATE_TRY(number_for_another(from, others));
  sockaddr any{};
  std::memcpy(&any, name.data(), std::min(sizeof(any), name.size()));
  const int yes = 1;
  const int is_only = only_ipv6 ? 1 : 0;
  Script script(area_);
  script.must(
      "make a socket in", SYS_socket,
      {any.sa_family, static_cast<std::uint64_t>(SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK), 0},
      who);
  script.call(SYS_setsockopt,
              {number, SOL_SOCKET, SO_REUSEADDR, script.put_value(yes), sizeof(yes)});
  if (any.sa_family == AF_INET6) {
    script.call(SYS_setsockopt,
                {number, IPPROTO_IPV6, IPV6_V6ONLY, script.put_value(is_only), sizeof(is_only)});
  }
  const std::size_t bound =
      script.call(SYS_bind, {number, script.put(std::as_bytes(std::span(name))), name.size()});
  const std::size_t kept =
      script.must("keep a socket of", SYS_fcntl, {number, F_DUPFD_CLOEXEC, from}, who);
  script.call(SYS_close, {number});
  MIGRATE_TRY(run_in_leader(script));
  const auto descriptor = static_cast<std::uint32_t>(script.result(kept));
  std::int64_t result = script.result(bound);
  if (result == 0) {
    Script second(area_);
    const std::size_t listening =
        second.call(SYS_listen, {descriptor, static_cast<std::uint64_t>(backlog)});
    MIGRATE_TRY(run_in_leader(second));
    result = second.result(listening);
  }
  if (result < 0) {
    MIGRATE_TRY(close({descriptor}));
    return fail(system_error_from(static_cast<int>(-result), "listen in the place of", who));
  }
  return descriptor;
}

Result<void> ParkedProcess::free(const std::vector<PageRange>& ranges) {
  for (std::size_t first = 0; first < ranges.size(); first += kRangesPerScript) {
    Script script(area_);
    const std::size_t last = std::min(first + kRangesPerScript, ranges.size());
    for (std::size_t i = first; i < last; ++i) {
      script.call(SYS_madvise, {ranges[i].start, ranges[i].bytes(), MADV_DONTNEED});
    }
    MIGRATE_TRY(run_in_leader(script));
  }
  return {};
}

Result<void> ParkedProcess::free_all() {
  Script script(area_);
  for (const NamedRange& range : MIGRATE_TRY(read_mappings(process_))) {
    const bool area = range.start < area_.address + area_.length_bytes && area_.address < range.end;
    const bool kernel = range.name == "[vdso]" || range.name.starts_with("[vvar");
    const bool stack = range.name == "[stack]" && range.end - range.start <= kSmallStackBytes;
    if (!area && !kernel && !stack) {
      script.call(SYS_munmap, {range.start, range.end - range.start});
    }
  }
  return run_in_leader(script);
}

Result<void> ParkedProcess::end_as(int wait_status) {
  const arch::GeneralRegisters registers = MIGRATE_TRY(stop_leader());
  Script script(area_);
  if (WIFEXITED(wait_status)) {
    script.call(SYS_exit_group, {static_cast<std::uint64_t>(WEXITSTATUS(wait_status))});
  } else {
    const auto signal = static_cast<std::uint64_t>(WTERMSIG(wait_status));
    const rlimit no_core{0, 0};
    const std::array<std::byte, 32> default_action{};
    script.call(SYS_setrlimit, {RLIMIT_CORE, script.put_value(no_core)});
    script.call(SYS_rt_sigaction, {signal, script.put(default_action), 0, 8});
    script.call(SYS_kill, {threads_.front().id, signal});
  }
  auto stopped = script.run(process_, registers, kAllSignals);
  if (stopped) {
    // Unblocked, the signal ends it before it gets back to its loop.
    MIGRATE_TRY(arch::write_registers(process_, registers));
    MIGRATE_TRY(write_signal_mask(process_, 0));
    MIGRATE_TRY(resume(process_));
  }
  while (stopped) {
    const auto stop = wait_stop(process_);
    if (!stop) {
      stopped = fail(stop.error());
      break;
    }
    stopped = resume(process_, stop->event == 0 ? stop->signal : 0);
  }
  return stopped.error().code == ErrorCode::kNotFound ? Result<void>() : stopped;
}

Result<int> ParkedProcess::check_state() {
  int status = 0;
  // The leader of a process that was killed can be reaped after its other threads.
  for (std::size_t i = threads_.size(); i > 1; --i) {
    const pid_t thread = threads_[i - 1].host_id;
    if (::waitpid(thread, &status, WNOHANG | __WALL) == thread && !WIFSTOPPED(status)) {
      threads_.erase(threads_.begin() + static_cast<std::ptrdiff_t>(i - 1));
    }
  }
  const pid_t waited = ::waitpid(process_, &status, WNOHANG | __WALL);
  if (waited == 0) {
    return 0;
  }
  if (waited < 0) {
    return fail(system_error("wait for", "process " + std::to_string(process_)));
  }
  if (!WIFSTOPPED(status)) {
    return -1;
  }
  const int signal = WSTOPSIG(status);
  const int event = status >> 16;
  if (event == PTRACE_EVENT_EXEC) {
    static_cast<void>(end_impostor(process_));
    return -1;
  }
  if (event == PTRACE_EVENT_STOP && signal != SIGTRAP) {
    listening_ = true;
    if (::ptrace(PTRACE_LISTEN, process_, nullptr, nullptr) != 0) {
      return fail(system_error("listen to", "process " + std::to_string(process_)));
    }
    return signal;
  }
  listening_ = false;
  // SIGSTOP on its way in is let through, so that the stop is seen by whoever waits for it.
  MIGRATE_TRY(resume(process_, event == 0 ? signal : 0));
  return 0;
}

}  // namespace migrate
