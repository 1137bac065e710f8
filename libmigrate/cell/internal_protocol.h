#pragma once

#include <sys/socket.h>
#include <sys/types.h>

#include <array>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <optional>
#include <span>

#include "base/result.h"
#include "base/unique_fd.h"
#include "libmigrate/cell/cell.h"

namespace migrate::cell {

/// Messages between worker, init and seed; one per packet of a local SOCK_SEQPACKET socket.
enum class MessageKind : std::uint32_t {
  kStatus = 1,     ///< init -> worker: value is a wait status of the moved process.
  kEmpty = 2,      ///< init -> worker: no process is left.
  kFailed = 3,     ///< init or seed -> worker: value is an errno; text says of what.
  kReady = 4,      ///< seed -> worker: carries the userfaultfd.
  kKeep = 5,       ///< worker -> init: carries a descriptor to hold as `kept`.
  kDrop = 6,       ///< worker -> init: close what is held as `kept`; with number 0 all of its kind.
  kKept = 7,       ///< init -> new worker: carries what is held as `kept`.
  kKeptEnd = 8,    ///< init -> new worker: that was all.
  kSignal = 9,     ///< worker -> init: send the seed signal `value` as pid kept.number, of user
                   ///< kept.parent.
  kTerminal = 10,  ///< init -> worker: master, and then slave, of the terminal of its session.
  /// worker -> init: gives that to the process's group, with value 0 to the init's; carries a pipe
  /// into which the init writes an errno, an int, when it is done.
  kForeground = 11,
};
struct Message {
  MessageKind kind = MessageKind::kEmpty;
  std::int32_t value = 0;
  Kept kept{};
  std::array<char, 56> text{};
};

/// Sends one message with descriptors (at most 250). Never raises SIGPIPE.
Result<void> send_message(int socket, const Message& message, std::span<const int> descriptors);

struct Received {
  Message message;
  UniqueFd descriptor;
  pid_t sender = 0;  ///< As this process's PID namespace sees it; needs SO_PASSCRED.
};
/// The next message. `wait`: block until there is one, else kRetry. kPeerLost at end of file.
Result<Received> receive_message(int socket, bool wait);

/// What the init has from the worker that it is a fork of.
struct InitOptions {
  int worker_socket = -1;
  int seed_socket = -1;
  int listener = -1;  ///< Where new workers come.
  int mark = -1;      ///< The session file.
  std::uint32_t process_id = 0;
  std::uint32_t seed_descriptor = 0;
  std::optional<unsigned> terminal;  ///< As in CellOptions.
  std::uint32_t login_user = ~0U;
  bool has_network = false;  ///< Of its own.
};
/// Body of the cell's init, in the new namespaces. Never returns.
[[noreturn]] void run_init(const InitOptions& options);

}  // namespace migrate::cell
