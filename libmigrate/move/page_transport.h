#pragma once

#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "base/result.h"
#include "libmigrate/host/worker_context.h"
#include "libmigrate/proto/control.pb.h"
#include "libmigrate/requests/page_transport_choice.h"
#include "transport/page_transport.h"

namespace migrate {

/// The source's way to the worker at the destination by a transport of pages, if there is one.
/// Owned by the source's worker thread.
class PageRoute {
 public:
  /// Connections leave from where this host's own workers listen, if that is one address.
  /// `context` is borrowed for the call.
  PageRoute(PageTransportChoice choice, const WorkerContext& context);

  /// Words of the transports that the offer is to ask for, best first; none: by the daemons'
  /// connections.
  std::vector<std::string> wanted() const;

  /// Takes what the destination answered. Errors: kUnsupported (a transport must be and is not
  /// there).
  Result<void> settle(const SessionId& session, const wire::OfferReply& reply);

  /// A connection of the session; nothing if its pages are to go by the daemons' connections, which
  /// is logged once. Blocks for a few seconds at most. Errors: those of PageTransport::connect, if
  /// the transport must be.
  Result<std::unique_ptr<Channel>> connect(Purpose purpose);
  /// The word of the transport by which connect() connects.
  const char* word() const { return way_ ? way_->transport->word : "tcp"; }

  /// From now on the daemons' connections are better than nothing, and soon: the process is not
  /// here any more.
  void allow_daemons();

 private:
  /// A transport, and the address of this host to connect from; empty: any.
  struct Way {
    const PageTransport* transport;
    std::string source_host;
    Address place{};  // of the destination's worker
  };

  std::vector<Way> ways_;  // that are wanted
  bool must_;              // one of them, or the move fails
  int timeout_ms_ = kPageConnectMs;
  SessionId session_{};
  PageToken token_{};
  std::optional<Way> way_;  // that the destination has, too
};

/// The destination's side: listens by the first transport of the offer that this host has and says
/// so in `reply`, or says why by none. Created in the worker, since what transports need does not
/// outlive a fork.
std::unique_ptr<PageListener> listen_for_pages(const WorkerContext& context,
                                               const SessionId& session, const wire::Offer& offer,
                                               wire::OfferReply& reply);

}  // namespace migrate
