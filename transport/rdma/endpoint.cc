#include "transport/rdma/endpoint.h"

#include <fcntl.h>
#include <poll.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>

#include "base/page_size.h"

namespace migrate::rdma {
namespace {

constexpr const char* kConnectionManager = "/dev/infiniband/rdma_cm";
constexpr std::size_t kLeastLanding = std::size_t{64} << 10U;
// Twice what a listener has: a peer's is pinned here once more, to write from.
constexpr std::size_t kMostLanding = std::size_t{16} << 20U;
constexpr std::uint32_t kMostSends = kWindow + kControls + kReads;
constexpr std::size_t kReadStride = kPageBytes + OneSidedChannel::kMaxReadBytes;

bool valid_landing(std::size_t length_bytes) {
  return length_bytes % kPageBytes == 0 && length_bytes >= kLeastLanding &&
         length_bytes <= kMostLanding;
}

Result<void> make_nonblocking(int fd) {
  const int flags = ::fcntl(fd, F_GETFL);
  if (flags < 0 || ::fcntl(fd, F_SETFL, flags | O_NONBLOCK) != 0) {
    return fail(system_error("make non-blocking", "descriptor " + std::to_string(fd)));
  }
  return {};
}

Error device_error(const char* operation, const rdma_cm_id& id, std::string remedy = {}) {
  Error error = system_error(operation, id.verbs->device->name, std::move(remedy));
  error.code = ErrorCode::kSystem;
  return error;
}

Result<Handle<ibv_comp_channel>> create_channel(const rdma_cm_id& id) {
  Handle<ibv_comp_channel> channel(::ibv_create_comp_channel(id.verbs));
  if (!channel) {
    return fail(device_error("create a completion channel of", id));
  }
  MIGRATE_TRY(make_nonblocking(channel->fd));
  return channel;
}

Result<Handle<ibv_cq>> create_queue(const rdma_cm_id& id, std::uint32_t entries,
                                    ibv_comp_channel* channel) {
  Handle<ibv_cq> queue(::ibv_create_cq(id.verbs, static_cast<int>(entries), nullptr, channel, 0));
  if (!queue) {
    return fail(device_error("create a completion queue of", id,
                             "too many sessions may be open, or too little memory may be pinned"));
  }
  return queue;
}

Result<QueuePair> create_queue_pair(rdma_cm_id* id, const Endpoint& endpoint) {
  ibv_qp_init_attr attributes{};
  attributes.send_cq = endpoint.sends.get();
  attributes.recv_cq = endpoint.receives.get();
  attributes.qp_type = IBV_QPT_RC;
  attributes.cap.max_send_wr = kMostSends;
  attributes.cap.max_recv_wr = kReceives;
  attributes.cap.max_send_sge = 1;
  attributes.cap.max_recv_sge = 1;
  // Devices differ in what they take; without any, small messages go the way of long ones.
  for (const std::uint32_t inline_bytes : {kSmallBytes, kSmallBytes / 4, 0U}) {
    attributes.cap.max_inline_data = inline_bytes;
    if (::rdma_create_qp(id, endpoint.domain.get(), &attributes) == 0) {
      return QueuePair(id);
    }
  }
  return fail(device_error("create a queue pair of", *id,
                           "`rdma resource show` tells how many are in use"));
}

std::uint32_t inline_bytes_of(ibv_qp* queue_pair) {
  ibv_qp_attr attributes{};
  ibv_qp_init_attr initial{};
  const bool known = ::ibv_query_qp(queue_pair, &attributes, IBV_QP_CAP, &initial) == 0;
  return known ? std::min(initial.cap.max_inline_data, kSmallBytes) : 0;
}

/// Of an event, or of one that did not come.
const char* event_remedy(rdma_cm_event_type type) {
  switch (type) {
    case RDMA_CM_EVENT_ADDR_RESOLVED:
    case RDMA_CM_EVENT_ADDR_ERROR:
      return "no RDMA port of this host reaches it; see `rdma link` and `ip route get`: the port "
             "must be ACTIVE and its network device must lead there";
    case RDMA_CM_EVENT_ROUTE_RESOLVED:
    case RDMA_CM_EVENT_ROUTE_ERROR:
      return "no path to it; on InfiniBand check that a subnet manager runs";
    case RDMA_CM_EVENT_ESTABLISHED:
    case RDMA_CM_EVENT_UNREACHABLE:
      return "no answer; check that the other host's port is ACTIVE (rdma link, migratectl hosts), "
             "that no firewall drops UDP port 4791 (RoCE) and that GIDs and MTU of both ports "
             "agree "
             "(ibv_devinfo -v)";
    case RDMA_CM_EVENT_DEVICE_REMOVAL:
      return "the device was removed";
    default:
      return "it broke while it was made";
  }
}

}  // namespace

Result<Handle<rdma_event_channel>> open_events() {
  // Pages that are pinned must not change places when this process forks.
  if (const int status = ::ibv_fork_init(); status != 0) {
    return fail(system_error_from(status, "prepare RDMA for forks", {},
                                  "memory was registered before; start anew"));
  }
  Handle<rdma_event_channel> events(::rdma_create_event_channel());
  if (!events) {
    // The library's own errno does not tell the two apart.
    const bool refused =
        ::access(kConnectionManager, F_OK) == 0 && ::access(kConnectionManager, R_OK | W_OK) != 0;
    Error error = system_error_from(
        refused ? EACCES : errno, "open", kConnectionManager,
        refused ? "this process needs read and write permission on /dev/infiniband/*"
                : "no RDMA device, or a module is missing: modprobe rdma_ucm, see `rdma link`");
    error.code = refused ? ErrorCode::kSystem : ErrorCode::kUnsupported;
    return fail(std::move(error));
  }
  MIGRATE_TRY(make_nonblocking(events->fd));
  ::fcntl(events->fd, F_SETFD, FD_CLOEXEC);
  return events;
}

Result<Handle<rdma_cm_id>> create_id(rdma_event_channel* events) {
  rdma_cm_id* id = nullptr;
  if (::rdma_create_id(events, &id, nullptr, RDMA_PS_TCP) != 0) {
    return fail(system_error("create an RDMA connection identifier"));
  }
  return Handle<rdma_cm_id>(id);
}

Result<ConnectionEvent> next_event(rdma_event_channel* events, const Deadline& deadline) {
  for (;;) {
    rdma_cm_event* raw = nullptr;
    if (::rdma_get_cm_event(events, &raw) == 0) {
      ConnectionEvent event;
      event.type = raw->event;
      event.status = raw->status;
      event.id = raw->id;
      const rdma_conn_param& parameters = raw->param.conn;
      if (parameters.private_data != nullptr) {
        event.private_data.assign(static_cast<const char*>(parameters.private_data),
                                  parameters.private_data_len);
      }
      ::rdma_ack_cm_event(raw);
      return event;
    }
    if (errno != EAGAIN && errno != EINTR) {
      return fail(system_error("read RDMA connection events"));
    }
    if (errno == EAGAIN && MIGRATE_TRY(wait_for(events->fd, POLLIN, deadline)) == 0) {
      return fail(make_error(ErrorCode::kRetry, "await an RDMA connection event", {},
                             "none came in the time given"));
    }
  }
}

Result<ConnectionEvent> expect_event(rdma_event_channel* events, rdma_cm_event_type wanted,
                                     const Deadline& deadline, const char* operation,
                                     const std::string& object) {
  auto event = next_event(events, deadline);
  if (!event && event.error().code == ErrorCode::kRetry) {
    return fail(make_error(ErrorCode::kRetry, operation, object, event_remedy(wanted)));
  }
  if (!event || event->type == wanted) {
    return event;
  }
  if (event->type == RDMA_CM_EVENT_REJECTED) {
    // The connection manager's own reasons have no words of ours in them.
    constexpr int kNobodyListens = 8;
    if (event->status == kNobodyListens) {
      return fail(make_error(ErrorCode::kPeerLost, operation, object,
                             "nobody listens there; the session may have ended"));
    }
    return fail(rejection(std::as_bytes(std::span(event->private_data)), object));
  }
  const bool unreachable = event->type == RDMA_CM_EVENT_ADDR_ERROR;
  Error error = event->status < 0 ? system_error_from(-event->status, operation, object)
                                  : make_error(ErrorCode::kPeerLost, operation, object);
  error.code = unreachable ? ErrorCode::kUnsupported : ErrorCode::kPeerLost;
  error.remedy = std::string(::rdma_event_str(event->type)) + ": " + event_remedy(event->type);
  return fail(std::move(error));
}

std::string port_remedy(const std::string& host) {
  std::string problem = rdma_problem(host.empty() ? "::" : host);
  return problem.empty()
             ? "see `rdma link` and `ip route get`: a port must be ACTIVE on the network "
               "device that leads there"
             : problem;
}

Result<void> check_port(const rdma_cm_id& id, const char* operation, const std::string& object) {
  ibv_port_attr port{};
  if (id.verbs == nullptr || ::ibv_query_port(id.verbs, id.port_num, &port) != 0 ||
      port.state == IBV_PORT_ACTIVE) {
    return {};
  }
  return fail(make_error(ErrorCode::kUnsupported, operation, object,
                         std::string("port ") + id.verbs->device->name + "/" +
                             std::to_string(id.port_num) + " of this host is " +
                             port_state_name(port.state) +
                             "; bring up its link and its network device (rdma link, ip link)"));
}

rdma_conn_param connection_parameters(std::span<const std::byte> private_data) {
  rdma_conn_param parameters{};
  parameters.private_data = private_data.data();
  parameters.private_data_len = static_cast<std::uint8_t>(private_data.size());
  parameters.responder_resources = kReadDepth;
  parameters.initiator_depth = kReadDepth;
  parameters.retry_count = kRetries;
  parameters.rnr_retry_count = kNotReadyRetries;
  return parameters;
}

std::string rdma_name(const sockaddr* address) {
  SocketAddress name;
  name.length = address->sa_family == AF_INET ? sizeof(sockaddr_in) : sizeof(sockaddr_in6);
  std::memcpy(&name.storage, address, name.length);
  return "rdma://" + name.to_string();
}

Result<void> Endpoint::prepare(const RdmaOptions& options) {
  if (!valid_landing(options.landing_bytes)) {
    return fail(make_error(ErrorCode::kInvalid, "make an RDMA channel",
                           std::to_string(options.landing_bytes) + " bytes of landing memory"));
  }
  rdma_cm_id& self = *id;
  std::uint8_t timeout = kAckTimeout;
  // Old kernels have their own, longer one.
  static_cast<void>(::rdma_set_option(&self, RDMA_OPTION_ID, RDMA_OPTION_ID_ACK_TIMEOUT, &timeout,
                                      sizeof timeout));
  domain.reset(::ibv_alloc_pd(self.verbs));
  if (!domain) {
    return fail(device_error("allocate a protection domain of", self));
  }
  send_events = MIGRATE_TRY(create_channel(self));
  receive_events = MIGRATE_TRY(create_channel(self));
  sends = MIGRATE_TRY(create_queue(self, kMostSends, send_events.get()));
  receives = MIGRATE_TRY(create_queue(self, kReceives, receive_events.get()));
  slots = MIGRATE_TRY(RegisteredMemory::create(domain.get(), std::size_t{kReceives} * kSmallBytes,
                                               IBV_ACCESS_LOCAL_WRITE));
  landing = MIGRATE_TRY(RegisteredMemory::create(domain.get(), options.landing_bytes,
                                                 IBV_ACCESS_LOCAL_WRITE | IBV_ACCESS_REMOTE_WRITE));
  queue_pair = MIGRATE_TRY(create_queue_pair(&self, *this));
  inline_bytes = inline_bytes_of(self.qp);
  for (std::uint32_t slot = 0; slot < kReceives; ++slot) {
    MIGRATE_TRY(post_receive(slot));
  }
  return {};
}

Result<void> Endpoint::post_receive(std::uint32_t slot) const {
  ibv_sge place{};
  place.addr = slots.address() + std::uint64_t{slot} * kSmallBytes;
  place.length = kSmallBytes;
  place.lkey = slots.local_key();
  ibv_recv_wr work{};
  work.wr_id = slot;
  work.sg_list = &place;
  work.num_sge = 1;
  ibv_recv_wr* bad = nullptr;
  if (const int status = ::ibv_post_recv(id->qp, &work, &bad); status != 0) {
    return fail(system_error_from(status, "post a receive to", id->verbs->device->name));
  }
  return {};
}

Result<void> Endpoint::prepare_staging(const Landing& announced) {
  if (!valid_landing(announced.length_bytes)) {
    return fail(make_error(
        ErrorCode::kCorrupt, "make an RDMA channel",
        "the peer's landing memory of " + std::to_string(announced.length_bytes) + " bytes"));
  }
  peer = announced;
  staging = MIGRATE_TRY(
      RegisteredMemory::create(domain.get(), announced.length_bytes, IBV_ACCESS_LOCAL_WRITE));
  return {};
}

Result<void> Endpoint::prepare_reads() {
  if (reads.bytes().empty()) {
    reads = MIGRATE_TRY(
        RegisteredMemory::create(domain.get(), kReads * kReadStride, IBV_ACCESS_LOCAL_WRITE));
  }
  return {};
}

std::span<std::byte> Endpoint::read_place(std::uint32_t number) const {
  return reads.bytes().subspan(number * kReadStride + kPageBytes, OneSidedChannel::kMaxReadBytes);
}

Landing Endpoint::landing_place() const {
  return {landing.address(), landing.remote_key(),
          static_cast<std::uint32_t>(landing.bytes().size())};
}

}  // namespace migrate::rdma
