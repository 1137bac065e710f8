#include "tests/libmigrate/capture/captured_process.h"

#include <gtest/gtest.h>
#include <pthread.h>
#include <signal.h>

#include <array>
#include <chrono>
#include <sstream>
#include <thread>
#include <utility>

#include "base/assistant.h"
#include "libmigrate/capture/capture.h"
#include "libmigrate/capture/contents.h"
#include "libmigrate/park/parked_process.h"
#include "libmigrate/trace/tracee.h"

namespace migrate::test {
namespace {

constexpr std::size_t kSignalNumbers = 65;
std::array<volatile int, kSignalNumbers> signals_counted{};  // In the process.

void note_signal(int signal) {
  volatile int& count = signals_counted[static_cast<std::size_t>(signal)];
  count = count + 1;
}

std::uint64_t vdso_call(pid_t process, const wire::Image& draft) {
  for (const wire::Mapping& mapping : only_process(draft).mappings()) {
    if (mapping.kind() == wire::Mapping::VDSO) {
      return find_system_call_in(process, mapping.start(), mapping.end()).value();
    }
  }
  return 0;
}

}  // namespace

CapturedProcess::CapturedProcess(pid_t process, KnownObjects known) {
  const auto captured = capture(process, std::move(known));
  EXPECT_TRUE(captured) << captured.error().message();
  valid_ = captured.has_value();
}

Result<void> CapturedProcess::capture(pid_t process, KnownObjects known) {
  auto inspector = MIGRATE_TRY(ProcessInspector::create(process, std::move(known)));
  Inspection running = MIGRATE_TRY(inspector.inspect_running());
  for (const wire::Refusal& refusal : running.refusals) {
    ADD_FAILURE() << refusal.code() << " " << refusal.object() << ": " << refusal.reason();
  }
  draft_ = std::move(running.image);
  const auto assistant = MIGRATE_TRY(Assistant::create());
  frozen_.emplace(
      MIGRATE_TRY(FrozenProcess::freeze(process, vdso_call(process, draft_), inspector.threads())));
  const auto meanwhile = [&](wire::ProcessImage& facts) -> Result<void> {
    MIGRATE_TRY(frozen_->open_area(ParkedProcess::record_bytes(draft_)));
    return capture_state(*frozen_, {}, facts, refusals_);
  };
  Inspection frozen = MIGRATE_TRY(inspector.inspect_frozen(draft_, *assistant, meanwhile));
  if (!frozen.refusals.empty()) {
    return fail(make_error(ErrorCode::kRefused, "capture", frozen.refusals.front().code()));
  }
  image_ = std::move(frozen.image);
  content_files_ = MIGRATE_TRY(capture_contents(process, image_));
  return capture_starter_pages(*frozen_, this->process());
}

wire::Image lasting(wire::Image image) {
  wire::ProcessImage& process = mutable_only_process(image);
  process.clear_timers_read_ns();
  process.clear_starter_pages();
  for (wire::IntervalTimer& timer : *process.mutable_interval_timers()) {
    timer.clear_value_us();
  }
  for (wire::PosixTimer& timer : *process.mutable_posix_timers()) {
    timer.clear_value_ns();
  }
  for (wire::Thread& thread : *process.mutable_threads()) {
    thread.clear_wait_remaining_ns();
  }
  for (wire::OpenFile& file : *image.mutable_objects()->mutable_files()) {
    file.clear_read_ns();
    file.clear_value_ns();
  }
  return image;
}

std::string difference(const wire::Image& one, const wire::Image& other) {
  constexpr int kContext = 12;
  constexpr std::size_t kWidth = 120;  // Registers are long.
  std::istringstream first(one.DebugString());
  std::istringstream second(other.DebugString());
  std::string before;
  std::string a;
  std::string b;
  for (;;) {
    const bool more = static_cast<bool>(std::getline(first, a));
    const bool more_of_other = static_cast<bool>(std::getline(second, b));
    if (!more && !more_of_other) {
      return {};
    }
    if (more != more_of_other || a != b) {
      break;
    }
    before = a.substr(0, kWidth) + "\n" + before.substr(0, kContext * kWidth);
  }
  std::string told = "before (backwards):\n" + before;
  for (int line = 0; line < kContext; ++line) {
    told += "- " + a.substr(0, kWidth) + "\n+ " + b.substr(0, kWidth) + "\n";
    std::getline(first, a);
    std::getline(second, b);
  }
  return told;
}

void count(std::initializer_list<int> signals) {
  struct sigaction action {};
  action.sa_handler = note_signal;
  action.sa_flags = SA_RESTART;
  for (const int signal : signals) {
    ::sigaction(signal, &action, nullptr);
  }
}

int counted(pid_t process, int signal) {
  const volatile int& place = signals_counted[static_cast<std::size_t>(signal)];
  int count = -1;
  EXPECT_TRUE(read_memory(process, reinterpret_cast<std::uint64_t>(&place),
                          std::as_writable_bytes(std::span(&count, 1))));
  return count;
}

void hold_back(std::initializer_list<int> signals) {
  sigset_t set;
  sigemptyset(&set);
  for (const int signal : signals) {
    sigaddset(&set, signal);
  }
  ::pthread_sigmask(SIG_BLOCK, &set, nullptr);
}

bool comes_true(const std::function<bool()>& holds) {
  constexpr int kLooks = 2500;
  for (int look = 0; look < kLooks; ++look) {
    if (holds()) {
      return true;
    }
    std::this_thread::sleep_for(std::chrono::milliseconds(2));
  }
  return false;
}

}  // namespace migrate::test
