#include "base/network_namespace.h"

#include <sched.h>
#include <sys/ioctl.h>

#include <utility>

#include "base/thread.h"

namespace migrate {

Result<UniqueFd> network_namespace_of(int socket) {
  constexpr int kGetNamespace = 0x894C;  // SIOCGSKNS
  UniqueFd space(::ioctl(socket, kGetNamespace));
  if (!space.valid()) {
    return fail(system_error("find the network namespace of", "a socket"));
  }
  return space;
}

Result<void> run_in_network_namespace(int space, const std::function<Result<void>()>& work) {
  return run_in_thread([&]() -> Result<void> {
    if (::setns(space, CLONE_NEWNET) != 0) {
      return fail(system_error("enter", "a network namespace"));
    }
    return work();
  });
}

}  // namespace migrate
