#include "libmigrate/links/unix_pair.h"

#include <sched.h>
#include <sys/mount.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/un.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cstddef>
#include <optional>
#include <utility>

#include "base/thread.h"

namespace migrate {
namespace {

constexpr std::size_t kNameAt = offsetof(sockaddr_un, sun_path);

struct Address {
  sockaddr_un name{};
  socklen_t size = 0;

  const sockaddr* get() const { return reinterpret_cast<const sockaddr*>(&name); }
};

Address address_of(const std::string& bytes) {
  Address address;
  address.name.sun_family = AF_UNIX;
  std::copy_n(bytes.data(), std::min(bytes.size(), sizeof(address.name.sun_path)),
              static_cast<char*>(address.name.sun_path));
  address.size = static_cast<socklen_t>(kNameAt + bytes.size());
  return address;
}

bool is_abstract(const std::string& name) {
  return !name.empty() && name.front() == '\0';
}

/// While it lives, this thread is the user and group whom the kernel notes with a socket as its
/// maker. Of this thread alone: the calls of the C library are for all.
class MakerScope {
 public:
  MakerScope(uid_t user, gid_t group) : user_(::geteuid()), group_(::getegid()) {
    become(user, group);
  }
  MakerScope(const MakerScope&) = delete;
  MakerScope& operator=(const MakerScope&) = delete;
  ~MakerScope() {
    ::syscall(SYS_setresuid, -1, user_, -1);
    ::syscall(SYS_setresgid, -1, group_, -1);
  }
  bool is_it() const { return is_it_; }

 private:
  void become(uid_t user, gid_t group) {
    is_it_ =
        ::syscall(SYS_setresgid, -1, group, -1) == 0 && ::syscall(SYS_setresuid, -1, user, -1) == 0;
  }

  const uid_t user_;
  const gid_t group_;
  bool is_it_ = false;
};

Error cannot(const char* what) {
  return system_error(what, "a pair of Unix domain sockets");
}

/// What this thread binds is bound in a file system of its own, which is empty. The place where it
/// is mounted is one that every host has.
Result<void> leave_file_system() {
  constexpr const char* kPlace = "/proc";
  if (::unshare(CLONE_NEWNS) != 0 ||
      ::mount(nullptr, "/", nullptr, MS_REC | MS_PRIVATE, nullptr) != 0 ||
      ::mount("none", kPlace, "tmpfs", MS_NOSUID | MS_NODEV | MS_NOEXEC, nullptr) != 0 ||
      ::chroot(kPlace) != 0 || ::chdir("/") != 0) {
    return fail(cannot("make a file system for"));
  }
  ::umask(0);  // Makers of all users connect there.
  return {};
}

/// Gives a socket its name, as long as it lives.
class Name {
 public:
  static Result<Name> give(int fd, const std::string& name) {
    make_folders_of(name);
    const Address address = address_of(name);
    if (::bind(fd, address.get(), address.size) != 0) {
      return fail(cannot("give a name to"));
    }
    return Name(name);
  }
  Name(Name&& other) noexcept : name_(std::exchange(other.name_, {})) {}
  Name& operator=(Name&&) = delete;
  ~Name() {
    if (!name_.empty() && !is_abstract(name_)) {
      ::unlink(name_.c_str());  // The next socket may have the same.
    }
  }

 private:
  explicit Name(std::string name) : name_(std::move(name)) {}

  /// If one cannot be made, binding says so.
  static void make_folders_of(const std::string& name) {
    constexpr mode_t kForAll = 0755;
    for (std::size_t at = is_abstract(name) ? std::string::npos : name.find('/', 1);
         at != std::string::npos; at = name.find('/', at + 1)) {
      ::mkdir(name.substr(0, at).c_str(), kForAll);
    }
  }

