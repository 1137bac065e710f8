#include "libmigrate/session/mailbox.h"

#include <algorithm>
#include <array>

#include "libmigrate/registry/mailbox.h"

namespace migrate {
namespace {

constexpr int kLetterTimeoutMs = 1000;

}  // namespace

Result<Mailbox> Mailbox::create(const std::string& state_directory, const std::string& name) {
  return Mailbox(MIGRATE_TRY(UnixListener::create(mailbox_path(state_directory, name), 0600)));
}

Result<Letter> Mailbox::receive(int timeout_ms) {
  const UniqueFd connection = MIGRATE_TRY(listener_.accept(timeout_ms));
  Handoff handoff = MIGRATE_TRY(receive_descriptor(connection.get(), kLetterTimeoutMs));
  Letter letter;
  letter.fd = std::move(handoff.fd);
  if (handoff.bytes.size() == kPreambleBytes && handoff.bytes.front() == std::byte{'L'}) {
    std::array<std::byte, kPreambleBytes> bytes{};
    std::copy(handoff.bytes.begin(), handoff.bytes.end(), bytes.begin());
    letter.preamble = MIGRATE_TRY(decode_preamble(bytes));
  } else {
    letter.request.assign(reinterpret_cast<const char*>(handoff.bytes.data()),
                          handoff.bytes.size());
  }
  return letter;
}

}  // namespace migrate
