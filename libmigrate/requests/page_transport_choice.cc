#include "libmigrate/requests/page_transport_choice.h"

#include "transport/address.h"

namespace migrate {
namespace {

constexpr std::string_view kAuto = "auto";
constexpr std::string_view kDaemons = "tcp";  // by whose connections everything goes

}  // namespace

Result<PageTransportChoice> parse_page_transport(std::string_view word) {
  if (word == kAuto) {
    return PageTransportChoice{};
  }
  const PageTransport* const transport = find_page_transport(word);
  if (transport != nullptr || word == kDaemons) {
    return PageTransportChoice{.is_auto = false, .only = transport};
  }
  std::string words;
  for (const std::string& each : page_transport_words()) {
    words += (words.empty() ? "" : ", ") + each;
  }
  return fail(make_error(ErrorCode::kInvalid, "read a request",
                         "transport \"" + std::string(word) + "\"", "use one of: " + words));
}

std::string_view to_string(const PageTransportChoice& choice) {
  if (choice.is_auto) {
    return kAuto;
  }
  return choice.only != nullptr ? choice.only->word : kDaemons;
}

std::vector<std::string> page_transport_words() {
  std::vector<std::string> words{std::string(kAuto)};
  for (const PageTransport* const each : page_transports()) {
    words.emplace_back(each->word);
  }
  words.emplace_back(kDaemons);
  return words;
}

Result<PageTransportChoice> settle_page_transport(std::string& destination, std::string_view word) {
  const PageTransportChoice choice = MIGRATE_TRY(parse_page_transport(word));
  Address address = MIGRATE_TRY(Address::parse(destination));
  const PageTransport* const asked = find_page_transport(address.scheme);
  if (asked == nullptr) {
    return choice;
  }
  if (!choice.is_auto && choice.only != asked) {
    return fail(make_error(ErrorCode::kInvalid, "move",
                           destination + " by transport " + std::string(word),
                           "leave out " + address.scheme + ":// or the transport"));
  }
  address.scheme = kDaemons;
  destination = address.to_string();
  return PageTransportChoice{.is_auto = false, .only = asked};
}

}  // namespace migrate
