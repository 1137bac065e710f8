// What no carrier carries, and is known well enough to be refused by its own name.
#include "libmigrate/carriers/internal/refused.h"

#include <sys/stat.h>

#include "libmigrate/carriers/internal/table.h"

namespace migrate::carriers {
namespace {

constexpr std::uint64_t kMessageQueues = 0x19800202;  // f_type of mqueue

bool is_kvm(unsigned major_number, unsigned minor_number) {
  constexpr unsigned kMiscellaneous = 10;
  constexpr unsigned kKvm = 232;  // KVM_MINOR
  return major_number == kMiscellaneous && minor_number == kKvm;
}

}  // namespace

std::string_view refusal_of_link(std::string_view link) {
  for (const RefusedLink& refused : kRefusedLinks) {
    if (link.starts_with(refused.prefix)) {
      return refused.code;
    }
  }
  return {};
}

std::string_view refusal_of_file(const wire::FileIdentity& identity) {
  if (S_ISCHR(identity.mode())) {
    return is_kvm(identity.device_major(), identity.device_minor()) ? "KVM" : "DEVICE";
  }
  return S_ISBLK(identity.mode()) ? "DEVICE" : "UNKNOWN_DESCRIPTOR";
}

bool is_message_queue(const wire::FileIdentity& identity) {
  return identity.filesystem_type() == kMessageQueues;
}

}  // namespace migrate::carriers
