// In place of RDMA, where its libraries were not there when this was built.
#include "transport/rdma.h"

namespace migrate {
namespace {

constexpr const char* kMissing = "libibverbs-dev and librdmacm-dev";

Error not_built(const char* operation) {
  return make_error(ErrorCode::kUnsupported, operation, {},
                    std::string("this libmigrate was built without RDMA; install ") + kMissing +
                        ", then configure and build anew");
}

}  // namespace

constinit const PageTransport kRdma = {
    .word = "rdma",
    .name = "RDMA",
    .missing = kMissing,
    .check = [](const Address&) -> Result<void> { return fail(not_built("listen")); },
    .problem = [](const std::string&) { return not_built("listen").message(); },
    .ports = []() -> Result<std::vector<PagePort>> { return fail(not_built("list RDMA ports")); },
    .listen = [](const std::string&, const SessionId&,
                 const PageToken&) -> Result<std::unique_ptr<PageListener>> {
      return fail(not_built("listen for RDMA connections"));
    },
    .connect = [](const Address&, const PageGreeting&, const std::string&, int)
        -> Result<std::unique_ptr<Channel>> { return fail(not_built("connect over RDMA")); },
};

}  // namespace migrate
