#include "libmigrate/requests/policy_file.h"

#include <fcntl.h>
#include <unistd.h>

#include <cerrno>

#include "base/file.h"

namespace migrate {

namespace {

// Not by its size: it may be a pipe (<(command) of a shell), or a device that never ends.
Result<std::string> read_text(const std::string& path) {
  constexpr std::size_t kMostBytes = std::size_t{1} << 20U;
  const UniqueFd file = MIGRATE_TRY(open_file(path, O_RDONLY));
  std::string text(kMostBytes + 1, '\0');
  std::size_t length = 0;
  while (length < text.size()) {
    const ssize_t count = ::read(file.get(), text.data() + length, text.size() - length);
    if (count < 0 && errno == EINTR) {
      continue;
    }
    if (count < 0) {
      return fail(system_error("read", path));
    }
    if (count == 0) {
      text.resize(length);
      return text;
    }
    length += static_cast<std::size_t>(count);
  }
  return fail(make_error(ErrorCode::kInvalid, "read the policy", path,
                         "it is longer than 1 MiB: name a file of rules"));
}

}  // namespace

Result<PolicyRules> read_policy(const std::string& path) {
  return parse_policy(MIGRATE_TRY(read_text(path)), path);
}

Result<HostRules> read_host_policy(const std::string& path) {
  const std::string text = MIGRATE_TRY(read_text(path));
  return HostRules{MIGRATE_TRY(parse_host_policy(text, path)),
                   MIGRATE_TRY(parse_link_rules(text, path))};
}

}  // namespace migrate
