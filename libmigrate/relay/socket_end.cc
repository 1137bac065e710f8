#include "libmigrate/relay/socket_end.h"

#include <fcntl.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <memory>
#include <string>
#include <string_view>
#include <utility>

#include "base/log.h"

namespace migrate {
namespace {

int socket_number(int fd, int name) {
  int value = -1;
  socklen_t size = sizeof(value);
  return ::getsockopt(fd, SOL_SOCKET, name, &value, &size) == 0 ? value : -1;
}

void set_socket_number(int fd, int name, int value) {
  ::setsockopt(fd, SOL_SOCKET, name, &value, sizeof(value));
}

// What the socket remembers for us, as nobody waits at it: how long calls that block would, in
// whole seconds, of which there are enough for each byte of a stream. Never 0, which stands for no
// limit.
void remember(int fd, int name, std::uint64_t number) {
  const timeval time{.tv_sec = static_cast<time_t>(number + 1), .tv_usec = 0};
  ::setsockopt(fd, SOL_SOCKET, name, &time, sizeof(time));
}

std::uint64_t remembered(int fd, int name) {
  timeval time{};
  socklen_t size = sizeof(time);
  const bool is_told = ::getsockopt(fd, SOL_SOCKET, name, &time, &size) == 0 && time.tv_sec > 0;
  return is_told ? static_cast<std::uint64_t>(time.tv_sec) - 1 : 0;
}

/// How often something was taken: even or odd.
constexpr int kTakings = SO_RCVTIMEO;

/// How far the journal has come: the offset up to which it was filled, or from which it is about to
/// be, while it is empty.
constexpr int kFilling = SO_SNDTIMEO;

std::uint64_t is_filled_to(std::uint64_t offset) {
  return offset * 2;
}
std::uint64_t begins_at(std::uint64_t offset) {
  return offset * 2 + 1;
}

std::uint64_t bytes_in(int fd) {
  int waiting = 0;
  return ::ioctl(fd, FIONREAD, &waiting) == 0 ? static_cast<std::uint64_t>(std::max(waiting, 0))
                                              : 0;
}

}  // namespace

// An urgent byte apart would be waiting without end: it can be polled, but not copied.
void SocketEnd::prepare(int fd) {
  remember(fd, kTakings, is_odd_ ? 1 : 0);
  set_socket_number(fd, SO_PEEK_OFF, 0);
  set_socket_number(fd, SO_RCVLOWAT, 1);
  set_socket_number(fd, SO_OOBINLINE, 1);
  is_prepared_ = true;
}

Result<void> SocketEnd::open_journal() {
  std::array<int, 2> ends{};
  if (::pipe2(ends.data(), O_CLOEXEC) != 0) {
    return fail(system_error("make", "a journal of a Unix domain socket"));
  }
  const UniqueFd reader(ends[0]);
  const UniqueFd writer(ends[1]);
  journal_ = MIGRATE_TRY(open_journal_of(reader.get()));
  return {};
}

// What the socket had been told for its own sake would be taken for an offset.
Result<void> SocketEnd::keep_journal(int end, int fd, std::uint64_t written) {
  journal_ = MIGRATE_TRY(open_journal_of(end));
  remember(fd, kFilling, begins_at(written));
  return {};
}

Result<UniqueFd> SocketEnd::open_journal_of(int end) {
  const std::string path = "/proc/self/fd/" + std::to_string(end);
  UniqueFd journal(::open(path.c_str(), O_RDWR | O_NONBLOCK | O_CLOEXEC));
  if (!journal.valid()) {
    return fail(system_error("open", "a journal of a Unix domain socket"));
  }
  return journal;
}

void SocketEnd::note(wire::SocketPlace& place) const {
  place.set_untaken(untaken_);
  place.set_odd(is_odd_);
}

// Taking takes off as much of what the socket says was copied, so that, should a part be left, that
// is what it says. Only then, before anything else is copied, it is told that it was done.
std::uint64_t SocketEnd::adopt(const wire::SocketPlace& place, int fd, UniqueFd journal,
                               std::uint64_t written) {
  untaken_ = place.untaken();
  is_odd_ = place.odd();
  const int copied = socket_number(fd, SO_PEEK_OFF);
  const bool was_taken = remembered(fd, kTakings) != (is_odd_ ? 1 : 0) || copied <= 0;
  if (untaken_ > 0 && was_taken) {
    untaken_ = 0;
    is_odd_ = !is_odd_;
  } else if (untaken_ > 0) {
    untaken_ = std::min(untaken_, static_cast<std::uint64_t>(copied));
  }
  take(fd);
  prepare(fd);
  journal_ = std::move(journal);
  return journal_.valid() ? std::max(written, empty_journal(fd)) : written;
}

// What is in the journal comes again: of what was about to be filled in nothing has gone on. That
// is remembered before it is emptied, as the next worker may find it in either state.
std::uint64_t SocketEnd::empty_journal(int fd) {
  const std::uint64_t left = bytes_in(journal_.get());
  const std::uint64_t filling = remembered(fd, kFilling);
  const std::uint64_t offset = filling / 2;
  const std::uint64_t written =
      filling == begins_at(offset) ? offset : offset - std::min(offset, left);
  remember(fd, kFilling, begins_at(written));
  if (left > 0) {
    const auto bytes = std::make_unique_for_overwrite<char[]>(left);
    static_cast<void>(::read(journal_.get(), bytes.get(), left));
  }
  in_journal_ = 0;
  return written;
}

SocketEnd::Read SocketEnd::read(int fd, StreamBuffer& into, std::uint64_t most) {
  if (untaken_ > 0 || most == 0) {
    return Read::kGoesOn;
  }
  if (!is_prepared_) {
    prepare(fd);
  }
  const std::size_t room = std::min(most, kRelayWindowBytes);
  const auto bytes = std::make_unique_for_overwrite<char[]>(room);
  iovec vector{bytes.get(), room};
  msghdr message{};
  message.msg_iov = &vector;
  message.msg_iovlen = 1;
  const ssize_t count = ::recvmsg(fd, &message, MSG_PEEK | MSG_DONTWAIT);
  if (count > 0) {
    if ((message.msg_flags & MSG_CTRUNC) != 0 && !std::exchange(has_lost_, true)) {
      log::warn("descriptors that were sent to a moved process by a Unix domain socket are lost");
    }
    into.append({bytes.get(), static_cast<std::size_t>(count)});
    untaken_ = static_cast<std::uint64_t>(count);
    return Read::kGoesOn;
  }
  const bool is_moment = count < 0 && (errno == EAGAIN || errno == EINTR || errno == ENOMEM);
  return is_moment ? Read::kGoesOn : Read::kEnded;
}

void SocketEnd::take(int fd) {
  if (untaken_ == 0) {
    return;
  }
  const auto bytes = std::make_unique_for_overwrite<char[]>(untaken_);
  while (untaken_ > 0) {
    const ssize_t count = ::recv(fd, bytes.get(), untaken_, MSG_DONTWAIT);
    if (count <= 0) {
      return;
    }
    untaken_ -= static_cast<std::uint64_t>(count);
  }
  is_odd_ = !is_odd_;
  remember(fd, kTakings, is_odd_ ? 1 : 0);
}

bool SocketEnd::has_more(int fd) const {
  return bytes_in(fd) > untaken_;
}

bool SocketEnd::fill_journal(int fd, const StreamBuffer& from) {
  const std::string_view bytes = from.view(from.first(), kRelayWindowBytes);
  remember(fd, kFilling, begins_at(from.first()));
  const ssize_t count = ::write(journal_.get(), bytes.data(), bytes.size());
  if (count <= 0) {
    return false;
  }
  in_journal_ = static_cast<std::uint64_t>(count);
  remember(fd, kFilling, is_filled_to(from.first() + in_journal_));
  return true;
}

std::int64_t SocketEnd::send(int fd, const StreamBuffer& from) {
  if (!journal_.valid()) {
    const std::string_view bytes = from.view(from.first(), kRelayChunkBytes);
    return ::send(fd, bytes.data(), bytes.size(), MSG_NOSIGNAL | MSG_DONTWAIT);
  }
  if (in_journal_ == 0 && !fill_journal(fd, from)) {
    return 0;
  }
  const ssize_t count =
      ::splice(journal_.get(), nullptr, fd, nullptr, in_journal_, SPLICE_F_NONBLOCK);
  in_journal_ -= count > 0 ? static_cast<std::uint64_t>(count) : 0;
  return count;
}

SocketEnd::Written SocketEnd::write(int fd, StreamBuffer& from) {
  while (!from.empty()) {
    const std::int64_t count = send(fd, from);
    if (count > 0) {
      from.drop_to(from.first() + static_cast<std::uint64_t>(count));
    } else if (count == 0 || errno == EAGAIN || errno == ENOMEM || errno == ENOBUFS) {
      return Written::kFine;
    } else if (errno != EINTR) {
      return Written::kBroken;
    }
  }
  return Written::kFine;
}

}  // namespace migrate
