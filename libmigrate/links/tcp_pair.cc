#include "libmigrate/links/tcp_pair.h"

#include <netinet/in.h>
#include <netinet/tcp.h>

#include <algorithm>
#include <array>
#include <cstddef>
#include <thread>
#include <utility>

#include "libmigrate/links/internal/link_namespace.h"

namespace migrate {
namespace {

// Where the sequence numbers of both ends begin. Any will do: nobody else hears of them.
constexpr int kEndBegins = 1'000'000;
constexpr int kMateBegins = 2'000'000;

Result<UniqueFd> connect_alone(const SocketName& from, const SocketName& to, bool only_ipv6,
                               int sends_from, int receives_from) {
  UniqueFd fd(::socket(from.family(), SOCK_STREAM | SOCK_CLOEXEC, 0));
  if (!fd.valid()) {
    return fail(system_error("make", "a socket"));
  }
  const bool is_six = from.family() == AF_INET6;
  MIGRATE_TRY(set_number(fd.get(), IPPROTO_TCP, TCP_REPAIR, 1));
  if (is_six) {
    MIGRATE_TRY(set_number(fd.get(), IPPROTO_IPV6, IPV6_V6ONLY, only_ipv6 ? 1 : 0));
  }
  MIGRATE_TRY(let_bind_anywhere(fd.get(), from.family(), true));
  MIGRATE_TRY(set_number(fd.get(), IPPROTO_TCP, TCP_REPAIR_QUEUE, TCP_SEND_QUEUE));
  MIGRATE_TRY(set_number(fd.get(), IPPROTO_TCP, TCP_QUEUE_SEQ, sends_from));
  MIGRATE_TRY(set_number(fd.get(), IPPROTO_TCP, TCP_REPAIR_QUEUE, TCP_RECV_QUEUE));
  MIGRATE_TRY(set_number(fd.get(), IPPROTO_TCP, TCP_QUEUE_SEQ, receives_from));
  if (::bind(fd.get(), from.address(), from.size()) != 0 ||
      ::connect(fd.get(), to.address(), to.size()) != 0) {
    return fail(system_error("connect", "a pair of sockets"));
  }
  MIGRATE_TRY(let_bind_anywhere(fd.get(), from.family(), false));
  constexpr unsigned kMostSegmentBytes = 65'483;  // As TCP over lo finds it.
  constexpr unsigned kScale = 7;
  constexpr unsigned kMaximumSegment = 2;  // The numbers of the options in TCP itself.
  constexpr unsigned kWindowScale = 3;
  constexpr unsigned kSelective = 4;
  std::array<tcp_repair_opt, 3> options{{{kMaximumSegment, kMostSegmentBytes},
                                         {kWindowScale, kScale | (kScale << 16U)},
                                         {kSelective, 0}}};
  if (::setsockopt(fd.get(), IPPROTO_TCP, TCP_REPAIR_OPTIONS, options.data(), sizeof(options)) !=
      0) {
    return fail(system_error("set the options of", "a pair of connected sockets"));
  }
  return fd;
}

Result<tcp_repair_window> window_of(int fd) {
  tcp_repair_window window{};
  socklen_t size = sizeof(window);
  if (::getsockopt(fd, IPPROTO_TCP, TCP_REPAIR_WINDOW, &window, &size) != 0) {
    return fail(system_error("read the window of", "a connection"));
  }
  return window;
}

Result<void> open_window(int fd, const tcp_repair_window& other) {
  tcp_repair_window window = MIGRATE_TRY(window_of(fd));
  window.snd_wnd = other.rcv_wnd;
  window.max_window = other.rcv_wnd;
  window.snd_wl1 = window.rcv_wup;
  if (::setsockopt(fd, IPPROTO_TCP, TCP_REPAIR_WINDOW, &window, sizeof(window)) != 0) {
    return fail(system_error("set the window of", "a connection"));
  }
  return {};
}

Result<TcpPair> make_pair(const TcpPairNames& names) {
  TcpPair pair;
  pair.end =
      MIGRATE_TRY(connect_alone(names.local, names.peer, names.only_ipv6, kEndBegins, kMateBegins));
  pair.mate = MIGRATE_TRY(connect_alone(names.peer, names.local, false, kMateBegins, kEndBegins));
  const tcp_repair_window of_end = MIGRATE_TRY(window_of(pair.end.get()));
  const tcp_repair_window of_mate = MIGRATE_TRY(window_of(pair.mate.get()));
  MIGRATE_TRY(open_window(pair.end.get(), of_mate));
  MIGRATE_TRY(open_window(pair.mate.get(), of_end));
  constexpr int kOffWithoutProbe = -1;  // TCP_REPAIR_OFF_NO_WP
  for (const int fd : {pair.end.get(), pair.mate.get()}) {
    MIGRATE_TRY(set_number(fd, IPPROTO_TCP, TCP_REPAIR, kOffWithoutProbe));
    MIGRATE_TRY(set_number(fd, SOL_SOCKET, SO_REUSEADDR, 0));
  }
  return pair;
}

// Runs in a thread of its own, which is in the namespace until it ends.
Result<void> make_in_namespace(std::span<const TcpPairNames> wanted,
                               std::span<const std::size_t> which, std::span<TcpPair> made) {
  MIGRATE_TRY(enter_link_namespace(std::ranges::any_of(
      which, [&](std::size_t i) { return wanted[i].local.family() == AF_INET6; })));
  const auto watch = std::make_shared<TcpWatch>(MIGRATE_TRY(TcpWatch::open()));
  for (const std::size_t i : which) {
    made[i] = MIGRATE_TRY(make_pair(wanted[i]));
    made[i].watch = watch;
  }
  return {};
}

// Both ends of one connection may be wanted: these do not go into the same namespace. More
// namespaces than some only somebody wants who means to use up what there is.
Result<std::vector<std::vector<std::size_t>>> share_out(std::span<const TcpPairNames> wanted) {
  constexpr std::size_t kMostSpaces = 16;
  std::vector<std::vector<std::size_t>> spaces;
  for (std::size_t i = 0; i < wanted.size(); ++i) {
    const auto clashes = [&](std::size_t other) {
      return (wanted[i].local == wanted[other].local && wanted[i].peer == wanted[other].peer) ||
             (wanted[i].local == wanted[other].peer && wanted[i].peer == wanted[other].local);
    };
    const auto space = std::ranges::find_if(
        spaces, [&](const auto& members) { return std::ranges::none_of(members, clashes); });
    if (space == spaces.end() && spaces.size() == kMostSpaces) {
      return fail(make_error(ErrorCode::kInvalid, "make pairs of connected sockets",
                             "too many of the same names"));
    }
    (space == spaces.end() ? spaces.emplace_back() : *space).push_back(i);
  }
  return spaces;
}

}  // namespace

Result<std::vector<TcpPair>> make_tcp_pairs(std::span<const TcpPairNames> wanted) {
  const auto spaces = MIGRATE_TRY(share_out(wanted));
  std::vector<TcpPair> made(wanted.size());
  for (const std::vector<std::size_t>& space : spaces) {
    Result<void> done;
    std::thread([&] { done = make_in_namespace(wanted, space, made); }).join();
    MIGRATE_TRY(std::move(done));
  }
  return made;
}

}  // namespace migrate
