// A Unix domain socket whose other end the same process has, or nobody any more: carried with what
// waits in it.
#include <fmt/core.h>
#include <linux/sock_diag.h>
#include <poll.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <numeric>
#include <string>
#include <utility>

#include "libmigrate/carriers/internal/relayed.h"
#include "libmigrate/carriers/internal/socket_options.h"
#include "libmigrate/carriers/internal/table.h"
#include "libmigrate/carriers/internal/tools.h"
#include "libmigrate/proc/proc_text.h"
#include "libmigrate/proc/unix_socket.h"

namespace migrate::carriers {
namespace {

using End = wire::SocketPair::End;

constexpr std::uint64_t kMostUnreadBytes = 64U << 20U;  // In all: they travel inside the freeze.
constexpr int kMostPairs = 1024;
constexpr int kMostMessages = 10'000;  // That one end has unread.

int option_of(int fd, int name) {
  int value = -1;
  socklen_t size = sizeof(value);
  return ::getsockopt(fd, SOL_SOCKET, name, &value, &size) == 0 ? value : -1;
}

wire::SocketPair& pair_of(wire::Objects& objects, std::uint64_t object) {
  return *objects.mutable_socket_pairs(static_cast<int>(object / 2));
}

End& end_of(wire::Objects& objects, std::uint64_t object) {
  wire::SocketPair& pair = pair_of(objects, object);
  return object % 2 == 0 ? *pair.mutable_first() : *pair.mutable_second();
}

// Where the socket is in the image: the second end of a pair whose first was found before, or the
// first of a new one.
std::uint64_t place_of(wire::Objects& objects, std::uint64_t inode, std::uint64_t peer, int type) {
  for (int i = 0; i < objects.socket_pairs_size(); ++i) {
    const wire::SocketPair& pair = objects.socket_pairs(i);
    if (peer != 0 && pair.first().inode() == peer && pair.second().inode() == inode) {
      return static_cast<std::uint64_t>(i) * 2 + 1;
    }
  }
  wire::SocketPair& pair = *objects.add_socket_pairs();
  pair.set_type(static_cast<std::uint32_t>(type));
  pair.mutable_first()->set_inode(inode);
  pair.mutable_second()->set_inode(peer);
  return static_cast<std::uint64_t>(objects.socket_pairs_size() - 1) * 2;
}

// What keeps a Unix domain socket from being carried; empty: nothing that can be seen of it alone.
std::string reason_against(const Sighting& seen, const UnixSocket& socket, int fd, int type) {
  pollfd polled{fd, POLLIN, 0};
  const bool has_events = ::poll(&polled, 1, 0) > 0;
  const bool has_error = has_events && (polled.revents & POLLERR) != 0;
  // At the end of what was sent there is an event, too.
  const bool has_unread = has_events && (polled.revents & POLLIN) != 0 &&
                          (socket.unread_bytes != 0 || (socket.shutdown & 1U) == 0);
  if (socket.listens) {
    return "it listens";
  }
  if (socket.has_name) {
    return "it has a name, by which others may know it";
  }
  if (!socket.peer) {
    return "it is connected to nobody";
  }
  if (number_field(seen.details, "scm_fds:") != 0) {
    return "descriptors are under way in it";
  }
  const bool wants_sender = option_of(fd, SO_PASSCRED) > 0 || option_of(fd, SO_PASSSEC) > 0 ||
                            option_of(fd, kPassPidfd) > 0;
  if (wants_sender && has_unread) {
    return "messages wait in it whose receiver wants to know who sent them";
  }
  constexpr std::uint32_t kBoth = 3;
  if (*socket.peer == 0 && type != SOCK_DGRAM && socket.shutdown != kBoth) {
    return "its connection has not been accepted yet";
  }
  if (type != SOCK_STREAM && (has_error || (*socket.peer == 0 && has_unread))) {
    return "an error or a message waits in it, and its other end is closed";
  }
  return {};
}

bool find_socket(FindContext& context, const Sighting& seen, wire::OpenFile& file) {
  const UniqueFd fd = context.fetch(seen.number);
  if (!fd.valid() || option_of(fd.get(), SO_DOMAIN) != AF_UNIX) {
    return context.refuse("SOCKET", seen);
  }
  const std::uint64_t inode = inode_in(seen.link);
  const auto socket = read_unix_socket(inode, fd.get());
  if (!socket) {
    return context.refuse("SOCKET", seen, socket.error().message());
  }
  const int type = option_of(fd.get(), SO_TYPE);
  if (const std::string reason = reason_against(seen, *socket, fd.get(), type); !reason.empty()) {
    return context.refuse("SOCKET", seen, reason);
  }
  auto options = changed_options(fd.get(), type);
  if (!options) {
    return context.refuse("SOCKET", seen, options.error().message());
  }
  file.set_object(place_of(context.objects(), inode, *socket->peer, type));
  if (context.objects().socket_pairs_size() > kMostPairs) {
    return context.refuse("SOCKET", seen, fmt::format("more than {} pairs", kMostPairs));
  }
  End& end = end_of(context.objects(), file.object());
  end.set_is_open(true);
  end.set_shutdown(socket->shutdown);
  end.set_send_buffer_bytes(
      static_cast<std::uint64_t>(std::max(option_of(fd.get(), SO_SNDBUF), 0)));
  *end.mutable_options() = std::move(*options);
  struct stat status {};
  if (::fstat(fd.get(), &status) == 0) {
    end.set_owner(status.st_uid);
    end.set_group(status.st_gid);
  }
  pollfd polled{fd.get(), 0, 0};
  end.set_is_reset(::poll(&polled, 1, 0) > 0 && (polled.revents & POLLERR) != 0);
  return true;
}

void settle_socket(FindContext& context, std::uint32_t number, wire::OpenFile& file) {
  const wire::SocketPair& pair = pair_of(context.objects(), file.object());
  if (pair.second().inode() != 0 && !pair.second().is_open()) {
    const std::uint64_t inode = end_of(context.objects(), file.object()).inode();
    context.refuse("SOCKET", {.number = number, .link = fmt::format("socket:[{}]", inode)},
                   "its other end is outside");
  }
}

std::uint64_t bytes_of(const End& end) {
  return std::accumulate(
      end.unread().begin(), end.unread().end(), std::uint64_t{0},
      [](std::uint64_t sum, const std::string& message) { return sum + message.size(); });
}

std::uint64_t unread_bytes(const wire::Objects& objects) {
  return std::accumulate(objects.socket_pairs().begin(), objects.socket_pairs().end(),
                         std::uint64_t{0}, [](std::uint64_t sum, const wire::SocketPair& pair) {
                           return sum + bytes_of(pair.first()) + bytes_of(pair.second());
                         });
}

// Sends what `end` has unread from its other end, which nobody but us has yet.
Result<void> send_unread(int other, const End& end) {
  const std::uint64_t bytes = bytes_of(end);
  constexpr std::uint64_t kOverheadBytes = 2048;  // Of a message, in the kernel.
  const int before = option_of(other, SO_SNDBUF);
  const auto room = static_cast<int>(std::max<std::uint64_t>(
      2 * bytes + kOverheadBytes * static_cast<std::uint64_t>(end.unread_size()),
      static_cast<std::uint64_t>(before)));
  ::setsockopt(other, SOL_SOCKET, SO_SNDBUFFORCE, &room, sizeof(room));
  for (const std::string& message : end.unread()) {
    if (::send(other, message.data(), message.size(), MSG_DONTWAIT | MSG_NOSIGNAL) !=
        static_cast<ssize_t>(message.size())) {
      return fail(system_error("fill a socket", fmt::format("{} bytes", message.size())));
    }
  }
  const int half = before / 2;  // The kernel doubles it, and notes that somebody has set it.
  ::setsockopt(other, SOL_SOCKET, SO_SNDBUF, &half, sizeof(half));
  const int unlocked = 0;
  ::setsockopt(other, SOL_SOCKET, kBufferLock, &unlocked, sizeof(unlocked));
  return {};
}

// Makes MSG_PEEK begin with the oldest message and go on from there, as long as it lives.
class PeekAll {
 public:
  explicit PeekAll(int fd) : fd_(fd), before_(option_of(fd, SO_PEEK_OFF)) { set(0); }
  PeekAll(const PeekAll&) = delete;
  PeekAll& operator=(const PeekAll&) = delete;
  ~PeekAll() { set(before_); }

