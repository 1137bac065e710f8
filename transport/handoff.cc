#include "transport/handoff.h"

#include <fcntl.h>
#include <poll.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <cstring>

#include "transport/connection.h"
#include "transport/wait.h"

namespace migrate {
namespace {

constexpr std::size_t kHeaderBytes = 4;  // length of the bytes, u32 little endian

std::string name_of(int unix_fd) {
  return "unix socket " + std::to_string(unix_fd);
}

/// A recvmsg of up to buffer.size() bytes, of which a first descriptor goes to `fd`.
/// Yields the number of bytes, 0 at the end of the stream.
Result<std::size_t> receive_piece(int unix_fd, std::span<std::byte> buffer, UniqueFd& fd,
                                  const Deadline& deadline) {
  // Room for a few descriptors, so that surplus ones are seen and closed.
  alignas(cmsghdr) std::array<std::byte, CMSG_SPACE(8 * sizeof(int))> control;
  iovec piece{buffer.data(), buffer.size()};
  msghdr message{};
  message.msg_iov = &piece;
  message.msg_iovlen = 1;
  ssize_t count = -1;
  for (;;) {
    message.msg_control = control.data();
    message.msg_controllen = control.size();
    count = receive_packet(unix_fd, message, MSG_CMSG_CLOEXEC | MSG_DONTWAIT);
    if (count >= 0) {
      break;
    }
    if (errno == EAGAIN) {
      if (MIGRATE_TRY(wait_for(unix_fd, POLLIN, deadline)) == 0) {
        return fail(make_error(ErrorCode::kRetry, "receive descriptor from", name_of(unix_fd),
                               "none came in the time given"));
      }
    } else {
      return fail(socket_error("receive descriptor from", name_of(unix_fd)));
    }
  }
  bool surplus = (message.msg_flags & (MSG_CTRUNC | MSG_TRUNC)) != 0;
  for (cmsghdr* header = CMSG_FIRSTHDR(&message); header != nullptr;
       header = CMSG_NXTHDR(&message, header)) {
    if (header->cmsg_level != SOL_SOCKET || header->cmsg_type != SCM_RIGHTS) {
      continue;
    }
    const std::size_t descriptors = (header->cmsg_len - CMSG_LEN(0)) / sizeof(int);
    for (std::size_t i = 0; i < descriptors; ++i) {
      int number = -1;
      std::memcpy(&number, CMSG_DATA(header) + i * sizeof(int), sizeof number);
      UniqueFd received(number);
      surplus = surplus || fd.valid();
      fd = std::move(received);
    }
  }
  if (surplus) {
    return fail(make_error(ErrorCode::kCorrupt, "receive descriptor from", name_of(unix_fd),
                           "more came than was asked for"));
  }
  return static_cast<std::size_t>(count);
}

Result<bool> is_stream(int unix_fd) {
  int type = 0;
  socklen_t length = sizeof type;
  if (::getsockopt(unix_fd, SOL_SOCKET, SO_TYPE, &type, &length) != 0) {
    return fail(system_error("get type of", name_of(unix_fd)));
  }
  return type == SOCK_STREAM;
}

std::size_t decode_length(std::span<const std::byte> header) {
  std::size_t length = 0;
  for (std::size_t i = 0; i < kHeaderBytes; ++i) {
    length |= std::to_integer<std::size_t>(header[i]) << (8 * i);
  }
  return length;
}

Error bad_length(int unix_fd) {
  return make_error(ErrorCode::kCorrupt, "receive descriptor from", name_of(unix_fd),
                    "its length cannot be");
}

Error closed(int unix_fd) {
  return make_error(ErrorCode::kPeerLost, "receive descriptor from", name_of(unix_fd));
}

/// On a stream: fills `buffer` wholly.
Result<void> fill(int unix_fd, std::span<std::byte> buffer, UniqueFd& fd,
                  const Deadline& deadline) {
  while (!buffer.empty()) {
    const std::size_t count = MIGRATE_TRY(receive_piece(unix_fd, buffer, fd, deadline));
    if (count == 0) {
      return fail(closed(unix_fd));
    }
    buffer = buffer.subspan(count);
  }
  return {};
}

/// A sockaddr_un, and the directory that a long path is reached through while it is used.
struct UnixAddress {
  sockaddr_un address{};
  UniqueFd directory;

