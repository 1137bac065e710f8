#include "libmigrate/capture/timed_wait.h"

#include <linux/futex.h>
#include <sys/sem.h>
#include <sys/syscall.h>
#include <time.h>

#include <algorithm>
#include <cerrno>
#include <charconv>
#include <limits>
#include <string>

#include "base/clock.h"
#include "base/file.h"
#include "libmigrate/trace/tracee.h"

namespace migrate {
namespace {

// It blocked in its call, and was stopped in it: anything else is more. One that had not come to
// block when it was stopped has only the second.
constexpr std::uint64_t kSwitchesOfOneWait = 2;
// Of a call that has its end among its arguments; only its number is to be known again.
constexpr std::int64_t kUntilItsOwnTime = std::numeric_limits<std::int64_t>::max();

std::optional<std::uint64_t> milliseconds(std::uint64_t argument) {
  const auto value = static_cast<std::int32_t>(argument);
  if (value < 0) {
    return std::nullopt;
  }
  return static_cast<std::uint64_t>(value) * kNanosecondsPerMillisecond;
}

Result<std::optional<std::uint64_t>> timespec_at(pid_t process, std::uint64_t address) {
  if (address == 0) {
    return std::nullopt;
  }
  timespec time{};
  MIGRATE_TRY(read_memory(process, address, std::as_writable_bytes(std::span(&time, 1))));
  return to_nanoseconds(time);
}

std::uint64_t voluntary_switches(pid_t host_thread) {
  const auto status = read_file("/proc/" + std::to_string(host_thread) + "/status");
  constexpr std::string_view kKey = "\nvoluntary_ctxt_switches:\t";
  std::uint64_t count = 0;
  if (status) {
    const std::size_t at = status->find(kKey);
    if (at != std::string::npos) {
      std::from_chars(status->data() + at + kKey.size(), status->data() + status->size(), count);
    }
  }
  return count;
}

// What came here in the middle of such a call is in restart_syscall ever since. (One whose time is
// over by the time it is let go ends without a switch, and the next may wait in its place.)
bool is_new_wait(const arch::GeneralRegisters& registers) {
  return arch::interrupted_call(registers).restart_block && !arch::is_restarted_call(registers);
}

bool has_arguments(const arch::InterruptedCall& call, const WaitRecord& record) {
  return std::equal(record.arguments.begin(), record.arguments.end(), std::begin(call.arguments));
}

// A call that the kernel keeps in a restart block is told from a later one by its number, unless
// that was interrupted, too, by somebody else. Before the time of the first is over, that counts
// for less than what makes a thread switch more often within one call: a lock of its memory, a job
// control stop, a freeze that came to nothing. Other calls are repeated whole: the later one may be
// stopped before it blocks, which looks like the first, but not before the first has come to its
// end.
bool goes_on(pid_t process, const FrozenThread& thread, const WaitRecord& record) {
  const std::uint64_t switches = voluntary_switches(thread.host_id);
  if (arch::is_restarted_call(thread.registers)) {
    return has_arguments(arch::interrupted_call(thread.registers), record) &&
           (clock_ns(CLOCK_MONOTONIC) < record.deadline_ns ||
            switches <= record.switches + kSwitchesOfOneWait);
  }
  if (is_new_wait(thread.registers) || switches != record.switches + kSwitchesOfOneWait) {
    return false;
  }
  const auto whole = relative_timeout(process, arch::interrupted_call(thread.registers));
  return !whole || !*whole ||
         clock_ns(CLOCK_MONOTONIC) < record.let_go_ns + static_cast<std::int64_t>(**whole);
}

}  // namespace

std::uint64_t remaining_address(const arch::InterruptedCall& call) {
  if (!call.restart_block) {
    return 0;
  }
  switch (call.number) {
    case SYS_nanosleep:
      return call.arguments[1];
    case SYS_clock_nanosleep:
      return call.arguments[3];
    default:
      return 0;
  }
}

Result<std::optional<std::uint64_t>> relative_timeout(pid_t process,
                                                      const arch::InterruptedCall& call) {
  const auto& arguments = call.arguments;
  if (arch::is_poll(call.number)) {
    return milliseconds(arguments[2]);
  }
  if (arch::is_epoll_wait(call.number)) {
    return milliseconds(arguments[3]);
  }
  switch (call.number) {
    case SYS_epoll_pwait:
      return milliseconds(arguments[3]);
    case SYS_nanosleep:
      return timespec_at(process, arguments[0]);
    case SYS_clock_nanosleep:
      return (arguments[1] & TIMER_ABSTIME) != 0
                 ? Result<std::optional<std::uint64_t>>(std::nullopt)
                 : timespec_at(process, arguments[2]);
    case SYS_futex:
      // The other operations that wait take an absolute time.
      return (arguments[1] & FUTEX_CMD_MASK) != FUTEX_WAIT
                 ? Result<std::optional<std::uint64_t>>(std::nullopt)
                 : timespec_at(process, arguments[3]);
    case SYS_rt_sigtimedwait:
      return timespec_at(process, arguments[2]);
    case SYS_epoll_pwait2:
    case SYS_semtimedop:
      return timespec_at(process, arguments[3]);
    case SYS_io_getevents:
      return timespec_at(process, arguments[4]);
    default:
      return std::nullopt;
  }
}

Result<std::optional<std::uint64_t>> remaining_wait(pid_t process, std::uint32_t thread,
                                                    const arch::InterruptedCall& call,
                                                    const std::vector<WaitRecord>& records,
                                                    std::int64_t now_ns) {
  const auto timeout = MIGRATE_TRY(relative_timeout(process, call));
  if (!timeout) {
    return timeout;
  }
  if (const std::uint64_t address = remaining_address(call); address != 0) {
    return timespec_at(process, address);
  }
  const auto record =
      std::find_if(records.begin(), records.end(), [&](const WaitRecord& candidate) {
        return candidate.thread == thread && candidate.number == call.number &&
               has_arguments(call, candidate);
      });
  if (record == records.end()) {
    return timeout;
  }
  return static_cast<std::uint64_t>(std::max<std::int64_t>(record->deadline_ns - now_ns, 0));
}

std::vector<WaitRecord> waits_that_go_on(const FrozenProcess& frozen,
                                         const std::vector<WaitRecord>& records) {
  std::vector<WaitRecord> waits;
  for (const WaitRecord& record : records) {
    const auto thread =
        std::find_if(frozen.threads().begin(), frozen.threads().end(),
                     [&](const FrozenThread& other) { return other.id == record.thread; });
    if (thread != frozen.threads().end() && goes_on(frozen.process(), *thread, record)) {
      waits.push_back(record);
    }
  }
  return waits;
}

std::vector<std::pair<std::uint64_t, std::uint64_t>> memory_of_wait(
    const arch::InterruptedCall& call) {
  constexpr std::uint64_t kMaskBytes = 8;
  constexpr std::uint64_t kMostOperations = 512;  // of a semop, as the kernel is built by default
  const auto& arguments = call.arguments;
  switch (call.number) {
    case SYS_rt_sigtimedwait:
      return {{arguments[0], kMaskBytes}, {arguments[2], sizeof(timespec)}};
    case SYS_epoll_pwait:
      return {{arguments[4], kMaskBytes}};
    case SYS_epoll_pwait2:
      return {{arguments[3], sizeof(timespec)}, {arguments[4], kMaskBytes}};
    case SYS_semtimedop:
      return {{arguments[1], std::min(arguments[2], kMostOperations) * sizeof(sembuf)},
              {arguments[3], sizeof(timespec)}};
    case SYS_io_getevents:
      return {{arguments[4], sizeof(timespec)}};
    default:
      return {};
  }
}

std::int64_t timeout_result(std::int64_t number) {
  switch (number) {
    case SYS_rt_sigtimedwait:
    case SYS_semtimedop:
      return -EAGAIN;
    case SYS_futex:
      return -ETIMEDOUT;
    default:
      return 0;
  }
}

std::vector<WaitRecord> record_waits(const wire::ProcessImage& image,
                                     const std::vector<pid_t>& host_threads) {
  std::vector<WaitRecord> records;
  for (std::size_t i = 0; i < host_threads.size(); ++i) {
    const wire::Thread& thread = image.threads(static_cast<int>(i));
    if (thread.wait_remaining_ns() == 0) {
      continue;
    }
    arch::GeneralRegisters registers{};
    thread.general_registers().copy(reinterpret_cast<char*>(&registers), sizeof(registers));
    const arch::InterruptedCall call = arch::interrupted_call(registers);
    WaitRecord& record = records.emplace_back();
    record.thread = thread.id();
    record.number = call.number;
    std::copy(std::begin(call.arguments), std::end(call.arguments), record.arguments.begin());
    record.let_go_ns = clock_ns(CLOCK_MONOTONIC);
    record.deadline_ns = record.let_go_ns + static_cast<std::int64_t>(thread.wait_remaining_ns());
    record.switches = voluntary_switches(host_threads[i]);
  }
  return records;
}

std::vector<WaitRecord> record_waits(const FrozenProcess& frozen,
                                     const std::vector<WaitRecord>& known) {
  std::vector<WaitRecord> records;
  for (const FrozenThread& thread : frozen.threads()) {
    const auto earlier = std::ranges::find(known, thread.id, &WaitRecord::thread);
    const arch::InterruptedCall call = arch::interrupted_call(thread.registers);
    WaitRecord record;
    if (earlier != known.end()) {
      record = *earlier;
    } else if ((call.restart_block && !arch::is_restarted_call(thread.registers)) ||
               arch::is_repeated(thread.registers)) {
      const std::int64_t now_ns = clock_ns(CLOCK_MONOTONIC);
      const auto left = remaining_wait(frozen.process(), thread.id, call, {}, now_ns);
      if (!left || (!*left && !call.restart_block)) {
        continue;
      }
      record.thread = thread.id;
      record.number = call.number;
      std::copy(std::begin(call.arguments), std::end(call.arguments), record.arguments.begin());
      record.deadline_ns = *left ? now_ns + static_cast<std::int64_t>(**left) : kUntilItsOwnTime;
    } else {
      continue;
    }
    record.let_go_ns = clock_ns(CLOCK_MONOTONIC);
    record.switches = voluntary_switches(thread.host_id);
    records.push_back(record);
  }
  return records;
}

}  // namespace migrate
