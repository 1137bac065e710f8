#include "libmigrate/restore/self_made.h"

#include <sys/socket.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <utility>

#include "libmigrate/carriers/carriers.h"

namespace migrate {
namespace {

using Ends = std::array<int, 2>;

constexpr std::uint64_t kSame = ~0ULL;  // setresuid(2): this id stays.

Result<UniqueFd> fetch_one(int pidfd, int number) {
  UniqueFd fd(static_cast<int>(::syscall(SYS_pidfd_getfd, pidfd, number, 0)));
  if (!fd.valid()) {
    return fail(system_error("fetch a descriptor of", "the process that is restored"));
  }
  return fd;
}

// The saved ids stay, by which the way back is open.
void script_ids(Script& script, const wire::Credentials& ids) {
  script.must("set the group id", SYS_setresgid, {ids.gid_real(), ids.gid_effective(), kSame});
  script.must("set the user id", SYS_setresuid, {ids.uid_real(), ids.uid_effective(), kSame});
}

}  // namespace

bool SelfMaking::is_needed(const wire::Objects& objects) {
  return objects.socket_pairs_size() > 0 ||
         std::ranges::any_of(objects.files(), [](const wire::OpenFile& file) {
           return carriers::carrier_of(file.kind()).create != nullptr;
         });
}

SelfMaking::SelfMaking(Script& script, const wire::Objects& objects,
                       const wire::Credentials& wanted, const wire::Credentials& own)
    : objects_(objects),
      pairs_at_(
          script.reserve(static_cast<std::size_t>(objects.socket_pairs_size()) * sizeof(Ends))) {
  const bool another =
      wanted.uid_effective() != own.uid_effective() || wanted.uid_real() != own.uid_real() ||
      wanted.gid_effective() != own.gid_effective() || wanted.gid_real() != own.gid_real();
  if (another) {
    script_ids(script, wanted);
  }
  std::uint64_t at = pairs_at_;
  for (const wire::SocketPair& pair : objects.socket_pairs()) {
    script.must("make a socket pair", SYS_socketpair,
                {AF_UNIX, pair.type() | std::uint64_t{SOCK_CLOEXEC}, 0, at});
    at += sizeof(Ends);
  }
  for (int i = 0; i < objects.files_size(); ++i) {
    const wire::OpenFile& file = objects.files(i);
    const carriers::Carrier& carrier = carriers::carrier_of(file.kind());
    if (carrier.create != nullptr) {
      files_.push_back({static_cast<std::size_t>(i), carrier.create(script, objects, file)});
    }
  }
  if (another) {
    script.must("set the user id", SYS_setresuid, {own.uid_real(), own.uid_effective(), kSame});
    script.must("set the group id", SYS_setresgid, {own.gid_real(), own.gid_effective(), kSame});
  }
}

Result<SelfMade> SelfMaking::fetch(const Script& script, pid_t process) const {
  const UniqueFd pidfd(static_cast<int>(::syscall(SYS_pidfd_open, process, 0)));
  SelfMade made;
  for (int i = 0; i < objects_.socket_pairs_size(); ++i) {
    const auto ends = script.value<Ends>(pairs_at_ + static_cast<std::uint64_t>(i) * sizeof(Ends));
    carriers::MadeSocketPair pair;
    pair.first = MIGRATE_TRY(fetch_one(pidfd.get(), ends[0]));
    pair.second = MIGRATE_TRY(fetch_one(pidfd.get(), ends[1]));
    made.socket_pairs.push_back(std::move(pair));
  }
  made.files.resize(static_cast<std::size_t>(objects_.files_size()));
  for (const MadeFile& each : files_) {
    made.files[each.file] =
        MIGRATE_TRY(fetch_one(pidfd.get(), static_cast<int>(script.result(each.call))));
  }
  return made;
}

}  // namespace migrate
