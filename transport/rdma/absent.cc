// In place of RDMA, where its libraries were not there when this was built.
#include "transport/rdma.h"

namespace migrate {
namespace {

tl::unexpected<Error> not_built(const char* operation) {
  return fail(make_error(ErrorCode::kUnsupported, operation, {},
                         "this libmigrate was built without RDMA; install libibverbs-dev and "
                         "librdmacm-dev, then configure and build anew"));
}

}  // namespace

bool rdma_is_built() {
  return false;
}

Result<std::vector<RdmaPort>> rdma_ports() {
  return not_built("list RDMA ports");
}

std::string rdma_listen_problem(const std::string&) {
  return not_built("listen for RDMA connections").value().message();
}

Result<std::unique_ptr<RdmaListener>> RdmaListener::create(const std::string&, const SessionId&,
                                                           const RdmaToken&) {
  return not_built("listen for RDMA connections");
}

Result<std::unique_ptr<RdmaConnection>> connect_rdma(const Address&, const RdmaGreeting&,
                                                     const RdmaOptions&, int) {
  return not_built("connect over RDMA");
}

}  // namespace migrate
