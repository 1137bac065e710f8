#include "libmigrate/capture/borrowed_userfault.h"

#include <fcntl.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <cerrno>
#include <string>

#include "libmigrate/trace/script.h"

namespace migrate {
namespace {

constexpr std::uint64_t kUserModeOnly = 1;  // UFFD_USER_MODE_ONLY, Linux 5.11

}  // namespace

Result<UniqueFd> borrow_userfault(const FrozenProcess& frozen) {
  const FrozenThread& leader = frozen.leader();
  const std::string name = "process " + std::to_string(frozen.process());
  const UniqueFd pidfd(static_cast<int>(::syscall(SYS_pidfd_open, frozen.process(), 0)));
  if (!pidfd.valid()) {
    return fail(system_error("open", name));
  }
  Script make(frozen.area());
  const std::size_t made = make.call(SYS_userfaultfd, {O_CLOEXEC | O_NONBLOCK | kUserModeOnly});
  MIGRATE_TRY(make.run(leader.host_id, leader.registers, kScriptSignalMask));
  const std::int64_t number = make.result(made);
  if (number == -EMFILE || number == -ENFILE) {
    return fail(make_error(ErrorCode::kRefused, "follow what is written by", name,
                           "it has as many descriptors as it may have"));
  }
  if (number < 0) {
    return fail(make_error(ErrorCode::kUnsupported, "follow what is written by", name,
                           "the kernel gives it no userfaultfd"));
  }
  UniqueFd userfault(
      static_cast<int>(::syscall(SYS_pidfd_getfd, pidfd.get(), static_cast<int>(number), 0)));
  const int why = errno;
  Script close(frozen.area());
  close.must("close", SYS_close, {static_cast<std::uint64_t>(number)});
  MIGRATE_TRY(close.run(leader.host_id, leader.registers, kScriptSignalMask));
  if (!userfault.valid()) {
    return fail(system_error_from(why, "take a userfaultfd from", name));
  }
  return userfault;
}

}  // namespace migrate
