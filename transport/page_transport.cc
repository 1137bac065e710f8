#include "transport/page_transport.h"

#include <algorithm>

#include "transport/rdma.h"

namespace migrate {
namespace {

// One more transport is one more line here, before those that it is better than.
constexpr std::array<const PageTransport*, 1> kTransports = {&kRdma};

}  // namespace

std::span<const PageTransport* const> page_transports() {
  return kTransports;
}

const PageTransport* find_page_transport(std::string_view word) {
  const auto found = std::ranges::find(kTransports, word, &PageTransport::word);
  return found == kTransports.end() ? nullptr : *found;
}

}  // namespace migrate
