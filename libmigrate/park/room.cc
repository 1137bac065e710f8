#include "libmigrate/park/room.h"

#include <fmt/core.h>
#include <sys/resource.h>

#include <algorithm>
#include <string_view>

#include "base/file.h"
#include "libmigrate/image/only_process.h"
#include "libmigrate/park/parked_process.h"
#include "libmigrate/proc/proc_text.h"

namespace migrate {
namespace {

constexpr std::uint64_t kUnitBytes = 1024;
constexpr std::uint64_t kPipeEnds = 2;

std::uint64_t soft_limit(const wire::ProcessImage& image, int resource) {
  return resource < image.resource_limits_size() ? image.resource_limits(resource).soft()
                                                 : RLIM64_INFINITY;
}

}  // namespace

std::vector<wire::Refusal> check_room_to_park(pid_t process, const wire::Image& draft) {
  std::vector<wire::Refusal> refusals;
  const wire::ProcessImage& image = only_process(draft);
  const auto status = read_file("/proc/" + std::to_string(process) + "/status");
  const std::uint64_t more = ScriptArea::kRecordOffset + ParkedProcess::record_bytes(draft);
  const auto check_memory = [&](int resource, std::string_view name, std::string_view field) {
    const std::uint64_t used = status ? number_field(*status, field) * kUnitBytes : 0;
    if (const std::uint64_t limit = soft_limit(image, resource);
        limit != RLIM64_INFINITY && used + more > limit) {
      refusals.push_back(
          make_refusal("RLIMIT_REACHED", std::string(name),
                       fmt::format("{} KiB of {} KiB are used, and {} KiB more are needed",
                                   used / kUnitBytes, limit / kUnitBytes, more / kUnitBytes)));
    }
  };
  check_memory(RLIMIT_AS, "RLIMIT_AS", "VmSize:");
  // What is mapped from now on may be locked too (mlockall): only the process itself could tell.
  constexpr std::uint64_t kMayLock = 1U << 14U;  // CAP_IPC_LOCK
  const bool may_lock =
      image.threads_size() == 0 ||  // It ends, or becomes another program: that is told elsewhere.
      (image.threads(0).credentials().capabilities_effective() & kMayLock) != 0;
  if (!may_lock && status && number_field(*status, "VmLck:") != 0) {
    check_memory(RLIMIT_MEMLOCK, "RLIMIT_MEMLOCK", "VmLck:");
  }
  check_memory(RLIMIT_DATA, "RLIMIT_DATA", "VmData:");
  const std::uint64_t files = soft_limit(image, RLIMIT_NOFILE);
  const auto used = static_cast<std::uint64_t>(std::ranges::count_if(
      image.descriptors(),
      [files](const wire::Descriptor& descriptor) { return descriptor.number() < files; }));
  if (used + kPipeEnds > files) {
    refusals.push_back(make_refusal(
        "RLIMIT_REACHED", "RLIMIT_NOFILE",
        fmt::format("{} of {} descriptors are used, and 2 more are needed", used, files)));
  }
  return refusals;
}

}  // namespace migrate
