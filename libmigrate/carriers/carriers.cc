#include "libmigrate/carriers/carriers.h"

#include <fcntl.h>
#include <sys/stat.h>

#include <array>
#include <string>
#include <utility>

#include "libmigrate/carriers/internal/file_lock.h"
#include "libmigrate/carriers/internal/refused.h"
#include "libmigrate/carriers/internal/stored_file.h"
#include "libmigrate/carriers/internal/table.h"
#include "libmigrate/proc/file_identity.h"

namespace migrate::carriers {
namespace {

#define MIGRATE_CARRIER_ADDRESS(name) &(name),
constexpr std::array kTable{MIGRATE_CARRIERS(MIGRATE_CARRIER_ADDRESS)};
static_assert(kTable.size() == wire::OpenFile::Kind_ARRAYSIZE, "every kind has a carrier");

constexpr Carrier kNoCarrier;

const Carrier* claiming_link(const FindContext& context, const Sighting& seen) {
  for (const Carrier* carrier : kTable) {
    if (carrier->claims_link != nullptr && carrier->claims_link(context, seen)) {
      return carrier;
    }
  }
  return nullptr;
}

const Carrier* claiming_file(const wire::FileIdentity& identity) {
  for (const Carrier* carrier : kTable) {
    if (carrier->claims_file != nullptr && carrier->claims_file(identity)) {
      return carrier;
    }
  }
  return nullptr;
}

// Only a path tells no kind by itself: what it leads to does.
const Carrier* claiming_path(FindContext& context, const Sighting& seen, wire::OpenFile& file) {
  auto identity = identify_at(context.directory(), std::to_string(seen.number), seen.link);
  if (!identity) {
    context.refuse("UNKNOWN_DESCRIPTOR", seen, identity.error().message());
    return nullptr;
  }
  *file.mutable_identity() = std::move(*identity);
  if (is_message_queue(file.identity())) {
    context.refuse("MQUEUE", seen);
    return nullptr;
  }
  const Carrier* carrier = claiming_file(file.identity());
  if (carrier == nullptr) {
    context.refuse(refusal_of_file(file.identity()), seen);
  }
  return carrier;
}

// Opened as a path only (O_PATH): of regular files and folders that is carried as the file is; of
// all others there is nothing to be opened anew.
bool find_path(FindContext& context, const Sighting& seen, wire::OpenFile& file) {
  auto identity = identify_at(context.directory(), std::to_string(seen.number), seen.link);
  if (!seen.link.starts_with('/') || !identity ||
      !(S_ISREG(identity->mode()) || S_ISDIR(identity->mode()))) {
    return context.refuse("PATH_DESCRIPTOR", seen);
  }
  *file.mutable_identity() = std::move(*identity);
  file.set_kind(S_ISDIR(file.identity().mode()) ? wire::OpenFile::DIRECTORY
                                                : wire::OpenFile::REGULAR);
  return find_stored_file(context, seen, file);
}

bool find_kind(FindContext& context, const Sighting& seen, wire::OpenFile& file) {
  if ((seen.flags & O_PATH) != 0) {
    return find_path(context, seen, file);
  }
  const Carrier* carrier = claiming_link(context, seen);
  if (carrier == nullptr) {
    if (const std::string_view code = refusal_of_link(seen.link); !code.empty()) {
      return context.refuse(code, seen);
    }
    if (!seen.link.starts_with('/')) {
      return context.refuse("UNKNOWN_DESCRIPTOR", seen);
    }
    carrier = claiming_path(context, seen, file);
    if (carrier == nullptr) {
      return false;
    }
  }
  file.set_kind(carrier->kind);
  return carrier->find == nullptr || carrier->find(context, seen, file);
}

}  // namespace

std::span<const Carrier* const> all_carriers() {
  return kTable;
}

const Carrier& carrier_of(wire::OpenFile::Kind kind) {
  const auto place = static_cast<std::size_t>(kind);
  return place < kTable.size() ? *kTable[place] : kNoCarrier;
}

bool find_object(FindContext& context, const Sighting& seen, wire::OpenFile& file) {
  const bool found = find_kind(context, seen, file);
  return find_locks(context, seen, file) && found;
}

const char* flaw_of(const wire::Objects& objects, const wire::OpenFile& file) {
  const Carrier& carrier = carrier_of(file.kind());
  if (carrier.name.empty()) {
    return "kind of files";
  }
  return carrier.flaw == nullptr ? nullptr : carrier.flaw(objects, file);
}

}  // namespace migrate::carriers
