#include "base/assistant.h"

#include <utility>

#include "base/realtime_scope.h"
#include "base/thread.h"

namespace migrate {

Result<std::unique_ptr<Assistant>> Assistant::create() {
  auto assistant = std::unique_ptr<Assistant>(new Assistant());
  assistant->thread_ = MIGRATE_TRY(start_thread([&self = *assistant] { self.work(); }));
  return assistant;
}

Assistant::~Assistant() {
  if (thread_.joinable()) {
    start(nullptr);
    thread_.join();
  }
}

void Assistant::start(std::function<void()> job) {
  job_ = std::move(job);
  begin_.release();
}

void Assistant::wait() {
  done_.acquire();
}

void Assistant::work() {
  const RealtimeScope realtime;
  for (begin_.acquire(); job_; begin_.acquire()) {
    job_();
    done_.release();
  }
}

}  // namespace migrate
