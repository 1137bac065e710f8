#pragma once

#include <cstddef>

#include "libmigrate/host/worker_context.h"
#include "libmigrate/requests/requests.h"
#include "transport/address.h"

namespace migrate {

/// How long a handover waits for what the destination is to say, in milliseconds.
struct HandoverPatience {
  int reply_ms = 30'000;         ///< To the offer, and to the connections.
  int restored_ms = 20'000;      ///< To the image.
  int all_pages_ms = 3'600'000;  ///< The same, where all pages come before it (mode eager).
  int running_ms = 5'000;        ///< To Run.
  int verdict_ms = 3'000;        ///< To ask_verdict().
  int once_more_ms = 2'000;      ///< To ask_once_more().
};

/// Where a process is handed over to, and how.
struct HandoverOptions {
  Address destination;
  MovePlan plan;
  PageTransportChoice transport;
  PushLimits push;
  RoundLimits rounds{};
  const WorkerContext* context = nullptr;  ///< Borrowed.
  std::size_t number = 0;                  ///< Of this one among those of the same memory.
  HandoverPatience patience;
};

}  // namespace migrate
