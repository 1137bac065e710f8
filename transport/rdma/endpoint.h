#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "base/result.h"
#include "transport/rdma.h"
#include "transport/rdma/greeting.h"
#include "transport/rdma/handles.h"
#include "transport/rdma/ring.h"
#include "transport/wait.h"

namespace migrate::rdma {

/// Messages that are sent inline into a posted receive are at most so long; longer ones are written
/// into the landing memory.
inline constexpr std::uint32_t kSmallBytes = 256;
/// Receives posted beyond the window, for messages that only give credits: each gives half a window
/// or a quarter of the ring, so that at most six wait.
inline constexpr std::uint32_t kSpareReceives = 8;
inline constexpr std::uint32_t kReceives = kWindow + kSpareReceives;
/// Credits and signs of life that may be under way.
inline constexpr std::uint32_t kControls = 8;
/// Reads that may be under way, and how many of them the devices work on at a time.
inline constexpr std::uint32_t kReads = 8;
inline constexpr std::uint8_t kReadDepth = 4;

/// How long a sent message may stay unacknowledged before the device sends it again: 4.096 us times
/// two to this power, half a second. It tries seven times, so that a peer that is gone is noticed
/// after about four seconds, as over TCP. (With one retry more, the most there are, Soft-RoCE tries
/// for ever.)
inline constexpr std::uint8_t kAckTimeout = 17;
inline constexpr std::uint8_t kRetries = 6;
/// For ever: a peer that is not ready to receive is alive, and sees to it that it is ready.
inline constexpr std::uint8_t kNotReadyRetries = 7;

/// What one side of a connection is made of. Move-only; owned by the channel.
struct Endpoint {
  /// Makes everything for `id`, which has a device, and posts all receives. Once.
  /// Errors: kInvalid (options), kSystem.
  Result<void> prepare(const RdmaOptions& options);
  /// Posts receive number `slot`. Errors: kSystem.
  Result<void> post_receive(std::uint32_t slot) const;
  /// Makes the memory to write from into `peer`. Errors: kCorrupt (no such landing), kSystem.
  Result<void> prepare_staging(const Landing& peer);
  /// Makes the memory for what is read, once. Errors: kSystem.
  Result<void> prepare_reads();
  /// Of read `number`: where its content lands; the page before it is free for its head.
  std::span<std::byte> read_place(std::uint32_t number) const;
  Landing landing_place() const;

  // Destroyed in reverse order.
  Handle<rdma_event_channel> events;
  Handle<rdma_cm_id> id;
  Handle<ibv_pd> domain;
  Handle<ibv_comp_channel> send_events;
  Handle<ibv_comp_channel> receive_events;
  Handle<ibv_cq> sends;
  Handle<ibv_cq> receives;
  RegisteredMemory slots;                 // kReceives of kSmallBytes
  RegisteredMemory landing;               // the peer writes here
  RegisteredMemory staging;               // what is written there is copied here first
  RegisteredMemory reads;                 // for what is read from the peer
  std::vector<RegisteredMemory> exposed;  // the peer reads here
  QueuePair queue_pair;
  Landing peer;
  std::uint32_t inline_bytes = 0;
};

/// Sets up this process for verbs, and opens a channel of connection events, non-blocking.
/// Errors: kUnsupported (no RDMA in this kernel), kSystem (no permission).
Result<Handle<rdma_event_channel>> open_events();

/// A new identifier of a connection to be. Errors: kSystem.
Result<Handle<rdma_cm_id>> create_id(rdma_event_channel* events);

/// One event of the connection manager, as far as it is of interest. A value type.
struct ConnectionEvent {
  rdma_cm_event_type type = RDMA_CM_EVENT_CONNECT_ERROR;
  int status = 0;
  rdma_cm_id* id = nullptr;  ///< Owned by the receiver if the type is a connect request.
  std::string private_data;
};

/// The next event. Errors: kRetry (none by the deadline), kSystem.
Result<ConnectionEvent> next_event(rdma_event_channel* events, const Deadline& deadline);

/// next_event() that must be of type `wanted`; any other one becomes an Error for `object`, with
/// what to do. Errors: kRetry (none by the deadline), kUnsupported (no port leads there), kRefused,
/// kPeerLost, kSystem.
Result<ConnectionEvent> expect_event(rdma_event_channel* events, rdma_cm_event_type wanted,
                                     const Deadline& deadline, const char* operation,
                                     const std::string& object);

/// What to do where no port can be found for `host` of this machine (may be empty: any).
std::string port_remedy(const std::string& host);

/// Whether the port that leads to `object` is active. Nothing is known of an `id` without a device.
/// Errors: kUnsupported (it is not, with what to do).
Result<void> check_port(const rdma_cm_id& id, const char* operation, const std::string& object);

/// What a connecting and an accepting side ask of the connection.
rdma_conn_param connection_parameters(std::span<const std::byte> private_data);

/// An address of the connection manager as rdma://ADDRESS:PORT.
std::string rdma_name(const sockaddr* address);

}  // namespace migrate::rdma
