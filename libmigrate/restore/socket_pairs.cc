#include "libmigrate/restore/socket_pairs.h"

#include <sys/socket.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <array>
#include <string>
#include <utility>

namespace migrate {
namespace {

using Ends = std::array<int, 2>;

constexpr std::uint64_t kSame = ~0ULL;  // setresuid(2): this id stays.

Result<UniqueFd> fetch(int pidfd, int number) {
  UniqueFd fd(static_cast<int>(::syscall(SYS_pidfd_getfd, pidfd, number, 0)));
  if (!fd.valid()) {
    return fail(system_error("fetch a socket of", "the process that is restored"));
  }
  return fd;
}

}  // namespace

std::uint64_t script_socket_pairs(Script& script, const wire::Objects& objects,
                                  const wire::Credentials& wanted, const wire::Credentials& own) {
  const std::uint64_t place =
      script.reserve(static_cast<std::size_t>(objects.socket_pairs_size()) * sizeof(Ends));
  const bool another = wanted.uid_effective() != own.uid_effective() ||
                       wanted.gid_effective() != own.gid_effective();
  if (another) {
    script.must("set the group id", SYS_setresgid, {kSame, wanted.gid_effective(), kSame});
    script.must("set the user id", SYS_setresuid, {kSame, wanted.uid_effective(), kSame});
  }
  std::uint64_t at = place;
  for (const wire::SocketPair& pair : objects.socket_pairs()) {
    script.must("make a socket pair", SYS_socketpair,
                {AF_UNIX, pair.type() | std::uint64_t{SOCK_CLOEXEC}, 0, at});
    at += sizeof(Ends);
  }
  if (another) {
    script.must("set the user id", SYS_setresuid, {kSame, own.uid_effective(), kSame});
    script.must("set the group id", SYS_setresgid, {kSame, own.gid_effective(), kSame});
  }
  return place;
}

Result<std::vector<carriers::MadeSocketPair>> fetch_socket_pairs(const Script& script,
                                                                 std::uint64_t place, pid_t process,
                                                                 const wire::Objects& objects) {
  const UniqueFd pidfd(static_cast<int>(::syscall(SYS_pidfd_open, process, 0)));
  std::vector<carriers::MadeSocketPair> pairs;
  for (int i = 0; i < objects.socket_pairs_size(); ++i) {
    const auto ends = script.value<Ends>(place + static_cast<std::uint64_t>(i) * sizeof(Ends));
    carriers::MadeSocketPair pair;
    pair.first = MIGRATE_TRY(fetch(pidfd.get(), ends[0]));
    pair.second = MIGRATE_TRY(fetch(pidfd.get(), ends[1]));
    pairs.push_back(std::move(pair));
  }
  return pairs;
}

}  // namespace migrate
