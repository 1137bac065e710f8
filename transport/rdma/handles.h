#pragma once

#include <infiniband/verbs.h>
#include <rdma/rdma_cma.h>

#include <cstddef>
#include <memory>
#include <span>

#include "base/mapping.h"
#include "base/result.h"

namespace migrate::rdma {

// Owners of the objects of libibverbs and librdmacm. An object must be destroyed before those it
// was made from: members in the order of creation see to it.

struct Destroyer {
  void operator()(ibv_context* context) const { ::ibv_close_device(context); }
  void operator()(ibv_pd* domain) const { ::ibv_dealloc_pd(domain); }
  void operator()(ibv_comp_channel* channel) const { ::ibv_destroy_comp_channel(channel); }
  void operator()(ibv_cq* queue) const { ::ibv_destroy_cq(queue); }
  void operator()(ibv_mr* region) const { ::ibv_dereg_mr(region); }
  void operator()(rdma_event_channel* channel) const { ::rdma_destroy_event_channel(channel); }
  void operator()(rdma_cm_id* id) const { ::rdma_destroy_id(id); }
};

/// As PagePort::state has it.
const char* port_state_name(ibv_port_state state);

template <class T>
using Handle = std::unique_ptr<T, Destroyer>;

struct QueuePairDestroyer {
  void operator()(rdma_cm_id* id) const { ::rdma_destroy_qp(id); }
};
/// The queue pair of an identifier, which must outlive it.
using QueuePair = std::unique_ptr<rdma_cm_id, QueuePairDestroyer>;

/// Memory that the device may read, and if told so the peer may write. Move-only.
class RegisteredMemory {
 public:
  RegisteredMemory() = default;

  /// `access` as for ibv_reg_mr. Errors: kSystem, with what to do where too little may be pinned.
  static Result<RegisteredMemory> create(ibv_pd* domain, std::size_t length_bytes, int access);
  static Result<RegisteredMemory> of(ibv_pd* domain, Mapping mapping, int access);

  std::span<std::byte> bytes() const { return mapping_.bytes(); }
  std::uint64_t address() const { return reinterpret_cast<std::uint64_t>(bytes().data()); }
  std::uint32_t local_key() const { return region_->lkey; }
  std::uint32_t remote_key() const { return region_->rkey; }

 private:
  RegisteredMemory(Mapping mapping, Handle<ibv_mr> region)
      : mapping_(std::move(mapping)), region_(std::move(region)) {}

  Mapping mapping_;
  Handle<ibv_mr> region_;  // deregistered before it is unmapped
};

}  // namespace migrate::rdma
