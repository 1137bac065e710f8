#include "pager/userfault.h"

#include <fcntl.h>
#include <poll.h>
#include <sys/ioctl.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <utility>

#include "base/log.h"

namespace migrate {
namespace {

/// UFFDIO_POISON of Linux 6.6, which older headers lack.
struct PoisonArgument {
  uffdio_range range;
  std::uint64_t mode;
  std::int64_t updated;
};
static_assert(sizeof(PoisonArgument) == 32);
constexpr unsigned long kPoisonRequest = _IOWR(UFFDIO, 0x08, PoisonArgument);

alignas(kPageBytes) const std::array<std::byte, kPageBytes> kZeroPage{};

/// Runs `step(address, bytes, done_bytes)`, an ioctl that installs pages and gives -1 with errno on
/// failure, over `range` until it is through or stops for a reason that the caller must know.
/// The one place that knows what the kernel's answers mean.
template <class Step>
InstallResult install(const Userfault& userfault, PageRange range, Step step) {
  InstallResult result;
  std::uint64_t stride = range.bytes();
  while (result.page_count < range.page_count) {
    const std::uint64_t address = range.start + result.page_count * kPageBytes;
    const std::uint64_t bytes = std::min(stride, range.end() - address);
    std::int64_t done_bytes = 0;
    errno = 0;
    if (step(address, bytes, done_bytes) == 0) {
      result.page_count += bytes / kPageBytes;
      continue;
    }
    if (done_bytes > 0) {  // EAGAIN after a part: the next call tells why
      result.page_count += static_cast<std::uint64_t>(done_bytes) / kPageBytes;
      continue;
    }
    switch (errno) {
      case EEXIST:
        result.outcome = InstallOutcome::kAlreadyThere;
        return result;
      case EAGAIN:
        result.outcome = InstallOutcome::kChanging;
        return result;
      case ESRCH:
        result.outcome = InstallOutcome::kProcessGone;
        return result;
      case EOPNOTSUPP:
        result.outcome = InstallOutcome::kUnsupported;
        return result;
      case EINTR:
        continue;
      case ENOENT:
        // Also what a range that crosses from one mapping to the next gives.
        if (bytes > kPageBytes) {
          stride = std::max(kPageBytes, page_floor(bytes / 2));
          continue;
        }
        // Since 6.9 the kernel looks for the mapping before it looks whether mappings change: what
        // is moved in this moment is not there for it. Whoever holds the events back until we are
        // done (all callers) sees by them that it was a change.
        result.outcome = userfault.probe();
        if (result.outcome == InstallOutcome::kInstalled) {
          result.outcome = InstallOutcome::kGone;
        }
        return result;
      default:
        // Out of memory, or what should not be. To wait is right: to go on would lose the page.
        log::warn("install page at {:#x}: {}; trying again", address,
                  system_error("install page").message());
        ::usleep(10000);
        result.outcome = InstallOutcome::kChanging;
        return result;
    }
  }
  return result;
}

}  // namespace

Result<Userfault> Userfault::create_for_self() {
  UniqueFd fd(static_cast<int>(::syscall(SYS_userfaultfd, O_CLOEXEC | O_NONBLOCK)));
  if (!fd.valid()) {
    return fail(
        system_error("userfaultfd", {}, "needs CAP_SYS_PTRACE or vm.unprivileged_userfaultfd=1"));
  }
  MIGRATE_TRY(handshake(fd.get()));
  return Userfault(std::move(fd));
}

Result<void> Userfault::handshake(int fd) {
  uffdio_api api{};
  api.api = UFFD_API;
  api.features = kRequiredFeatures | kThreadFeature | kPoisonFeature;
  if (::ioctl(fd, UFFDIO_API, &api) == 0) {
    return {};
  }
  if (errno == EINVAL) {
    api = {};
    api.api = UFFD_API;
    api.features = kRequiredFeatures | kThreadFeature;
    if (::ioctl(fd, UFFDIO_API, &api) == 0) {
      return {};
    }
  }
  Error error = system_error("userfaultfd handshake", "events of fork, remap, remove and unmap",
                             "needs Linux 4.11 with CONFIG_USERFAULTFD, and CAP_SYS_PTRACE");
  error.code = ErrorCode::kUnsupported;
  return fail(std::move(error));
}

Result<void> Userfault::register_range(PageRange range) const {
  uffdio_register argument{};
  argument.range = {range.start, range.bytes()};
  argument.mode = UFFDIO_REGISTER_MODE_MISSING;
  if (::ioctl(fd_.get(), UFFDIO_REGISTER, &argument) != 0) {
    Error error = system_error("register memory with userfaultfd");
    error.address = range.start;
    return fail(std::move(error));
  }
  return {};
}

Result<void> Userfault::unregister_range(PageRange range) const {
  uffdio_range argument{range.start, range.bytes()};
  if (::ioctl(fd_.get(), UFFDIO_UNREGISTER, &argument) != 0) {
    Error error = system_error("unregister memory from userfaultfd");
    error.address = range.start;
    return fail(std::move(error));
  }
  return {};
}

InstallResult Userfault::copy(std::uint64_t destination, std::span<const std::byte> bytes) const {
  const PageRange range{destination, bytes.size() / kPageBytes};
  const auto source = reinterpret_cast<std::uint64_t>(bytes.data());
  return install(*this, range,
                 [&](std::uint64_t address, std::uint64_t length, std::int64_t& done) {
                   uffdio_copy argument{};
                   argument.dst = address;
                   argument.src = source + (address - destination);
                   argument.len = length;
                   const int result = ::ioctl(fd_.get(), UFFDIO_COPY, &argument);
                   done = argument.copy;
                   return result;
                 });
}

InstallResult Userfault::zero(PageRange range) const {
  return install(*this, range,
                 [&](std::uint64_t address, std::uint64_t length, std::int64_t& done) {
                   uffdio_zeropage argument{};
                   argument.range = {address, length};
                   int result = ::ioctl(fd_.get(), UFFDIO_ZEROPAGE, &argument);
                   done = argument.zeropage;
                   if (result != 0 && errno == EINVAL) {  // a kind of memory that has no zero page
                     uffdio_copy copy{};
                     copy.dst = address;
                     copy.src = reinterpret_cast<std::uint64_t>(kZeroPage.data());
                     copy.len = kPageBytes;
                     result = ::ioctl(fd_.get(), UFFDIO_COPY, &copy);
                     done = copy.copy;
                     if (result == 0) {
                       result = length == kPageBytes ? 0 : -1;
                     }
                   }
                   return result;
                 });
}

InstallResult Userfault::poison(PageRange range) const {
  return install(*this, range,
                 [&](std::uint64_t address, std::uint64_t length, std::int64_t& done) {
                   PoisonArgument argument{};
                   argument.range = {address, length};
                   const int result = ::ioctl(fd_.get(), kPoisonRequest, &argument);
                   done = argument.updated;
                   if (result != 0 && (errno == EINVAL || errno == ENOTTY)) {
                     errno = EOPNOTSUPP;
                   }
                   return result;
                 });
}

void Userfault::wake(PageRange range) const {
  uffdio_range argument{range.start, range.bytes()};
  if (!range.empty() && ::ioctl(fd_.get(), UFFDIO_WAKE, &argument) != 0) {
    log::warn("wake waiters at {:#x}: {}", range.start, system_error("wake").message());
  }
}

Result<std::size_t> Userfault::read_events(std::span<uffd_msg> messages) const {
  for (;;) {
    const ssize_t count = ::read(fd_.get(), messages.data(), messages.size_bytes());
    if (count >= 0) {
      return static_cast<std::size_t>(count) / sizeof(uffd_msg);
    }
    if (errno == EAGAIN) {
      return std::size_t{0};
    }
    if (errno != EINTR) {
      return fail(system_error("read userfaultfd"));
    }
  }
}

bool Userfault::has_events() const {
  pollfd descriptor{fd_.get(), POLLIN, 0};
  return ::poll(&descriptor, 1, 0) > 0;
}

InstallOutcome Userfault::probe() const {
  // Write protection is never registered for, so that this changes nothing.
  uffdio_writeprotect argument{};
  argument.range = {std::uint64_t{1} << 20U, kPageBytes};
  if (::ioctl(fd_.get(), UFFDIO_WRITEPROTECT, &argument) == 0) {
    return InstallOutcome::kInstalled;
  }
  if (errno == EAGAIN) {
    return InstallOutcome::kChanging;
  }
  return errno == ESRCH ? InstallOutcome::kProcessGone : InstallOutcome::kInstalled;
}

}  // namespace migrate
