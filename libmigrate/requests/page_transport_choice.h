#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "base/result.h"

namespace migrate {

/// How the pages of a move shall travel. Everything else goes by the daemons' connections.
enum class PageTransport : std::uint8_t {
  kAuto,  ///< Over RDMA where both hosts listen for it, else over TCP.
  kRdma,  ///< Not at all if not over RDMA.
  kTcp,
};

/// By the words "auto", "rdma" and "tcp". Errors: kInvalid.
Result<PageTransport> parse_page_transport(std::string_view word);
std::string_view to_string(PageTransport transport);
/// All of them.
std::vector<std::string> page_transport_words();

/// Which transport a destination and the word for it come to: rdma://HOST
/// asks for RDMA by itself, and is made the address of its daemon. Errors: kInvalid (a word or
/// address that cannot be, or rdma:// with "tcp").
Result<PageTransport> settle_page_transport(std::string& destination, std::string_view word);

}  // namespace migrate
