#include "libmigrate/trace/script.h"

#include <sys/mman.h>
#include <sys/ptrace.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <csignal>
#include <cstring>
#include <utility>

#include "libmigrate/trace/tracee.h"

namespace migrate {
namespace {

constexpr std::int64_t kMaxErrno = 4095;

bool is_error(std::int64_t result) {
  return result < 0 && result >= -kMaxErrno;
}

}  // namespace

void send_stop_again(pid_t process) {
  if (!is_pending(process, SIGCONT)) {
    ::kill(process, SIGSTOP);
  }
}

Result<void> send_again(pid_t process, pid_t thread, bool to_thread, siginfo_t information) {
  const int signal = information.si_signo;
  const bool forgeable = information.si_code < 0 && information.si_code != SI_TKILL;
  long sent = 0;
  if (to_thread) {
    sent = forgeable ? ::syscall(SYS_rt_tgsigqueueinfo, process, thread, signal, &information)
                     : ::syscall(SYS_tgkill, process, thread, signal);
  } else {
    sent = forgeable ? ::syscall(SYS_rt_sigqueueinfo, process, signal, &information)
                     : ::kill(process, signal);
  }
  if (sent != 0) {
    return fail(system_error("send a signal again to", "thread " + std::to_string(thread)));
  }
  return {};
}

Result<std::int64_t> call_once(pid_t thread, const arch::GeneralRegisters& base,
                               std::uint64_t instruction, std::int64_t number,
                               const std::uint64_t (&arguments)[6]) {
  MIGRATE_TRY(write_signal_mask(thread, kAllSignals));
  MIGRATE_TRY(arch::write_registers(
      thread, arch::system_call_registers(base, instruction, number, arguments)));
  // To the call's entry, then to its exit. Stepping would do too, but forces a SIGTRAP.
  bool job_stop = false;
  for (int side = 0; side < 2;) {
    MIGRATE_TRY(resume_to_call(thread));
    const Stop stop = MIGRATE_TRY(wait_stop_of_first(thread));
    if (stop.event == PTRACE_EVENT_STOP) {
      continue;  // An interrupt of ours that came late.
    }
    if (stop.signal == SIGSTOP) {
      job_stop = true;
      continue;
    }
    if (stop.signal != SIGTRAP) {
      return fail(make_error(ErrorCode::kSystem, "run a system call in",
                             "thread " + std::to_string(thread) + " (it stopped with signal " +
                                 std::to_string(stop.signal) + ")"));
    }
    ++side;
  }
  if (job_stop) {
    send_stop_again(thread);
  }
  const auto registers = MIGRATE_TRY(arch::read_registers(thread));
  return arch::result_of(registers);
}

Result<ScriptArea> map_script_area(pid_t process, pid_t thread, const arch::GeneralRegisters& base,
                                   std::uint64_t instruction, std::uint64_t wanted,
                                   std::uint64_t record_bytes) {
  ScriptArea area{process, 0,
                  page_floor(ScriptArea::kRecordOffset + record_bytes + kPageBytes - 1)};
  const int flags = MAP_PRIVATE | MAP_ANONYMOUS | (wanted != 0 ? MAP_FIXED_NOREPLACE : 0);
  const std::int64_t address =
      MIGRATE_TRY(call_once(thread, base, instruction, SYS_mmap,
                            {wanted, area.length_bytes, PROT_READ | PROT_WRITE | PROT_EXEC,
                             static_cast<std::uint64_t>(flags), ~0ULL, 0}));
  if (is_error(address)) {
    return fail(system_error_from(static_cast<int>(-address), "map the script area in",
                                  "process " + std::to_string(process)));
  }
  area.address = static_cast<std::uint64_t>(address);
  MIGRATE_TRY(area.open_memory());
  MIGRATE_TRY(area.write(area.code(), arch::interpreter_code().bytes));
  return area;
}

Result<void> unmap_script_area(const ScriptArea& area, pid_t thread,
                               const arch::GeneralRegisters& base, std::uint64_t instruction) {
  const std::int64_t result = MIGRATE_TRY(call_once(thread, base, instruction, SYS_munmap,
                                                    {area.address, area.length_bytes, 0, 0, 0, 0}));
  if (is_error(result)) {
    return fail(system_error_from(static_cast<int>(-result), "unmap the script area in",
                                  "process " + std::to_string(area.process)));
  }
  return {};
}

std::size_t Script::call(std::int64_t number, std::initializer_list<std::uint64_t> arguments) {
  arch::ScriptEntry entry;
  entry.number = number;
  std::copy(arguments.begin(), arguments.end(), std::begin(entry.arguments));
  entries_.push_back(entry);
  return entries_.size() - 1;
}

std::size_t Script::must(const char* operation, std::int64_t number,
                         std::initializer_list<std::uint64_t> arguments, std::string object) {
  const std::size_t index = call(number, arguments);
  requirements_.push_back({index, operation, std::move(object)});
  return index;
}

std::uint64_t Script::reserve(std::size_t length_bytes) {
  const std::size_t offset = (data_.size() + 15) & ~std::size_t{15};
  data_.resize(offset + length_bytes);
  return place_.data() + offset;
}

std::uint64_t Script::put(std::span<const std::byte> bytes) {
  const std::uint64_t address = reserve(bytes.size());
  std::copy(bytes.begin(), bytes.end(),
            data_.begin() + static_cast<std::ptrdiff_t>(data_.size() - bytes.size()));
  return address;
}

std::uint64_t Script::put_string(const std::string& text) {
  return put(std::as_bytes(std::span(text.c_str(), text.size() + 1)));
}

std::span<const std::byte> Script::data(std::uint64_t address, std::size_t length_bytes) const {
  return std::span(data_).subspan(address - place_.data(), length_bytes);
}

bool Script::fits() const {
  return entries_.size() <= place_.most_entries() &&
         data_.size() <= place_.length_bytes - place_.data_offset;
}

Result<void> Script::run(pid_t thread, const arch::GeneralRegisters& base,
                         std::uint64_t signal_mask) {
  const std::size_t most = place_.most_entries();
  for (std::size_t first = 0; first < entries_.size(); first += most) {
    const std::size_t count = std::min(most, entries_.size() - first);
    MIGRATE_TRY(start_part(thread, base, signal_mask, first, count));
    MIGRATE_TRY(finish_part(thread, base, signal_mask));
    MIGRATE_TRY(read(first, count));
  }
  return check();
}

Result<void> Script::start(pid_t thread, const arch::GeneralRegisters& base,
                           std::uint64_t signal_mask) {
  return start_part(thread, base, signal_mask, 0, entries_.size());
}

Result<void> Script::finish(pid_t thread, const arch::GeneralRegisters& base,
                            std::uint64_t signal_mask) {
  MIGRATE_TRY(finish_part(thread, base, signal_mask));
  MIGRATE_TRY(read(0, entries_.size()));
  return check();
}

Result<void> Script::load(pid_t thread, const arch::GeneralRegisters& base,
                          std::uint64_t signal_mask) {
  return load_part(thread, base, signal_mask, 0, entries_.size());
}

Result<void> Script::load_part(pid_t thread, const arch::GeneralRegisters& base,
                               std::uint64_t signal_mask, std::size_t first, std::size_t count) {
  MIGRATE_TRY(write(arch::way_back(base, signal_mask), first, count));
  return arch::write_registers(
      thread, arch::script_registers(base, place_.address + arch::interpreter_code().run_offset,
                                     place_.entries()));
}

Result<void> Script::check() const {
  for (const Requirement& requirement : requirements_) {
    const std::int64_t value = entries_[requirement.index].result;
    if (is_error(value)) {
      return fail(
          system_error_from(static_cast<int>(-value), requirement.operation, requirement.object));
    }
  }
  return {};
}
// A slot is small, and has no code yet: all of it is one write.
Result<void> Script::write(const arch::WayBack& back, std::size_t first, std::size_t count) {
  const std::size_t data_bytes = first == 0 ? data_.size() : 0;
  if (count > place_.most_entries() || data_bytes > place_.length_bytes - place_.data_offset) {
    return fail(make_error(
        ErrorCode::kInvalid, "run a script",
        std::to_string(count) + " calls, " + std::to_string(data_bytes) + " bytes of data"));
  }
  const bool in_slot = place_.address != area_.address;
  const std::size_t start = in_slot ? 0 : arch::kWayBackOffset;
  const std::size_t entries = ScriptPlace::kEntriesOffset - start;
  const arch::ScriptEntry end;
  std::vector<std::byte> bytes(entries + (count + 1) * sizeof(end));
  std::memcpy(&bytes[arch::kWayBackOffset - start], &back, sizeof(back));
  std::memcpy(&bytes[entries], entries_.data() + first, count * sizeof(end));
  std::memcpy(&bytes[entries + count * sizeof(end)], &end, sizeof(end));
  if (in_slot) {
    const auto code = arch::interpreter_code().bytes;
    std::copy(code.begin(), code.end(), bytes.begin());
    bytes.resize(place_.data_offset);
    bytes.insert(bytes.end(), data_.begin(), data_.end());
  } else if (data_bytes != 0) {
    MIGRATE_TRY(area_.write(place_.data(), data_));
  }
  return area_.write(place_.address + start, bytes);
}

Result<void> Script::read(std::size_t first, std::size_t count) {
  MIGRATE_TRY(area_.read(place_.entries(),
                         std::as_writable_bytes(std::span(entries_).subspan(first, count))));
  const bool last = first + count == entries_.size();
  return last && !data_.empty() ? area_.read(place_.data(), data_) : Result<void>();
}

Result<void> Script::start_part(pid_t thread, const arch::GeneralRegisters& base,
                                std::uint64_t signal_mask, std::size_t first, std::size_t count) {
  MIGRATE_TRY(load_part(thread, base, signal_mask, first, count));
  own_ = MIGRATE_TRY(peek_signals(thread, false));
  // The mask comes after the registers: whoever runs with a script's mask finds the way back.
  MIGRATE_TRY(write_signal_mask(thread, kScriptSignalMask));
  return resume(thread);
}

Result<void> Script::finish_part(pid_t thread, const arch::GeneralRegisters& base,
                                 std::uint64_t signal_mask) {
  const auto ended = wait_for_end(thread);
  if (std::exchange(job_stop_, false)) {
    send_stop_again(area_.process);
  }
  MIGRATE_TRY(ended);
  // Not by way of the block: that is the next script's.
  MIGRATE_TRY(arch::write_registers(thread, base));
  return signal_mask != kScriptSignalMask ? write_signal_mask(thread, signal_mask) : Result<void>();
}

// What came for the program itself waits until the thread's own mask is back.
Result<void> Script::give_back_signals(pid_t thread) {
  for (const siginfo_t& information : std::exchange(foreign_, {})) {
    std::string bytes(reinterpret_cast<const char*>(&information), sizeof(information));
    if (kept_signals_ != nullptr) {
      kept_signals_->push_back(std::move(bytes));
      continue;
    }
    const bool own =
        information.si_code == SI_TKILL || std::find(own_.begin(), own_.end(), bytes) != own_.end();
    MIGRATE_TRY(send_again(area_.process, thread, own, information));
  }
  return {};
}

Result<Stop> Script::await_stop(pid_t thread) const {
  if (thread == area_.process) {
    return wait_stop_of_first(thread);
  }
  auto stop = wait_stop(thread);
  if (!stop) {
    // It has ended, and so does its process, or it has been made to run another program and has the
    // first thread's id by now: whatever came next would be done to that program.
    ::kill(area_.process, SIGKILL);
  }
  return stop;
}

Result<void> Script::wait_for_end(pid_t thread) {
  const std::uint64_t end = place_.address + arch::interpreter_code().end_offset;
  for (;;) {
    const Stop stop = MIGRATE_TRY(await_stop(thread));
    if (stop.event == PTRACE_EVENT_CLONE) {
      unsigned long child = 0;
      if (::ptrace(PTRACE_GETEVENTMSG, thread, nullptr, &child) != 0) {
        return fail(system_error("learn the new thread of", "thread " + std::to_string(thread)));
      }
      new_threads_.push_back(static_cast<pid_t>(child));
      if (at_birth_) {
        MIGRATE_TRY(at_birth_(new_threads_.back()));
      }
    } else if (stop.event == 0 && stop.signal == arch::kScriptSignal) {
      siginfo_t information{};
      if (::ptrace(PTRACE_GETSIGINFO, thread, nullptr, &information) != 0) {
        return fail(system_error("learn the signal of", "thread " + std::to_string(thread)));
      }
      const auto registers = MIGRATE_TRY(arch::read_registers(thread));
      const bool at_end = arch::instruction_pointer(registers) == end;
      if (!at_end || !arch::is_script_signal(information)) {
        foreign_.push_back(information);  // Which may stand for that of the script, too.
      }
      if (at_end) {
        return give_back_signals(thread);
      }
    } else if (stop.event == 0 && stop.signal == SIGSTOP) {
      job_stop_ = true;
    } else if (stop.event == 0) {
      return fail(make_error(
          ErrorCode::kSystem, "run a script in",
          "thread " + std::to_string(thread) + " (signal " + std::to_string(stop.signal) + ")"));
    }
    // Neither an interrupt of ours nor job control keeps the script from its end.
    MIGRATE_TRY(resume(thread));
  }
}

}  // namespace migrate
