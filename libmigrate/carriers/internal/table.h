#pragma once

#include <array>
#include <string_view>

#include "libmigrate/carriers/carrier.h"

/// The table of carriers: one line for each kind, in the order of wire::OpenFile::Kind. Each is
/// defined in the file of its name.
#define MIGRATE_CARRIERS(CARRIER) \
  CARRIER(kRegularFile)           \
  CARRIER(kDirectory)             \
  CARRIER(kDevice)                \
  CARRIER(kPipe)                  \
  CARRIER(kEventfd)               \
  CARRIER(kEpoll)                 \
  CARRIER(kTimerfd)               \
  CARRIER(kSignalfd)              \
  CARRIER(kMemoryFile)            \
  CARRIER(kRelay)                 \
  CARRIER(kSocketPair)            \
  CARRIER(kOwnProcFile)           \
  CARRIER(kOwnPidfd)              \
  CARRIER(kInotify)               \
  CARRIER(kTerminal)              \
  CARRIER(kConnection)            \
  CARRIER(kListener)              \
  CARRIER(kTerminalPair)          \
  CARRIER(kOpenSocket)            \
  CARRIER(kUnixConnection)

#define MIGRATE_DECLARE_CARRIER(name) extern const Carrier name;

namespace migrate::carriers {

MIGRATE_CARRIERS(MIGRATE_DECLARE_CARRIER)

/// What no carrier carries, and whose link tells well enough what it is to be refused by its own
/// name. Whoever writes a carrier for it takes its lines away.
struct RefusedLink {
  std::string_view prefix;
  std::string_view code;
};
inline constexpr std::array kRefusedLinks = std::to_array<RefusedLink>({
    {"anon_inode:[fanotify]", "FANOTIFY"},
    {"anon_inode:[userfaultfd]", "USERFAULTFD"},
    {"anon_inode:[perf_event]", "PERF"},
    {"anon_inode:[io_uring]", "IO_URING"},
    {"anon_inode:bpf", "BPF"},
    {"anon_inode:[bpf", "BPF"},
    {"anon_inode:btf", "BPF"},
    {"anon_inode:kvm", "KVM"},
    {"anon_inode:[kvm", "KVM"},
});

}  // namespace migrate::carriers
