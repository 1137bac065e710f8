#pragma once

#include <optional>

#include "libmigrate/carriers/carrier.h"

namespace migrate::carriers {

/// Finds a terminal, of which `fd` is a duplicate, as the slave side of a pseudo-terminal whose
/// master the process has, too. Nothing if it has not; else whether it is carried.
std::optional<bool> find_slave_of_pair(FindContext& context, const Sighting& seen,
                                       const UniqueFd& fd, wire::OpenFile& file);

}  // namespace migrate::carriers
