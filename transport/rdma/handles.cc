#include "transport/rdma/handles.h"

#include <sys/resource.h>

#include <cerrno>
#include <string>

namespace migrate::rdma {
namespace {

std::string pinning_remedy(std::size_t length_bytes) {
  rlimit limit{};
  ::getrlimit(RLIMIT_MEMLOCK, &limit);
  const std::string now = limit.rlim_cur == RLIM_INFINITY
                              ? "there is no limit of the process (RLIMIT_MEMLOCK), so that the "
                                "device or a memory cgroup has one"
                              : "RLIMIT_MEMLOCK is " + std::to_string(limit.rlim_cur) + " bytes";
  return "it cannot pin " + std::to_string(length_bytes) + " bytes; " + now +
         "; raise it (ulimit -l, LimitMEMLOCK=) or start migrated with CAP_IPC_LOCK";
}

}  // namespace

const char* port_state_name(ibv_port_state state) {
  switch (state) {
    case IBV_PORT_DOWN:
      return "down";
    case IBV_PORT_INIT:
      return "initializing";
    case IBV_PORT_ARMED:
      return "armed";
    case IBV_PORT_ACTIVE:
      return "active";
    default:
      return "unknown";
  }
}

Result<RegisteredMemory> RegisteredMemory::create(ibv_pd* domain, std::size_t length_bytes,
                                                  int access) {
  return of(domain, MIGRATE_TRY(Mapping::create(length_bytes)), access);
}

Result<RegisteredMemory> RegisteredMemory::of(ibv_pd* domain, Mapping mapping, int access) {
  Handle<ibv_mr> region(
      ::ibv_reg_mr(domain, mapping.bytes().data(), mapping.bytes().size(), access));
  if (!region) {
    const int number = errno;
    const bool too_much = number == ENOMEM || number == EAGAIN || number == EPERM;
    Error error = system_error_from(number, "register memory with", domain->context->device->name,
                                    too_much ? pinning_remedy(mapping.bytes().size()) : "");
    error.code = ErrorCode::kSystem;
    return fail(std::move(error));
  }
  return RegisteredMemory(std::move(mapping), std::move(region));
}

}  // namespace migrate::rdma
