#pragma once

#include "libmigrate/image/refusal.h"
#include "libmigrate/move/source_move_options.h"
#include "libmigrate/policy/firewall.h"
#include "libmigrate/proto/image.pb.h"

namespace migrate {

/// What the rules of this host say about the links of the process, if it is at home here; of one
/// that only passes through here its home's count, which keeps them.
Firewall rules_of_links(const SourceMoveOptions& options, const wire::Image& image);

/// The network of its home, which tells other hosts whether the process may have theirs.
wire::HomeNetwork network_of_home(const SourceMoveOptions& options, const wire::Image& image);

/// Why they are against a move of the process: connections that it has (LINK_DENIED), and the
/// network that it is to use from then on (LINK_RULES). Const-thread-safe.
Refusals refusals_of_links(const SourceMoveOptions& options, const wire::Image& image);

}  // namespace migrate
