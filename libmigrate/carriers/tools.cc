#include "libmigrate/carriers/internal/tools.h"

#include <string>

#include "base/file.h"
#include "libmigrate/proc/proc_text.h"

namespace migrate::carriers {

Result<UniqueFd> owned(long fd, const char* operation) {
  if (fd < 0) {
    return fail(system_error(operation));
  }
  return UniqueFd(static_cast<int>(fd));
}

Result<void> set_flags(int fd, std::uint32_t flags) {
  if (::fcntl(fd, F_SETFL, flags & (O_APPEND | O_NONBLOCK | O_DIRECT | O_NOATIME)) != 0) {
    return fail(system_error("set the flags of a descriptor"));
  }
  return {};
}

Result<UniqueFd> reopen(int fd, std::uint32_t flags) {
  return open_file("/proc/self/fd/" + std::to_string(fd),
                   static_cast<int>(flags & ~kCreationFlags));
}

std::uint64_t inode_in(std::string_view link) {
  const std::size_t bracket = link.find('[');
  if (bracket == std::string_view::npos || !link.ends_with(']')) {
    return 0;
  }
  return parse_number(link.substr(bracket + 1, link.size() - bracket - 2)).value_or(0);
}

std::string descriptor_name(std::uint32_t number) {
  return "descriptor " + std::to_string(number);
}

}  // namespace migrate::carriers
