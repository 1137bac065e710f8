#pragma once

#include <linux/userfaultfd.h>

#include <cstddef>
#include <cstdint>
#include <span>

#include "base/result.h"
#include "base/unique_fd.h"
#include "pager/page_range.h"

namespace migrate {

/// What became of a request to install pages.
enum class InstallOutcome : std::uint8_t {
  kInstalled,     ///< All pages are in place.
  kAlreadyThere,  ///< Stopped at a page that is present already.
  kChanging,      ///< The address space is changing: read the events, then look again.
  kGone,          ///< Stopped at a page that is not registered (any more), and no change is under
                  ///< way. Certain only if no events are read meanwhile.
  kProcessGone,   ///< The address space has ended (exit or exec).
  kUnsupported,   ///< This kernel cannot do it (poison only).
};

struct InstallResult {
  InstallOutcome outcome = InstallOutcome::kInstalled;
  std::uint64_t page_count = 0;  ///< Pages installed before it stopped.
};

/// Owns a userfaultfd of one address space, usually that of another process.
/// Every call may be made by any thread; read_events by one at a time. No call waits for the
/// process.
class Userfault {
 public:
  /// Features without which a process cannot be paged safely, and those used when there.
  static constexpr std::uint64_t kRequiredFeatures =
      UFFD_FEATURE_EVENT_FORK | UFFD_FEATURE_EVENT_REMAP | UFFD_FEATURE_EVENT_REMOVE |
      UFFD_FEATURE_EVENT_UNMAP | UFFD_FEATURE_MISSING_SHMEM;
  static constexpr std::uint64_t kPoisonFeature = std::uint64_t{1} << 14U;  // Linux 6.6
  /// Faults name their thread (Linux 4.14); without it, all seem to be of one.
  static constexpr std::uint64_t kThreadFeature = UFFD_FEATURE_THREAD_ID;

  /// A userfaultfd (close-on-exec, non-blocking, faults from kernel mode included) of the calling
  /// process, with kRequiredFeatures. Errors: kUnsupported (what the kernel lacks, or
  /// CAP_SYS_PTRACE).
  static Result<Userfault> create_for_self();

  /// Takes over a userfaultfd on which UFFDIO_API was done, with kRequiredFeatures at least.
  static Userfault adopt(UniqueFd fd) { return Userfault(std::move(fd)); }

  /// UFFDIO_API on a fresh userfaultfd of any process, such as one fetched with pidfd_getfd, with
  /// kRequiredFeatures, kThreadFeature, and kPoisonFeature where the kernel has it. Borrows `fd`.
  /// Errors: kUnsupported.
  static Result<void> handshake(int fd);

  int fd() const { return fd_.get(); }

  /// Makes missing pages in `range` wait for an install. Anonymous and shared memory only.
  /// Errors: kSystem (EINVAL: some other kind of mapping, ENOMEM: the process is gone, EBUSY).
  Result<void> register_range(PageRange range) const;
  /// Lets the kernel fill missing pages in `range` with zeros again; wakes its waiters.
  Result<void> unregister_range(PageRange range) const;

  /// Installs `bytes` (whole pages, borrowed) at `destination` and wakes its waiters.
  InstallResult copy(std::uint64_t destination, std::span<const std::byte> bytes) const;
  /// Installs zeros in `range` and wakes its waiters.
  InstallResult zero(PageRange range) const;
  /// Makes every touch of `range` a SIGBUS and wakes its waiters. Kernel: Linux 6.6; without it
  /// the outcome is kUnsupported and waiters go on waiting.
  InstallResult poison(PageRange range) const;

  /// Lets the threads that wait for `range` try again.
  void wake(PageRange range) const;

  /// Reads what has happened, without blocking; 0 when nothing has. Fork events carry a new
  /// userfaultfd that the caller owns. Errors: kSystem.
  Result<std::size_t> read_events(std::span<uffd_msg> messages) const;

  /// True if read_events() would find something.
  bool has_events() const;

  /// True while a fork, remap, remove or unmap of the process is under way or its event unread.
  /// `kProcessGone` and `kChanging` are the outcomes of interest; else kInstalled.
  InstallOutcome probe() const;

 private:
  explicit Userfault(UniqueFd fd) : fd_(std::move(fd)) {}

  UniqueFd fd_;
};

}  // namespace migrate
