#include "libmigrate/relay/guest_listener.h"

#include <utility>

#include "base/log.h"

namespace migrate {

Result<void> GuestListener::open(UniqueFd anchor, SocketName local) {
  watch_ = std::make_shared<TcpWatch>(MIGRATE_TRY(TcpWatch::open_beside(anchor.get())));
  anchor_ = std::move(anchor);
  local_ = std::move(local);
  return {};
}

void GuestListener::pump_link(Link& link) {
  if (made_ && !std::exchange(is_told_, true)) {
    wire::RelayMessage message;
    *message.mutable_listening() = *made_;
    link.send(message);
  }
}

bool GuestListener::has_closed(bool at_once) {
  const auto now = std::chrono::steady_clock::now();
  if (!is_open() || (now < next_look_ && !at_once)) {
    return false;
  }
  next_look_ = now + std::chrono::milliseconds(kLookIntervalMs);
  const auto listened = watch_->is_listened_at(local_);
  if (!listened) {
    log::warn("{}", listened.error().message());
  }
  return listened && !*listened;
}

}  // namespace migrate
