#include "libmigrate/requests/page_transport_choice.h"

#include "transport/address.h"

namespace migrate {
namespace {

Result<PageTransport> parse_page_transport(std::string_view text) {
  if (text == "auto") {
    return PageTransport::kAuto;
  }
  if (text == "rdma") {
    return PageTransport::kRdma;
  }
  if (text == "tcp") {
    return PageTransport::kTcp;
  }
  return fail(make_error(ErrorCode::kInvalid, "move", "transport \"" + std::string(text) + "\"",
                         "use auto, rdma or tcp"));
}

}  // namespace

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