  std::string name_;
};

Result<UniqueFd> new_socket() {
  UniqueFd fd(::socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0));
  if (!fd.valid()) {
    return fail(cannot("make"));
  }
  return fd;
}

Result<UnixPair> make_nameless(const UnixPairNames& names) {
  const MakerScope maker(names.peer_user, names.peer_group);
  std::array<int, 2> ends{};
  if (!maker.is_it() || ::socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, ends.data()) != 0) {
    return fail(cannot("make"));
  }
  return UnixPair{UniqueFd(ends[0]), UniqueFd(ends[1])};
}

// Who accepts has the listener's name; and each knows as the other's maker who listened, or who
// connected.
Result<UnixPair> make_pair(const UnixPairNames& names) {
  if (std::max(names.local.size(), names.peer.size()) > kMostUnixNameBytes) {
    return fail(make_error(ErrorCode::kInvalid, "give a name to", "a Unix domain socket",
                           "it is longer than sun_path"));
  }
  if (names.local.empty() && names.peer.empty()) {
    return make_nameless(names);
  }
  const bool process_calls = !names.peer.empty();
  const std::string& called = process_calls ? names.peer : names.local;
  const UniqueFd listener = MIGRATE_TRY(new_socket());
  UniqueFd caller = MIGRATE_TRY(new_socket());
  const Name name = MIGRATE_TRY(Name::give(listener.get(), called));
  std::optional<Name> own;
  if (process_calls && !names.local.empty()) {
    own.emplace(MIGRATE_TRY(Name::give(caller.get(), names.local)));
  }
  const MakerScope maker(names.peer_user, names.peer_group);
  const Address address = address_of(called);
  UniqueFd accepted;
  if (maker.is_it() && ::listen(listener.get(), 1) == 0 &&
      ::connect(caller.get(), address.get(), address.size) == 0) {
    accepted.reset(::accept4(listener.get(), nullptr, nullptr, SOCK_CLOEXEC));
  }
  if (!accepted.valid()) {
    return fail(cannot("connect"));
  }
  return process_calls ? UnixPair{std::move(caller), std::move(accepted)}
                       : UnixPair{std::move(accepted), std::move(caller)};
}

Result<void> make_all(std::span<const UnixPairNames> wanted, std::vector<UnixPair>& made) {
  const auto any = [&](auto&& is_one) {
    return std::ranges::any_of(wanted, [&](const UnixPairNames& names) {
      return is_one(names.local) || is_one(names.peer);
    });
  };
  if (any(is_abstract) && ::unshare(CLONE_NEWNET) != 0) {
    return fail(cannot("make a network namespace for"));
  }
  if (any([](const std::string& name) { return !name.empty() && !is_abstract(name); })) {
    MIGRATE_TRY(leave_file_system());
  }
  for (const UnixPairNames& names : wanted) {
    made.push_back(MIGRATE_TRY(make_pair(names)));
  }
  return {};
}

}  // namespace

Result<std::vector<UnixPair>> make_unix_pairs(std::span<const UnixPairNames> wanted) {
  std::vector<UnixPair> made;
  if (!wanted.empty()) {
    MIGRATE_TRY(run_in_thread([&] { return make_all(wanted, made); }));
  }
  return made;
}

Result<std::string> unix_name_of(int fd, bool of_peer) {
  sockaddr_un name{};
  socklen_t size = sizeof(name);
  auto* const address = reinterpret_cast<sockaddr*>(&name);
  if ((of_peer ? ::getpeername(fd, address, &size) : ::getsockname(fd, address, &size)) != 0) {
    return fail(system_error("ask for the name of", "a Unix domain socket"));
  }
  const std::size_t length = std::min<std::size_t>(size, sizeof(name)) - kNameAt;
  std::string bytes(static_cast<const char*>(name.sun_path), length);
  if (!is_abstract(bytes)) {
    bytes.erase(std::min(bytes.find('\0'), bytes.size()));  // The kernel counts the one at its end.
  }
  return bytes;
}

}  // namespace migrate
