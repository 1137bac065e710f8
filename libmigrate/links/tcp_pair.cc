#include "libmigrate/links/tcp_pair.h"

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <utility>

#include "base/thread.h"
#include "libmigrate/links/internal/link_namespace.h"
#include "libmigrate/links/internal/repaired_socket.h"

namespace migrate {
namespace {

// Where the sequence numbers of both ends begin. Any will do: nobody else hears of them.
constexpr std::uint32_t kEndBegins = 1'000'000;
constexpr std::uint32_t kMateBegins = 2'000'000;

Result<UniqueFd> connect_alone(const SocketName& from, const SocketName& to, bool only_ipv6,
                               std::uint32_t sends_from, std::uint32_t receives_from) {
  return connect_repaired({.from = from,
                           .to = to,
                           .only_ipv6 = only_ipv6,
                           .sends_from = sends_from,
                           .receives_from = receives_from,
                           .scales = RepairedSocket::Scales{kWindowScale, kWindowScale},
                           .most_segment_bytes = kMostSegmentBytes});
}

Result<TcpPair> make_pair(const TcpPairNames& names) {
  TcpPair pair;
  pair.end =
      MIGRATE_TRY(connect_alone(names.local, names.peer, names.only_ipv6, kEndBegins, kMateBegins));
  pair.mate = MIGRATE_TRY(connect_alone(names.peer, names.local, false, kMateBegins, kEndBegins));
  const tcp_repair_window of_end = MIGRATE_TRY(window_of(pair.end.get()));
  const tcp_repair_window of_mate = MIGRATE_TRY(window_of(pair.mate.get()));
  MIGRATE_TRY(open_window(pair.end.get(), of_mate.rcv_wnd));
  MIGRATE_TRY(open_window(pair.mate.get(), of_end.rcv_wnd));
  MIGRATE_TRY(end_repair(pair.end.get()));
  MIGRATE_TRY(end_repair(pair.mate.get()));
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
    MIGRATE_TRY(run_in_thread([&] { return make_in_namespace(wanted, space, made); }));
  }
  return made;
}

}  // namespace migrate
