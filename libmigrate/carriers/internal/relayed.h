#pragma once

#include "libmigrate/carriers/carrier.h"

namespace migrate::carriers {

/// Whether a pipe or socket is an end that an earlier move put there in a stream's place.
bool is_known_relay(const FindContext& context, const Sighting& seen);

/// Whether a socket is of another family than Unix domain sockets.
bool is_of_network(const FindContext& context, const Sighting& seen);

/// Whether a Unix domain socket is connected to one that the process does not have itself.
bool is_unix_connection(const FindContext& context, const Sighting& seen);

/// Makes `file`, which leads to `object` outside the process, a relayed stream.
void relay_to(FindContext& context, std::uint32_t number, const std::string& object,
              wire::OpenFile& file);

}  // namespace migrate::carriers
