#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "base/result.h"
#include "transport/page_transport.h"

namespace migrate {

/// How the pages of a move shall travel. Everything else goes by the daemons' connections.
struct PageTransportChoice {
  /// By a transport for which both hosts listen, if there is one, else by the daemons' connections.
  bool is_auto = true;
  /// Otherwise: not at all if not by this; null: by the daemons' connections.
  const PageTransport* only = nullptr;

  bool operator==(const PageTransportChoice&) const = default;
};

/// By the words "auto" and "tcp", and those of page_transports(). Errors: kInvalid.
Result<PageTransportChoice> parse_page_transport(std::string_view word);
std::string_view to_string(const PageTransportChoice& choice);
/// All of them.
std::vector<std::string> page_transport_words();

/// Which transport a destination and the word for it come to: WORD://HOST
/// asks for that transport by itself, and is made the address of its daemon. Errors: kInvalid (a
/// word or address that cannot be, or an address of a transport with the word of another).
Result<PageTransportChoice> settle_page_transport(std::string& destination, std::string_view word);

}  // namespace migrate
