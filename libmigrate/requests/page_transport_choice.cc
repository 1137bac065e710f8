#include "libmigrate/requests/page_transport_choice.h"

#include "libmigrate/requests/words.h"
#include "transport/address.h"

namespace migrate {
namespace {

constexpr Words<PageTransport, 3> kTransports{
    {{"auto", PageTransport::kAuto}, {"rdma", PageTransport::kRdma}, {"tcp", PageTransport::kTcp}}};

}  // namespace

Result<PageTransport> parse_page_transport(std::string_view word) {
  return value_of(word, "transport", kTransports);
}

std::string_view to_string(PageTransport transport) {
  return word_for(transport, kTransports);
}

std::vector<std::string> page_transport_words() {
  return words_in(kTransports);
}

Result<PageTransport> settle_page_transport(std::string& destination, std::string_view word) {
  const PageTransport transport = MIGRATE_TRY(parse_page_transport(word));
  Address address = MIGRATE_TRY(Address::parse(destination));
  if (address.scheme != "rdma") {
    return transport;
  }
  if (transport == PageTransport::kTcp) {
    return fail(make_error(ErrorCode::kInvalid, "move", destination + " by transport tcp",
                           "leave out rdma:// or the transport"));
  }
  address.scheme = "tcp";
  destination = address.to_string();
  return PageTransport::kRdma;
}

}  // namespace migrate
