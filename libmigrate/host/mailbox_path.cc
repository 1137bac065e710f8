#include "libmigrate/host/mailbox_path.h"

#include "transport/handoff.h"

namespace migrate {

std::string mailbox_directory(const std::string& state_directory) {
  return state_directory + "/mailbox";
}

std::string mailbox_path(const std::string& state_directory, const std::string& name) {
  return mailbox_directory(state_directory) + "/" + name;
}

Result<bool> hand_to_worker(const std::string& state_directory, const std::string& name, int fd,
                            std::span<const std::byte> message) {
  if (name.empty() || name.find('/') != std::string::npos || name.front() == '.') {
    return fail(make_error(ErrorCode::kInvalid, "find the worker's mailbox", "\"" + name + "\""));
  }
  const Result<UniqueFd> mailbox = connect_unix(mailbox_path(state_directory, name));
  if (!mailbox) {
    const ErrorCode code = mailbox.error().code;
    if (code == ErrorCode::kNotFound || code == ErrorCode::kPeerLost) {
      return false;
    }
    return fail(mailbox.error());
  }
  const Result<void> sent = send_descriptor(mailbox->get(), fd, message);
  if (!sent && sent.error().code == ErrorCode::kPeerLost) {
    return false;  // The worker has ended since, and took nothing.
  }
  MIGRATE_TRY(sent);
  return true;
}

}  // namespace migrate
