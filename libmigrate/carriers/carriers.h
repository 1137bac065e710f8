#pragma once

#include <cstdint>
#include <span>

#include "libmigrate/carriers/carrier.h"

namespace migrate::carriers {

/// Every kind of open file that is carried, in the order of wire::OpenFile::Kind.
std::span<const Carrier* const> all_carriers();

/// The carrier of a kind; for one that is not known, which a peer can send, a carrier without a
/// name that does nothing. Const-thread-safe.
const Carrier& carrier_of(wire::OpenFile::Kind kind);

/// Finds out what a descriptor leads to and fills `file`, in which flags and position are set.
/// False after a refusal: what no carrier claims is not carried.
bool find_object(FindContext& context, const Sighting& seen, wire::OpenFile& file);

/// What is wrong with an open file that a peer sent, as a string literal; null: nothing.
const char* flaw_of(const wire::Objects& objects, const wire::OpenFile& file);

}  // namespace migrate::carriers
