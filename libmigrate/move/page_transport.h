#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <string_view>

#include "base/result.h"
#include "libmigrate/host/worker_context.h"
#include "libmigrate/proto/control.pb.h"
#include "libmigrate/requests/page_transport_choice.h"
#include "transport/rdma.h"

namespace migrate {

/// The source's way over RDMA to the worker at the destination, if there is one. Owned by the
/// source's worker thread.
class RdmaRoute {
 public:
  /// Connections leave from where this host's own workers listen, if that is one address.
  RdmaRoute(PageTransport wanted, const WorkerContext& context);

  /// Whether the offer is to ask for RDMA.
  bool wanted() const;

  /// Takes what the destination answered. Errors: kUnsupported (RDMA must be and is not there).
  Result<void> settle(const SessionId& session, const wire::OfferReply& reply);

  /// A connection of the session; nothing if its pages are to go over TCP, which is logged once.
  /// Blocks for a few seconds at most. Errors: those of connect_rdma(), if RDMA must be.
  Result<std::unique_ptr<Channel>> connect(Purpose purpose);

  /// From now on TCP is better than nothing, and soon: the process is not here any more.
  void allow_tcp();

 private:
  PageTransport wanted_;
  bool has_own_;  // this host listens for RDMA
  std::string source_host_;
  int timeout_ms_;
  SessionId session_{};
  RdmaToken token_{};
  std::optional<Address> place_;
};

/// The destination's side: listens where the host has RDMA and says so in `reply`, or says why not.
/// Created in the worker, since verbs objects do not outlive a fork.
std::unique_ptr<RdmaListener> listen_for_pages(const WorkerContext& context,
                                               const SessionId& session, wire::OfferReply& reply);

}  // namespace migrate
