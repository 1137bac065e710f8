#include "libmigrate/move/point_wait.h"

#include <sys/random.h>

#include <string>
#include <utility>

#include "base/log.h"
#include "libmigrate/image/refusal.h"
#include "libmigrate/rights/stand_in.h"

namespace migrate {
namespace {

std::string name_of(pid_t process) {
  return "process " + std::to_string(process);
}

}  // namespace

// In this order: what may_attach() was asked about may be another program than the one whose memory
// this has, but then nothing is written any more.
Result<PointWait> PointWait::begin(pid_t process, const Asker& asker,
                                   std::chrono::milliseconds longest) {
  auto program = Program::open(process);
  MIGRATE_TRY(may_attach(asker, process));
  if (!program) {
    return fail(std::move(program).error());
  }
  std::uint32_t request = 0;
  while (request == 0) {
    if (::getrandom(&request, sizeof request, 0) != sizeof request) {
      return fail(system_error("get random bytes"));
    }
  }
  MIGRATE_TRY(program->ask_for_point(request));
  return PointWait(std::move(*program), request, std::chrono::steady_clock::now() + longest);
}

PointWait::PointWait(PointWait&& other) noexcept
    : program_(std::exchange(other.program_, std::nullopt)),
      request_(other.request_),
      end_(other.end_) {}

PointWait& PointWait::operator=(PointWait&& other) noexcept {
  if (this != &other) {
    withdraw();
    program_ = std::exchange(other.program_, std::nullopt);
    request_ = other.request_;
    end_ = other.end_;
  }
  return *this;
}

PointWait::~PointWait() {
  withdraw();
}

void PointWait::withdraw() {
  if (!program_) {
    return;
  }
  const auto wish = program_->read();
  if (!wish || wish->point != request_) {
    return;
  }
  if (auto told = program_->ask_for_point(0); !told && told.error().code != ErrorCode::kNotFound) {
    log::warn("{}", told.error().message());
  }
}

PointWait::State PointWait::look() const {
  const auto wish = program_->read();
  if (!wish) {
    return State::kGone;
  }
  if (wish->vetoed == request_) {
    return State::kVetoed;
  }
  if (wish->point != request_) {
    return State::kReplaced;
  }
  if (wish->at_point == request_) {
    return State::kThere;
  }
  return std::chrono::steady_clock::now() < end_ ? State::kWaiting
         : wish->hooking == request_             ? State::kHookLate
                                                 : State::kTooLate;
}

Program PointWait::take_program() {
  Program program = std::move(*program_);
  program_.reset();
  return program;
}

wire::Refusal refusal_of_point(const PointWait& point, PointWait::State state, pid_t process) {
  if (state == PointWait::State::kVetoed) {
    return make_refusal("HOOK_VETO", name_of(process), point.veto());
  }
  if (state == PointWait::State::kHookLate) {
    return make_refusal("HOOK_NOT_DONE", name_of(process));
  }
  return make_refusal("POINT_NOT_REACHED", name_of(process),
                      state == PointWait::State::kReplaced ? "another request took its place"
                      : state == PointWait::State::kGone   ? "it has ended"
                                                           : "");
}

std::optional<std::chrono::milliseconds> longest_wait(
    pid_t process, std::optional<std::chrono::milliseconds> asked,
    std::chrono::milliseconds for_hooks) {
  if (asked) {
    return asked;
  }
  const auto program = Program::open(process);
  const auto wish = program ? program->read() : Result<ProgramWish>(fail(program.error()));
  return wish && wish->hooks != 0 ? std::optional(for_hooks) : std::nullopt;
}

wire::Refusal refusal_without_points(pid_t process) {
  return make_refusal("NO_POINT", name_of(process));
}

}  // namespace migrate
