#pragma once

#include <cstdint>
#include <string>
#include <string_view>

#include "base/result.h"

namespace migrate {

/// How the pages of a move shall travel. Everything else goes by the daemons' connections.
enum class PageTransport : std::uint8_t {
  kAuto,  ///< Over RDMA where both hosts listen for it, else over TCP.
  kRdma,  ///< Not at all if not over RDMA.
  kTcp,
};

/// Which transport a destination and the word for it ("auto", "rdma" or "tcp") come to: rdma://HOST
/// asks for RDMA by itself, and is made the address of its daemon. Errors: kInvalid (a word or
/// address that cannot be, or rdma:// with "tcp").
Result<PageTransport> settle_page_transport(std::string& destination, std::string_view word);

}  // namespace migrate