  const sockaddr* get() const { return reinterpret_cast<const sockaddr*>(&address); }
};

Result<UnixAddress> make_unix_address(const std::string& path) {
  UnixAddress result;
  result.address.sun_family = AF_UNIX;
  std::string usable = path;
  if (path.size() >= sizeof result.address.sun_path) {
    const auto slash = path.rfind('/');
    const std::string directory = slash == std::string::npos ? "." : path.substr(0, slash + 1);
    result.directory = UniqueFd(::open(directory.c_str(), O_PATH | O_DIRECTORY | O_CLOEXEC));
    if (!result.directory.valid()) {
      return fail(system_error("open directory", directory));
    }
    usable = "/proc/self/fd/" + std::to_string(result.directory.get()) + "/" +
             path.substr(slash == std::string::npos ? 0 : slash + 1);
  }
  if (usable.empty() || usable.size() >= sizeof result.address.sun_path) {
    return fail(make_error(ErrorCode::kInvalid, "use socket path", path,
                           path.empty() ? "name a file" : "its last part is too long"));
  }
  std::memcpy(result.address.sun_path, usable.c_str(), usable.size() + 1);
  return result;
}

Result<UniqueFd> open_unix(UnixKind kind, int flags) {
  UniqueFd fd(::socket(AF_UNIX, static_cast<int>(kind) | SOCK_CLOEXEC | flags, 0));
  if (!fd.valid()) {
    return fail(system_error("open unix socket"));
  }
  return fd;
}

Result<UniqueFd> connect_with(const std::string& path, UnixKind kind, int flags) {
  const UnixAddress address = MIGRATE_TRY(make_unix_address(path));
  UniqueFd fd = MIGRATE_TRY(open_unix(kind, flags));
  while (::connect(fd.get(), address.get(), sizeof address.address) != 0) {
    if (errno != EINTR) {
      return fail(system_error("connect to", path, "check that migrated runs and serves it"));
    }
  }
  return fd;
}

/// Removes a socket file that no one serves. Errors: kRefused if someone does, or if it is no
/// socket.
Result<void> remove_stale(const std::string& path) {
  struct stat status {};
  if (::lstat(path.c_str(), &status) != 0) {
    return {};  // bind tells what is wrong, if anything
  }
  if (!S_ISSOCK(status.st_mode)) {
    return fail(make_error(ErrorCode::kRefused, "listen on", path,
                           "the file is there and is no socket; remove it or choose another"));
  }
  for (const UnixKind kind : {UnixKind::kSequencedPacket, UnixKind::kStream}) {
    const auto connected = connect_with(path, kind, SOCK_NONBLOCK);
    if (connected || connected.error().sys_errno == EAGAIN) {
      return fail(make_error(ErrorCode::kRefused, "listen on", path,
                             "another process serves it; stop that or choose another path"));
    }
  }
  if (::unlink(path.c_str()) != 0 && errno != ENOENT) {
    return fail(system_error("remove stale socket", path));
  }
  return {};
}

}  // namespace

Result<void> send_descriptor(int unix_fd, int fd, std::span<const std::byte> bytes) {
  if (bytes.size() > kMaxHandoffBytes) {
    return fail(make_error(ErrorCode::kInvalid, "send descriptor over", name_of(unix_fd),
                           "at most " + std::to_string(kMaxHandoffBytes) + " bytes go with it"));
  }
  std::vector<std::byte> frame(kHeaderBytes);
  for (std::size_t i = 0; i < kHeaderBytes; ++i) {
    frame[i] = static_cast<std::byte>(bytes.size() >> (8 * i));
  }
  frame.insert(frame.end(), bytes.begin(), bytes.end());
  alignas(cmsghdr) std::array<std::byte, CMSG_SPACE(sizeof(int))> control{};
  std::span<const std::byte> left = frame;
  bool attach = fd >= 0;
  while (!left.empty()) {
    iovec piece{const_cast<std::byte*>(left.data()), left.size()};
    msghdr message{};
    message.msg_iov = &piece;
    message.msg_iovlen = 1;
    if (attach) {
      message.msg_control = control.data();
      message.msg_controllen = control.size();
      cmsghdr* header = CMSG_FIRSTHDR(&message);
      header->cmsg_level = SOL_SOCKET;
      header->cmsg_type = SCM_RIGHTS;
      header->cmsg_len = CMSG_LEN(sizeof fd);
      std::memcpy(CMSG_DATA(header), &fd, sizeof fd);
    }
    const ssize_t count = ::sendmsg(unix_fd, &message, MSG_NOSIGNAL | MSG_DONTWAIT);
    if (count >= 0) {
      attach = false;
      left = left.subspan(static_cast<std::size_t>(count));
    } else if (errno == EAGAIN) {
      MIGRATE_TRY(wait_until_writable(unix_fd, name_of(unix_fd)));
    } else if (errno == EBADF || errno == EMSGSIZE || errno == ETOOMANYREFS) {
      return fail(system_error("send descriptor over", name_of(unix_fd)));
    } else if (errno != EINTR) {
      return fail(socket_error("send descriptor over", name_of(unix_fd)));
    }
  }
  return {};
}

Result<Handoff> receive_descriptor(int unix_fd, int timeout_ms) {
  const Deadline deadline(timeout_ms);
  Handoff result;
  if (MIGRATE_TRY(is_stream(unix_fd))) {
    std::array<std::byte, kHeaderBytes> header;
    MIGRATE_TRY(fill(unix_fd, header, result.fd, deadline));
    const std::size_t length = decode_length(header);
    if (length > kMaxHandoffBytes) {
      return fail(bad_length(unix_fd));
    }
    result.bytes.resize(length);
    MIGRATE_TRY(fill(unix_fd, result.bytes, result.fd, deadline));
    return result;
  }
  result.bytes.resize(kHeaderBytes + kMaxHandoffBytes);
  const std::size_t count = MIGRATE_TRY(receive_piece(unix_fd, result.bytes, result.fd, deadline));
  if (count == 0) {
    return fail(closed(unix_fd));
  }
  if (count < kHeaderBytes || decode_length(result.bytes) != count - kHeaderBytes) {
    return fail(bad_length(unix_fd));
  }
  result.bytes.resize(count);
  result.bytes.erase(result.bytes.begin(), result.bytes.begin() + kHeaderBytes);
  return result;
}

ssize_t receive_packet(int unix_fd, msghdr& message, int flags) {
  const msghdr empty = message;
  bool is_second_look = false;
  for (;;) {
    message = empty;
    const ssize_t count = ::recvmsg(unix_fd, &message, flags);
    if (count > 0 || (count == 0 && is_second_look) || (count < 0 && errno != EINTR)) {
      return count;
    }
    is_second_look = count == 0;
  }
}

Result<ucred> peer_credentials(int unix_fd) {
  ucred credentials{};
  socklen_t length = sizeof credentials;
  if (::getsockopt(unix_fd, SOL_SOCKET, SO_PEERCRED, &credentials, &length) != 0) {
    return fail(system_error("get peer of", name_of(unix_fd)));
  }
  return credentials;
}

UnixListener::UnixListener(UniqueFd fd, std::string path)
    : fd_(std::move(fd)), path_(std::move(path)), creator_(::getpid()) {}

UnixListener::UnixListener(UnixListener&& other) noexcept
    : fd_(std::move(other.fd_)), path_(std::exchange(other.path_, {})), creator_(other.creator_) {}

UnixListener& UnixListener::operator=(UnixListener&& other) noexcept {
  if (this != &other) {
    remove();
    fd_ = std::move(other.fd_);
    path_ = std::exchange(other.path_, {});
    creator_ = other.creator_;
  }
  return *this;
}

UnixListener::~UnixListener() {
  remove();
}

void UnixListener::remove() {
  // A forked worker holds a copy of this object; the file is its parent's.
  if (!path_.empty() && creator_ == ::getpid()) {
    std::ignore = ::unlink(path_.c_str());
  }
  path_.clear();
}

void UnixListener::close_door() {
  remove();
  // Who is on the way in gets ECONNREFUSED (net/unix/af_unix.c, unix_stream_connect).
  std::ignore = ::shutdown(fd_.get(), SHUT_RDWR);
}

Result<UnixListener> UnixListener::create(const std::string& path, mode_t mode, UnixKind kind) {
  MIGRATE_TRY(remove_stale(path));
  const UnixAddress address = MIGRATE_TRY(make_unix_address(path));
  UniqueFd fd = MIGRATE_TRY(open_unix(kind, SOCK_NONBLOCK));
  // The file gets this mode less the umask when it is made, so it is never wider than asked for.
  if (::fchmod(fd.get(), mode) != 0) {
    return fail(system_error("set mode of socket for", path));
  }
  if (::bind(fd.get(), address.get(), sizeof address.address) != 0) {
    return fail(system_error("listen on", path, "check that its directory exists"));
  }
  UnixListener listener(std::move(fd), path);
  if (::chmod(path.c_str(), mode) != 0) {
    return fail(system_error("set mode of", path));
  }
  if (::listen(listener.fd(), 64) != 0) {
    return fail(system_error("listen on", path));
  }
  return listener;
}

Result<UniqueFd> UnixListener::accept(int timeout_ms) {
  const Deadline deadline(timeout_ms);
  for (;;) {
    UniqueFd fd(::accept4(fd_.get(), nullptr, nullptr, SOCK_CLOEXEC));
    if (fd.valid()) {
      return fd;
    }
    if (errno == EINTR || errno == ECONNABORTED) {
      continue;
    }
    if (errno != EAGAIN) {
      return fail(system_error("accept connection", path_));
    }
    const short ready = MIGRATE_TRY(wait_for(fd_.get(), POLLIN, deadline));
    if (ready == 0) {
      return fail(
          make_error(ErrorCode::kRetry, "accept connection", path_, "none came in the time given"));
    }
    if ((ready & POLLHUP) != 0) {  // None can come any more.
      return fail(make_error(ErrorCode::kPeerLost, "accept connection", {}, "the door is closed"));
    }
  }
}

Result<UniqueFd> connect_unix(const std::string& path, UnixKind kind) {
  return connect_with(path, kind, 0);
}

}  // namespace migrate
