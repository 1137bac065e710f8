#pragma once

#include <cstdint>
#include <optional>
#include <string_view>

#include "base/result.h"
#include "libmigrate/proto/home.pb.h"
#include "libmigrate/relay/stream_buffer.h"

namespace migrate {

/// How a relay reads and writes one socket of a TCP connection so that no byte is lost or doubled
/// whenever its worker dies: what is read is only copied at first, and taken when it has been
/// noted; and what the kernel has counted tells the next worker how far this one has come. The
/// socket is the owner's, who passes it to each call. One thread; nothing blocks.
class ConnectionEnd {
 public:
  /// Of a socket that nobody reads or writes yet, when the kernel's counts are `taken` and `given`:
  /// what is read from now on has the offset `read_at`, what is written `written_at`.
  struct Start {
    std::uint64_t taken = 0;
    std::uint64_t given = 0;
    std::uint64_t read_at = 0;
    std::uint64_t written_at = 0;
  };
  explicit ConnectionEnd(const Start& start)
      : read_from_(start.read_at - start.taken), written_from_(start.written_at - start.given) {}

  /// Sets what reading and writing here needs of the socket: urgent data in line, no corking, each
  /// byte told when it comes, peeking from the first of them, and closing that does not block.
  /// (What SO_LINGER does the process's own end does, which has it.)
  static void prepare(int fd);

  void note(wire::ConnectionPlace& place) const;
  /// Goes on where another worker ended, which had noted `place`, and that it had read up to the
  /// end of `read` and written up to `written`. Gives the offset of the first byte that it has not
  /// written, at least `written`. Errors: kSystem.
  Result<std::uint64_t> adopt(const wire::ConnectionPlace& place, int fd, const StreamBuffer& read,
                              std::uint64_t written);

  enum class Read { kGoesOn, kEnded, kReset };
  /// Appends what waits, up to `most` bytes, unless take() is due.
  Read read(int fd, StreamBuffer& into, std::uint64_t most);
  /// Something that was read is still in the socket.
  bool is_take_due() const { return untaken_ > 0; }
  /// Takes what was read out of the socket. Call when it has been noted.
  void take(int fd);

  enum class Written { kFine, kBroken };
  /// Writes what there is room for, and drops it from `from`.
  Written write(int fd, StreamBuffer& from);
  /// The socket has been reset, as read() or write() has found.
  bool is_reset() const { return is_reset_; }
  /// Resets it now, whoever else has it open.
  static void reset(int fd);

  /// Whether the other end, which has written `given` bytes as the kernel counts from its
  /// beginning, has written more than was read up to `read_to`.
  bool is_short_of(std::uint64_t given, std::uint64_t read_to) const {
    return read_from_ + given > read_to;
  }

  /// Which byte of those that were read is urgent.
  std::optional<std::uint64_t> urgent() const { return urgent_; }
  /// The byte at this offset is to be written as urgent.
  void write_urgently(std::uint64_t offset) { urgent_to_write_ = offset; }

 private:
  std::uint64_t read_from_;
  std::uint64_t written_from_;
  std::uint64_t untaken_ = 0;
  bool is_reset_ = false;
  std::optional<std::uint64_t> urgent_;
  std::optional<std::uint64_t> urgent_to_write_;
};

/// One message of the stream `id`: from `offset` on at most `most` bytes of `buffer`, so that a
/// byte that is `urgent` is its last.
wire::RelayMessage data_message(std::uint32_t id, const StreamBuffer& buffer, std::uint64_t offset,
                                std::uint64_t most, std::optional<std::uint64_t> urgent);

}  // namespace migrate
