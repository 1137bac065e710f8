#pragma once

#include <cstdint>

#include "base/result.h"
#include "base/unique_fd.h"
#include "libmigrate/proto/home.pb.h"
#include "libmigrate/relay/stream_buffer.h"

namespace migrate {

/// How a relay reads and writes a connected Unix domain stream socket so that no byte is lost or
/// doubled whenever its worker dies. What is read is only copied at first (MSG_PEEK), and taken
/// when it has been noted; the socket itself, by SO_PEEK_OFF, tells the next worker what this one
/// has copied and not taken. What is written goes through a pipe, the *journal*, which somebody
/// else keeps open too, and in which the kernel counts what has not come to the socket yet
/// (splice(2)). The socket is the owner's, who passes it to each call. One thread; nothing blocks.
class SocketEnd {
 public:
  /// Makes the journal. Without one, what a worker wrote just when it died is written again.
  /// Errors: kSystem.
  Result<void> open_journal();
  /// The same, with a pipe that somebody else has made, of which `end` is one end (borrowed), for a
  /// socket that others had before: nothing beyond `written` has been written to it.
  Result<void> keep_journal(int end, int fd, std::uint64_t written);
  /// A descriptor by which that pipe is read and written. Errors: kSystem.
  static Result<UniqueFd> open_journal_of(int end);
  int journal() const { return journal_.get(); }

  void note(wire::SocketPlace& place) const;
  /// Goes on where another worker ended, which had noted `place`, and that it had written up to
  /// `written`. Gives the offset of the first byte that it has not written.
  std::uint64_t adopt(const wire::SocketPlace& place, int fd, UniqueFd journal,
                      std::uint64_t written);

  enum class Read { kGoesOn, kEnded };
  /// Appends what waits, up to `most` bytes, unless take() is due. First of all sets what that
  /// needs of the socket, of which nobody else may make use from then on; so an urgent byte
  /// (MSG_OOB) is one as any other.
  Read read(int fd, StreamBuffer& into, std::uint64_t most);
  /// Takes what was read out of the socket. Call when it has been noted.
  void take(int fd);
  /// More waits than was read.
  bool has_more(int fd) const;

  enum class Written { kFine, kBroken };
  /// Writes what there is room for, and drops it from `from`.
  Written write(int fd, StreamBuffer& from);

 private:
  void prepare(int fd);
  std::uint64_t empty_journal(int fd);
  bool fill_journal(int fd, const StreamBuffer& from);
  std::int64_t send(int fd, const StreamBuffer& from);

  std::uint64_t untaken_ = 0;
  bool is_odd_ = false;  // So many times something was taken; the socket knows it, too.
  bool has_lost_ = false;
  bool is_prepared_ = false;
  UniqueFd journal_;  // Both ends.
  std::uint64_t in_journal_ = 0;
};

}  // namespace migrate
