#include "libmigrate/relay/guest_gateway.h"

#include <netinet/tcp.h>

#include <algorithm>
#include <cerrno>
#include <utility>

#include "base/log.h"

namespace migrate {
namespace {

constexpr int kPacketsPerTurn = 256;
constexpr std::size_t kMostCalls = 256;
constexpr std::size_t kMostDatagrams = 256;  // In one turn; more are lost.
constexpr std::size_t kMostQueuedBytes = std::size_t{4} << 20U;
constexpr int kCallLookMs = 200;
constexpr int kNamesLookMs = 250;

struct Names {
  SocketName local;
  SocketName peer;
};

Result<Names> names_of(const std::string& local, const std::string& peer, const char* what) {
  const auto own = SocketName::from_bytes(local);
  const auto other = SocketName::from_bytes(peer);
  if (!own || !other || own->family() != other->family()) {
    return fail(make_error(ErrorCode::kCorrupt, what, "names of a socket"));
  }
  return Names{*own, *other};
}

}  // namespace

int GuestGateway::collect(std::vector<pollfd>& descriptors) const {
  descriptors.push_back({gateway_.device(), POLLIN, 0});
  return calls_.empty() ? kNamesLookMs : kCallLookMs;
}

void GuestGateway::pump(bool is_frozen) {
  const auto room = std::make_unique_for_overwrite<char[]>(Gateway::kMostPacketBytes);
  for (int i = 0; i < kPacketsPerTurn; ++i) {
    const std::string_view packet = gateway_.read({room.get(), Gateway::kMostPacketBytes});
    if (packet.empty()) {
      break;
    }
    take(packet, is_frozen);
  }
  look_at_calls();
  if (!is_frozen && std::chrono::steady_clock::now() >= next_look_at_names_) {
    look_at_names();
    look_at_listeners();
  }
}

void GuestGateway::take(std::string_view bytes, bool is_frozen) {
  const Packet packet = read_packet(bytes);
  if (packet.kind == Packet::Kind::kOther) {
    return;
  }
  if (gateway_.is_for_inside(packet)) {
    gateway_.write(bytes, packet.to);
  } else if (packet.kind == Packet::Kind::kCall && !is_frozen) {
    take_call(packet, bytes);
  } else if (packet.kind == Packet::Kind::kDatagram && datagrams_.size() < kMostDatagrams) {
    if (!is_frozen) {
      know_sender(packet.from);
    }
    wire::RelayDatagram& datagram = *datagrams_.emplace_back().mutable_datagram();
    datagram.set_local(packet.from.to_bytes());
    datagram.set_peer(packet.to.to_bytes());
    datagram.set_content(packet.content.data(), packet.content.size());
  }
}

// Home is to have a socket of the very name before it sends anything for it: of that for all
// addresses it would not have one otherwise.
void GuestGateway::know_sender(const SocketName& from) {
  if (names_ && std::ranges::none_of(*names_, [&](const SocketName& name) {
        return name.port() == from.port() && (name == from || name.is_any());
      })) {
    look_at_names();
  }
}

void GuestGateway::look_at_names() {
  next_look_at_names_ = std::chrono::steady_clock::now() + std::chrono::milliseconds(kNamesLookMs);
  auto names = watch()->names_of_datagrams();
  if (!names) {
    log::debug("{}", names.error().message());
    return;
  }
  if (!names_ || *names_ != *names) {
    names_ = std::move(*names);
    are_names_told_ = false;
  }
}

bool GuestGateway::look_at_listeners_again() {
  constexpr auto kMoment = std::chrono::milliseconds(2);
  if (std::chrono::steady_clock::now() < looked_at_listeners_ + kMoment) {
    return false;
  }
  look_at_listeners();
  return true;
}

void GuestGateway::look_at_listeners() {
  looked_at_listeners_ = std::chrono::steady_clock::now();
  if (auto seen = watch()->listeners()) {
    listeners_ = std::move(*seen);
  } else {
    log::debug("{}", seen.error().message());
  }
}

// One that waits asks again and again; one of the same names that begins otherwise is another.
void GuestGateway::take_call(const Packet& packet, std::string_view bytes) {
  const auto same = std::ranges::find_if(calls_, [&](const auto& each) {
    return each.second.packet.from == packet.from && each.second.packet.to == packet.to;
  });
  if (same != calls_.end()) {
    if (same->second.packet.call.sequence == packet.call.sequence) {
      return;
    }
    ended_.push_back(same->first);
    calls_.erase(same);
  }
  if (calls_.size() < kMostCalls) {
    calls_.try_emplace(++last_call_, Call{packet, std::string(bytes)});
  }
}

// Who gives up sends nothing.
void GuestGateway::look_at_calls() {
  const auto now = std::chrono::steady_clock::now();
  if (calls_.empty() || now < next_look_) {
    return;
  }
  next_look_ = now + std::chrono::milliseconds(kCallLookMs);
  std::erase_if(calls_, [this](const auto& each) {
    const auto seen = watch()->look(each.second.packet.from, each.second.packet.to);
    const bool is_over = seen && (!*seen || (*seen)->state != TCP_SYN_SENT);
    if (is_over && each.second.is_sent) {
      ended_.push_back(each.first);
    }
    return is_over;
  });
}

void GuestGateway::pump_link(Link& link) {
  wire::RelayMessage message;
  for (const std::uint64_t call : std::exchange(ended_, {})) {
    message.mutable_call_ended()->set_number(call);
    link.send(message);
  }
  for (auto& [number, call] : calls_) {
    if (!std::exchange(call.is_sent, true)) {
      wire::RelayCall& sent = *message.mutable_call();
      sent.set_number(number);
      sent.set_local(call.packet.from.to_bytes());
      sent.set_peer(call.packet.to.to_bytes());
      link.send(message);
    }
  }
  if (names_ && !std::exchange(are_names_told_, true)) {
    wire::RelayBound& bound = *message.mutable_bound();
    for (const SocketName& name : *names_) {
      if (static_cast<std::size_t>(bound.names_size()) < kMostDatagramNames) {
        bound.add_names(name.to_bytes());
      }
    }
    link.send(message);
  }
  for (const wire::RelayMessage& datagram : std::exchange(datagrams_, {})) {
    if (link.queued_bytes() < kMostQueuedBytes) {
      link.send(datagram);
    }
  }
}

void GuestGateway::begin_again() {
  are_names_told_ = false;
  ended_.clear();
  for (auto& [number, call] : calls_) {
    call.is_sent = false;
  }
}

std::optional<UniqueFd> GuestGateway::connect(std::uint64_t number) {
  const auto call = calls_.extract(number);
  if (call.empty()) {
    return std::nullopt;
  }
  const Packet& packet = call.mapped().packet;
  Handshake answer;
  auto mate = gateway_.make_mate(packet, answer);
  if (!mate) {
    log::warn("{}", mate.error().message());
    return std::nullopt;
  }
  auto own = mate->duplicate();
  if (!own) {
    log::warn("{}", own.error().message());
    return std::nullopt;
  }
  answers_.push_back({std::move(*own), accepting_packet(packet, answer), packet.from});
  return std::move(*mate);
}

void GuestGateway::tell_connected() {
  for (const Answer& answer : std::exchange(answers_, {})) {
    if (auto begun = Gateway::begin_mate(answer.mate.get()); !begun) {
      log::warn("{}", begun.error().message());
    }
    gateway_.write(answer.packet, answer.to);
  }
}

// Who hears nothing asks again, and is told at last that nobody has answered.
void GuestGateway::fail_call(std::uint64_t number, int error) {
  const auto call = calls_.extract(number);
  if (call.empty() || error == EAGAIN || error == ETIMEDOUT) {
    return;
  }
  const Packet& packet = call.mapped().packet;
  gateway_.write(error == ECONNREFUSED
                     ? refusing_packet(packet)
                     : unreachable_packet(packet.to, packet.from, call.mapped().bytes, error),
                 packet.from);
}

Result<void> GuestGateway::accept_datagram(const wire::RelayDatagram& datagram) {
  constexpr std::size_t kMostContent = 65'507;
  const Names names = MIGRATE_TRY(names_of(datagram.local(), datagram.peer(), "accept a datagram"));
  if (datagram.content().size() > kMostContent) {
    return fail(make_error(ErrorCode::kCorrupt, "accept a datagram", "its size"));
  }
  gateway_.write(datagram_packet(names.peer, names.local, datagram.content()), names.local);
  return {};
}

// Of the datagram only the names count for who has sent it.
Result<void> GuestGateway::accept_unreachable(const wire::RelayUnreachable& unreachable) {
  const Names names = MIGRATE_TRY(
      names_of(unreachable.local(), unreachable.peer(), "accept that a datagram has not arrived"));
  const std::string packet = datagram_packet(names.local, names.peer, {});
  gateway_.write(
      unreachable_packet(names.peer, names.local, packet, static_cast<int>(unreachable.error())),
      names.local);
  return {};
}

}  // namespace migrate
