#include "pager/internal/guard_scan.h"

#include <fcntl.h>
#include <sys/ioctl.h>

#include <cerrno>
#include <cstdint>
#include <string>
#include <utility>

#include "base/file.h"
#include "pager/internal/pagemap_scan.h"

namespace migrate {

PageRange GuardScan::first_in(PageRange range, pid_t pid) {
  if (usable_ && !pagemap_.valid() && pid != 0) {
    auto pagemap = open_file("/proc/" + std::to_string(pid) + "/pagemap", O_RDONLY);
    usable_ = pagemap.has_value();
    pagemap_ = usable_ ? std::move(*pagemap) : UniqueFd();
  }
  if (!usable_ || !pagemap_.valid()) {
    return {};
  }
  ScanRegion found{};
  ScanArgument scan{};
  scan.size = sizeof(scan);
  scan.start = range.start;
  scan.end = range.end();
  scan.vector = reinterpret_cast<std::uint64_t>(&found);
  scan.vector_length = 1;
  scan.category_mask = kPageIsGuard;
  scan.return_mask = kPageIsGuard;
  const int count = ::ioctl(pagemap_.get(), kScanRequest, &scan);
  if (count < 0 && errno != EINTR && errno != EAGAIN) {
    usable_ = false;  // not in this kernel, or the process has ended
  }
  return count > 0 ? PageRange::between(found.start, found.end) : PageRange{};
}

}  // namespace migrate
