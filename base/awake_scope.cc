#include "base/awake_scope.h"

#include <pthread.h>
#include <sched.h>

#include <chrono>

#include "base/thread.h"

namespace migrate {
namespace {

constexpr auto kLongest = std::chrono::milliseconds(50);

void stay_awake(const std::atomic<bool>& end) {
  const sched_param parameter{};
  if (::sched_setscheduler(0, SCHED_IDLE, &parameter) != 0) {
    return;
  }
  const auto until = std::chrono::steady_clock::now() + kLongest;
  while (!end && std::chrono::steady_clock::now() < until) {
  }
}

}  // namespace

Result<std::unique_ptr<AwakeScope>> AwakeScope::create() {
  auto scope = std::unique_ptr<AwakeScope>(new AwakeScope());
  scope->thread_ = MIGRATE_TRY(start_thread([&end = scope->end_] { stay_awake(end); }));
  return scope;
}

AwakeScope::~AwakeScope() {
  end_ = true;
  if (thread_.joinable()) {
    // On a busy host it would have to wait long for a processor, to find out that it may end.
    const sched_param parameter{};
    static_cast<void>(::pthread_setschedparam(thread_.native_handle(), SCHED_OTHER, &parameter));
    thread_.join();
  }
}

}  // namespace migrate
