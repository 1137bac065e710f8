#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "libmigrate/proto/image.pb.h"

namespace migrate {

/// What rules have against a move; empty: nothing.
using Refusals = std::vector<wire::Refusal>;

/// One row of the table of refusals: what a code means, and what the user can do.
struct RefusalKind {
  std::string_view code;
  std::string_view reason;
  std::string_view remedy;
  bool transient = false;  ///< Waiting a moment may be remedy enough.
};

/// All codes that the rules can give, in alphabetical order. Const-thread-safe.
std::vector<RefusalKind> refusal_kinds();

/// A refusal of the kind `code`, which must be in the table, about `object`, such as
/// "descriptor 3 -> socket:[17]" or "7f00-7f10 /dev/dri/card0". `detail` continues the reason.
wire::Refusal make_refusal(std::string_view code, std::string object, std::string_view detail = {});

/// Whether the reason may pass by itself within moments, so that `move --retry` should ask again.
bool is_transient(const wire::Refusal& refusal);

/// Whether there are refusals, and all of them may pass by themselves.
bool all_transient(const Refusals& refusals);

/// Whether it is that the destination lacks a file, or has another one of that name.
bool is_about_files(const wire::Refusal& refusal);

}  // namespace migrate
