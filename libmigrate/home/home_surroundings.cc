#include "libmigrate/home/home_surroundings.h"

#include <sys/signalfd.h>
#include <unistd.h>

#include <span>
#include <string>

#include "libmigrate/requests/json_member.h"

namespace migrate {

Result<std::unique_ptr<Channel>> HomeSurroundings::send_request(
    const Whereabouts& where, const nlohmann::json& request) const {
  auto channel = MIGRATE_TRY(connect(where));
  const std::string text = json_text(request);
  MIGRATE_TRY(channel->send_one(std::as_bytes(std::span(text))));
  return channel;
}

void HomeSurroundings::drain_child_signals() const {
  signalfd_siginfo ignored{};
  while (::read(child_signals, &ignored, sizeof(ignored)) > 0) {
  }
}

}  // namespace migrate
