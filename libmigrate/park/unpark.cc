// How a parked process is found again by a new worker, and how it is brought back.
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <sys/ptrace.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <charconv>
#include <chrono>
#include <cstdlib>
#include <span>
#include <thread>
#include <utility>

#include "base/clock.h"
#include "base/file.h"
#include "libmigrate/capture/timer_advance.h"
#include "libmigrate/image/image_form.h"
#include "libmigrate/image/only_process.h"
#include "libmigrate/park/internal/parking.h"
#include "libmigrate/park/parked_process.h"
#include "libmigrate/proc/proc_text.h"
#include "libmigrate/trace/tracee.h"

namespace migrate {
namespace {

constexpr std::uint64_t kMaxRecordBytes = 1ULL << 30U;

arch::GeneralRegisters registers_of(const wire::Thread& thread) {
  arch::GeneralRegisters registers{};
  thread.general_registers().copy(reinterpret_cast<char*>(&registers), sizeof(registers));
  return registers;
}

// Sends the signals to the process again, from within: only there may every siginfo be set.
void script_signals(Script& script, const std::vector<std::string>& signals,
                    const wire::ProcessImage& image, std::uint32_t thread) {
  const auto& own = image.threads(0).pending_signals();
  for (const std::string& signal : signals) {
    siginfo_t information{};
    signal.copy(reinterpret_cast<char*>(&information), sizeof(information));
    const std::uint64_t place = script.put_value(information);
    const auto number = static_cast<std::uint64_t>(information.si_signo);
    const bool of_thread =
        information.si_code == SI_TKILL || std::find(own.begin(), own.end(), signal) != own.end();
    if (of_thread) {
      script.call(SYS_rt_tgsigqueueinfo, {image.process_id(), thread, number, place});
    } else {
      script.call(SYS_rt_sigqueueinfo, {image.process_id(), number, place});
    }
  }
}

// The timers of `image` as they would be if they had run on.
wire::ProcessImage timers_now(const wire::ProcessImage& image) {
  wire::ProcessImage timers;
  *timers.mutable_interval_timers() = image.interval_timers();
  *timers.mutable_posix_timers() = image.posix_timers();
  timers.set_timers_read_ns(image.timers_read_ns());  // here
  wire::Objects none;
  advance_timers(none, timers, clock_ns(CLOCK_MONOTONIC));
  return timers;
}

}  // namespace

Result<ParkedProcess> ParkedProcess::adopt(pid_t process, std::uint64_t area,
                                           const SessionId& session, wire::Image& image) {
  ParkedProcess parked(process, {process, area, 0});
  MIGRATE_TRY(parked.read_record(session, image));
  const auto runs_on = [&] {
    return fail(make_error(ErrorCode::kNotFound, "take over", "process " + std::to_string(process),
                           "it was not parked, and runs on"));
  };
  if (!parked.stands_in_area()) {
    return runs_on();
  }
  MIGRATE_TRY(parked.seize_threads());
  MIGRATE_TRY(parked.area_.open_memory());
  if (!MIGRATE_TRY(parked.read_state())) {
    MIGRATE_TRY(parked.bring_back_strays(only_process(image)));
    return runs_on();
  }
  MIGRATE_TRY(parked.resume_loop());
  return parked;
}

// Without stopping anything: whether some thread waits in the area's loops.
bool ParkedProcess::stands_in_area() const {
  constexpr int kLooks = 5;  // A parked leader may just be taking a signal.
  constexpr auto kPause = std::chrono::milliseconds(10);
  const std::string path = "/proc/" + std::to_string(process_) + "/task/";
  for (int look = 0; look < kLooks; ++look) {
    for (const std::string& name : list_directory(path).value_or(std::vector<std::string>())) {
      // Number, arguments, stack and instruction pointer of the call that a thread waits in.
      const std::string call = read_file((path + name).append("/syscall")).value_or(std::string());
      const std::size_t at = call.rfind(' ');
      const std::uint64_t place =
          at == std::string::npos ? 0 : std::strtoull(call.c_str() + at, nullptr, 16);
      if (area_.contains(place)) {
        return true;
      }
    }
    std::this_thread::sleep_for(kPause);
  }
  return false;
}

// The tracer died while it parked them: nobody was told to run the process. Those that it had not
// come to run.
Result<void> ParkedProcess::bring_back_strays(const wire::ProcessImage& image) {
  for (std::size_t left = threads_.size(); left > 0; --left) {
    const ParkedThread& thread = threads_[left - 1];
    const std::uint64_t place =
        arch::instruction_pointer(MIGRATE_TRY(arch::read_registers(thread.host_id)));
    if (!area_.contains(place)) {
      continue;
    }
    MIGRATE_TRY(unpark_thread(thread, image));
    const wire::Thread& wanted = *find_thread(image, thread.id);
    MIGRATE_TRY(arch::write_registers(thread.host_id, registers_of(wanted)));
    MIGRATE_TRY(write_signal_mask(thread.host_id, wanted.signal_mask()));
  }
  for (const ParkedThread& thread : threads_) {
    MIGRATE_TRY(detach(thread.host_id));
  }
  return {};
}

// Without stopping anything: where there is none, the process runs and is to run on.
Result<void> ParkedProcess::read_record(const SessionId& session, wire::Image& image) {
  const auto none = [&] {
    return fail(make_error(ErrorCode::kNotFound, "find the parking record of",
                           "process " + std::to_string(process_)));
  };
  ParkingRecord record;
  if (area_.address == 0 ||
      !area_.read(area_.record(), std::as_writable_bytes(std::span(&record, 1)))) {
    return none();
  }
  if (record.magic != ParkingRecord::kMagic || record.session != session ||
      record.image_bytes > kMaxRecordBytes) {
    return none();
  }
  std::string bytes(record.image_bytes, '\0');
  MIGRATE_TRY(
      area_.read(area_.record() + sizeof(record), std::as_writable_bytes(std::span(bytes))));
  // The area is the process's own memory: whatever stands there is looked at like a stranger's.
  if (!image.ParseFromString(bytes) || !check_form(image, ImageStage::kFinal)) {
    return none();
  }
  area_.length_bytes = record.area_bytes;
  return {};
}

Result<void> ParkedProcess::seize_threads() {
  const std::string path = "/proc/" + std::to_string(process_) + "/task";
  for (const std::string& name : MIGRATE_TRY(list_directory(path))) {
    pid_t thread = 0;
    std::from_chars(name.data(), name.data() + name.size(), thread);
    auto seized = seize(thread);
    if (!seized && thread != process_ && has_ended(thread)) {
      continue;
    }
    MIGRATE_TRY(std::move(seized));
    MIGRATE_TRY(interrupt(thread));
    if (MIGRATE_TRY(stop_seized(thread))) {
      threads_.push_back({thread, MIGRATE_TRY(inner_thread_id(process_, thread))});
    }
  }
  const auto leader = std::find_if(threads_.begin(), threads_.end(),
                                   [&](const auto& thread) { return thread.host_id == process_; });
  if (leader == threads_.end()) {
    return fail(make_error(ErrorCode::kNotFound, "take over", "process " + std::to_string(process_),
                           "it has ended"));
  }
  std::rotate(threads_.begin(), leader, leader + 1);
  return {};
}

// False: it has ended.
Result<bool> ParkedProcess::stop_seized(pid_t thread) {
  for (;;) {
    const auto stop = wait_stop(thread);
    if (!stop && stop.error().code == ErrorCode::kNotFound) {
      return false;
    }
    if (!stop) {
      return fail(stop.error());
    }
    if (stop->event == PTRACE_EVENT_STOP) {
      listening_ = listening_ || (stop->group_stop && thread == process_);
      return true;
    }
    MIGRATE_TRY(resume_to_interrupt(thread, stop->event == 0 ? stop->signal : 0));
  }
}

// Parked is who stands in the leader's loop; its registers were set last of all.
Result<bool> ParkedProcess::read_state() {
  const arch::GeneralRegisters registers = MIGRATE_TRY(arch::read_registers(process_));
  const arch::InterpreterCode code = arch::interpreter_code();
  const bool in_loop = arch::is_in_loop(registers, area_.code() + code.park_offset,
                                        area_.code() + code.idle_offset, area_.parking());
  if (!in_loop) {
    return false;
  }
  ParkingPage page;
  MIGRATE_TRY(area_.read(area_.parking(), std::as_writable_bytes(std::span(&page, 1))));
  MIGRATE_TRY(fetch_pipe(page.notes));
  if (page.notes.signal_count > ScriptArea::kDataBytes / sizeof(siginfo_t)) {
    return fail(make_error(ErrorCode::kCorrupt, "read the parking record of",
                           "process " + std::to_string(process_)));
  }
  std::string signals(page.notes.signal_count * sizeof(siginfo_t), '\0');
  if (!signals.empty()) {
    MIGRATE_TRY(area_.read(area_.place().data(), std::as_writable_bytes(std::span(signals))));
    for (std::size_t at = 0; at < signals.size(); at += sizeof(siginfo_t)) {
      signals_.push_back(signals.substr(at, sizeof(siginfo_t)));
    }
  }
  return true;
}

// Back into the leader's loop, from which stop_leader() fetches it.
Result<void> ParkedProcess::resume_loop() {
  if (listening_) {
    if (::ptrace(PTRACE_LISTEN, process_, nullptr, nullptr) != 0) {
      return fail(system_error("listen to", "process " + std::to_string(process_)));
    }
  } else {
    MIGRATE_TRY(resume(process_));
  }
  looping_ = true;
  return {};
}

// Those of the image that were taken from the queues, and what came since.
Result<std::vector<std::string>> ParkedProcess::signals_to_give_back(
    const wire::ProcessImage& image) {
  std::vector<std::string> pending = MIGRATE_TRY(peek_signals(process_, true));
  const std::vector<std::string> own = MIGRATE_TRY(peek_signals(process_, false));
  pending.insert(pending.end(), own.begin(), own.end());
  std::vector<std::string> signals;
  for (std::string& signal : captured_signals(image)) {
    const auto still = std::find(pending.begin(), pending.end(), signal);
    if (still == pending.end()) {
      signals.push_back(std::move(signal));
    } else {
      pending.erase(still);
    }
  }
  signals.insert(signals.end(), signals_.begin(), signals_.end());
  pollfd polled{signal_pipe_.get(), POLLIN, 0};
  std::string signal(sizeof(siginfo_t), '\0');
  while (signal_pipe_.valid() && ::poll(&polled, 1, 0) > 0 && (polled.revents & POLLIN) != 0 &&
         ::read(polled.fd, signal.data(), signal.size()) == static_cast<ssize_t>(signal.size())) {
    signals.push_back(signal);
  }
  return signals;
}

Result<void> ParkedProcess::unpark_thread(const ParkedThread& thread,
                                          const wire::ProcessImage& image) {
  const wire::Thread* const wanted = find_thread(image, thread.id);
  if (wanted == nullptr) {
    return fail(make_error(ErrorCode::kCorrupt, "bring back", "thread " + std::to_string(thread.id),
                           "it is not in the parking record"));
  }
  Script script(area_);
  script_tie(script, *wanted);
  if (thread.host_id == process_) {
    script_action(script, &image);
    for (const std::uint32_t descriptor : pipe_descriptors_) {
      script.call(SYS_close, {descriptor});
    }
    script_signals(script, MIGRATE_TRY(signals_to_give_back(image)), image, thread.id);
    script_timers(script, timers_now(image), true);
  }
  // If we die: the others wait until the leader, the last of all, has been brought back.
  const arch::GeneralRegisters own = registers_of(*wanted);
  if (thread.host_id == process_) {
    return script.run(process_, own, wanted->signal_mask());
  }
  return script.run(thread.host_id, idle_registers(own, area_), kAllSignals);
}

Result<void> ParkedProcess::unpark(const wire::ProcessImage& image) {
  auto back = bring_back(image);
  if (!back && back.error().code == ErrorCode::kNotFound) {
    for (std::size_t left = threads_.size(); left > 0; --left) {
      reap(threads_[left - 1].host_id);
    }
  }
  return back;
}

Result<void> ParkedProcess::bring_back(const wire::ProcessImage& image) {
  if (static_cast<int>(threads_.size()) != image.threads_size()) {
    return fail(make_error(ErrorCode::kRefused, "bring back", "process " + std::to_string(process_),
                           "its other threads have been ended, because it ran elsewhere"));
  }
  if (looping_) {
    MIGRATE_TRY(take_carried(MIGRATE_TRY(stop_leader())));
  }
  if (std::exchange(stop_again_, false)) {
    send_stop_again(process_);  // It stops once it is back.
  }
  // The leader last: with its timers and signals the others must be whole.
  for (std::size_t left = threads_.size(); left > 0; --left) {
    MIGRATE_TRY(unpark_thread(threads_[left - 1], image));
  }
  return put_back(image);
}

// The loop may have been stopped between taking a signal and writing it to the pipe.
Result<void> ParkedProcess::take_carried(const arch::GeneralRegisters& registers) {
  if (!arch::carries_signal(registers, area_.code())) {
    return {};
  }
  std::string signal(sizeof(siginfo_t), '\0');
  MIGRATE_TRY(area_.read(area_.parking() + arch::kSignalInformationOffset,
                         std::as_writable_bytes(std::span(signal))));
  signals_.push_back(std::move(signal));
  return {};
}

Result<void> ParkedProcess::put_back(const wire::ProcessImage& image) {
  const arch::GeneralRegisters base = registers_of(*find_thread(image, threads_.front().id));
  std::uint64_t system_call = 0;
  for (const wire::Mapping& mapping : image.mappings()) {
    if (mapping.kind() == wire::Mapping::VDSO) {
      system_call = MIGRATE_TRY(find_system_call_in(process_, mapping.start(), mapping.end()));
    }
  }
  if (system_call != 0) {
    MIGRATE_TRY(unmap_script_area(area_, process_, base, system_call));
  }
  for (const ParkedThread& thread : threads_) {
    const wire::Thread& wanted = *find_thread(image, thread.id);
    MIGRATE_TRY(arch::write_registers(thread.host_id, registers_of(wanted)));
    MIGRATE_TRY(write_signal_mask(thread.host_id, wanted.signal_mask()));
  }
  for (const ParkedThread& thread : threads_) {
    MIGRATE_TRY(detach(thread.host_id));
  }
  return {};
}

}  // namespace migrate