 private:
  void set(int offset) const {
    ::setsockopt(fd_, SOL_SOCKET, SO_PEEK_OFF, &offset, sizeof(offset));
  }

  const int fd_;
  const int before_;
};

Result<void> peek_stream(int fd, End& end) {
  int waiting = 0;
  if (::ioctl(fd, FIONREAD, &waiting) != 0 || waiting <= 0) {
    return {};
  }
  std::string bytes(static_cast<std::size_t>(waiting), '\0');
  const ssize_t count = ::recv(fd, bytes.data(), bytes.size(), MSG_PEEK | MSG_DONTWAIT);
  if (count != waiting) {
    return fail(system_error("copy what waits in a socket"));
  }
  end.add_unread(std::move(bytes));
  return {};
}

// A first look, with no room at all, tells how long a message is.
Result<void> peek_messages(int fd, bool ends_with_nothing, End& end) {
  while (end.unread_size() <= kMostMessages) {
    char none = 0;
    const ssize_t length = ::recv(fd, &none, 0, MSG_PEEK | MSG_DONTWAIT | MSG_TRUNC);
    if (length < 0 && (errno == EAGAIN || errno == EWOULDBLOCK)) {
      return {};
    }
    if (length < 0) {
      return fail(system_error("copy what waits in a socket"));
    }
    if (length == 0 && ends_with_nothing) {
      return {};
    }
    std::string message(static_cast<std::size_t>(length), '\0');
    if (length != 0 &&
        ::recv(fd, message.data(), message.size(), MSG_PEEK | MSG_DONTWAIT) != length) {
      return fail(system_error("copy a message that waits in a socket"));
    }
    end.add_unread(std::move(message));
  }
  return fail(make_error(ErrorCode::kRefused, "carry a socket pair",
                         fmt::format("more than {} messages", kMostMessages)));
}

// An empty message that somebody has peeked at before is passed over, and so is one that a sender
// has sent elsewhere: then what was copied takes another amount of the kernel's memory than what
// the sender has sent.
Result<void> check_complete(std::uint32_t type, std::uint64_t sender, int beside, const End& end) {
  const auto seen = read_unix_socket(sender, beside);
  std::array<int, 2> scratch{};
  if (!seen ||
      ::socketpair(AF_UNIX, static_cast<int>(type) | SOCK_CLOEXEC, 0, scratch.data()) != 0) {
    return seen ? fail(system_error("make a socket pair")) : Result<void>(fail(seen.error()));
  }
  const UniqueFd first(scratch[0]);
  const UniqueFd second(scratch[1]);
  MIGRATE_TRY(send_unread(first.get(), end));
  std::array<std::uint32_t, SK_MEMINFO_VARS> memory{};
  socklen_t size = sizeof(memory);
  if (::getsockopt(first.get(), SOL_SOCKET, SO_MEMINFO, memory.data(), &size) != 0 ||
      memory[SK_MEMINFO_WMEM_ALLOC] != seen->sent_bytes) {
    return fail(make_error(ErrorCode::kRefused, "carry a socket pair",
                           "some of the messages that wait in it cannot be copied",
                           "try again when the program has read them"));
  }
  return {};
}

Result<void> capture_socket(CaptureContext& context, std::uint32_t number,
                            const wire::OpenFile& file) {
  End& end = end_of(context.objects(), file.object());
  if (end.unread_size() != 0) {
    return {};  // By another descriptor of the same end.
  }
  const UniqueFd fd = MIGRATE_TRY(context.fetch(number));
  pollfd polled{fd.get(), POLLIN, 0};
  if (::poll(&polled, 1, 0) <= 0 || (polled.revents & POLLIN) == 0) {
    return {};
  }
  const std::uint32_t type = pair_of(context.objects(), file.object()).type();
  const PeekAll peek(fd.get());
  if (type == SOCK_STREAM) {
    MIGRATE_TRY(peek_stream(fd.get(), end));
  } else {
    const std::uint64_t other = end_of(context.objects(), file.object() ^ 1U).inode();
    if (other == 0) {
      return {};  // It is closed, and nothing waits: what there is to read is the end.
    }
    MIGRATE_TRY(peek_messages(fd.get(), (end.shutdown() & 1U) != 0, end));
    MIGRATE_TRY(check_complete(type, other, fd.get(), end));
  }
  const std::uint64_t all = unread_bytes(context.objects());
  if (all > kMostUnreadBytes) {
    return fail(make_error(ErrorCode::kRefused, "carry socket pairs",
                           fmt::format("{} unread bytes in all", all),
                           "try again when the program has read them"));
  }
  return {};
}

// Its user may make the buffers larger, and fill them, until it is frozen.
std::uint64_t most_socket_bytes(const wire::Objects& objects) {
  constexpr std::uint64_t kGrowthBytes = 1U << 20U;  // Twice net.core.wmem_max, for all but root.
  std::uint64_t bytes = 0;
  for (const wire::SocketPair& pair : objects.socket_pairs()) {
    bytes +=
        pair.first().send_buffer_bytes() + pair.second().send_buffer_bytes() + 2 * kGrowthBytes;
  }
  return bytes;
}

const char* flaw_of_end(const End& end) {
  constexpr std::uint32_t kBoth = 3;
  if (end.shutdown() > kBoth || bytes_of(end) > kMostUnreadBytes ||
      end.unread_size() > kMostMessages || end.send_buffer_bytes() > kMostUnreadBytes) {
    return "an end of socket_pairs";
  }
  return are_sound(end.options()) ? nullptr : "options of socket_pairs";
}

const char* flaw_of_socket(const wire::Objects& objects, const wire::OpenFile& file) {
  if (file.object() / 2 >= static_cast<std::uint64_t>(objects.socket_pairs_size())) {
    return "socket of files";
  }
  if (objects.socket_pairs_size() > kMostPairs || unread_bytes(objects) > kMostUnreadBytes) {
    return "socket_pairs";
  }
  const wire::SocketPair& pair = objects.socket_pairs(static_cast<int>(file.object() / 2));
  if (pair.type() != SOCK_STREAM && pair.type() != SOCK_DGRAM && pair.type() != SOCK_SEQPACKET) {
    return "type of socket_pairs";
  }
  const char* const first = flaw_of_end(pair.first());
  return first != nullptr ? first : flaw_of_end(pair.second());
}

Result<void> shut_down(int fd, const End& end) {
  if (end.shutdown() != 0 && ::shutdown(fd, static_cast<int>(end.shutdown()) - 1) != 0) {
    return fail(system_error("shut a socket down"));
  }
  return {};
}

Result<void> fill(const wire::SocketPair& pair, MadeSocketPair& made) {
  const int first = made.first.get();
  const int second = made.second.get();
  if (!pair.first().unread().empty()) {
    MIGRATE_TRY(send_unread(second, pair.first()));
  }
  if (!pair.second().unread().empty()) {
    MIGRATE_TRY(send_unread(first, pair.second()));
  }
  if (!pair.second().is_open()) {
    // An end that is closed with unread bytes resets the other.
    if (pair.first().is_reset() && ::send(first, "", 1, MSG_DONTWAIT | MSG_NOSIGNAL) != 1) {
      return fail(system_error("reset a socket"));
    }
    made.second.reset();
  } else {
    MIGRATE_TRY(shut_down(second, pair.second()));
    MIGRATE_TRY(set_options(second, pair.second().options()));
  }
  MIGRATE_TRY(shut_down(first, pair.first()));
  return set_options(first, pair.first().options());
}

Result<UniqueFd> make_socket(MakeContext& context, const wire::OpenFile& file) {
  MadeSocketPair& made = context.socket_pair(file.object() / 2);
  if (!std::exchange(made.is_filled, true)) {
    MIGRATE_TRY(fill(context.objects().socket_pairs(static_cast<int>(file.object() / 2)), made));
  }
  UniqueFd& end = file.object() % 2 == 0 ? made.first : made.second;
  if (!end.valid()) {
    return fail(make_error(ErrorCode::kCorrupt, "make a socket", "an end that is closed"));
  }
  const wire::SocketPair& pair =
      context.objects().socket_pairs(static_cast<int>(file.object() / 2));
  const End& seen = file.object() % 2 == 0 ? pair.first() : pair.second();
  static_cast<void>(::fchown(end.get(), seen.owner(), seen.group()));  // As of when it was made.
  MIGRATE_TRY(set_flags(end.get(), file.flags()));
  return std::move(end);
}

}  // namespace

constinit const Carrier kSocketPair{
    .kind = wire::OpenFile::SOCKET,
    .name = "socket pair",
    .claims_link =
        [](const FindContext& context, const Sighting& seen) {
          return seen.link.starts_with("socket:[") && !is_of_network(context, seen) &&
                 !is_unix_connection(context, seen);
        },
    .find = find_socket,
    .settle = settle_socket,
    .has_state = [](const wire::OpenFile& /*file*/) { return true; },
    .capture = capture_socket,
    .most_content_bytes = most_socket_bytes,
    .flaw = flaw_of_socket,
    .make = make_socket,
};

}  // namespace migrate::carriers
