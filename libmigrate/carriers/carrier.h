#pragma once

#include <sys/types.h>

#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <string_view>

#include "base/result.h"
#include "base/unique_fd.h"
#include "libmigrate/carriers/made_pairs.h"
#include "libmigrate/proto/image.pb.h"
#include "libmigrate/trace/script.h"

namespace migrate::carriers {

/// One descriptor of a process, as /proc shows it.
struct Sighting {
  std::uint32_t number = 0;
  std::string link = {};     ///< /proc/PID/fd/NUMBER
  std::string details = {};  ///< /proc/PID/fdinfo/NUMBER
  std::uint32_t flags = 0;   ///< O_*, close-on-exec included
};

/// A line that /proc/PID/fdinfo has of this kind of file alone, for docs/state.md.
struct ShownLine {
  std::string_view name;   ///< As it is called there.
  std::string_view how;    ///< How it is carried, or why it is not.
  bool is_carried = true;  ///< Else the destination's own, for every process.
};

/// What an inspection has seen of one pipe.
struct PipeSeen {
  bool readable = false;
  bool writable = false;
  std::uint32_t number = 0;             ///< Of one descriptor.
  std::optional<std::uint64_t> object;  ///< Index into Objects.pipes, once it is there.
};

/// What finding an object may ask of the inspection. The process may be running, and close what it
/// has at any moment. Used by one thread.
class FindContext {
 public:
  virtual ~FindContext() = default;

  virtual pid_t process() const = 0;
  /// Its id as it sees that itself.
  virtual std::uint32_t inner_process() const = 0;
  virtual wire::Objects& objects() = 0;
  /// The image of the last inspection, if the process is frozen now; else null.
  virtual const wire::Objects* draft() const = 0;
  /// /proc/PID/fd; borrowed.
  virtual int directory() const = 0;
  /// A duplicate of the process's descriptor; not valid if that cannot be had.
  virtual UniqueFd fetch(std::uint32_t number) const = 0;
  /// Adds a refusal. Gives false, which is what find() then gives too.
  virtual bool refuse(std::string_view code, const Sighting& seen, std::string_view detail) = 0;
  bool refuse(std::string_view code, const Sighting& seen) { return refuse(code, seen, {}); }

  /// Whether `path`, as the process itself sees it, leads to the file with this identity.
  virtual bool leads_to(const std::string& path, const wire::FileIdentity& identity) const = 0;
  /// Larger files that are open for reading only are not hashed.
  virtual std::uint64_t hash_limit_bytes() const = 0;
  /// OpenFile.shared_id of a file that an ancestor has open too; 0: nobody has.
  virtual std::uint64_t shared_id(const Sighting& seen) const = 0;
  /// Index into Objects.shared_memories of the memory file, of which `fd` is a duplicate, or -1.
  /// Errors: kUnsupported (huge pages), kSystem.
  virtual Result<std::uint32_t> add_memory(const Sighting& seen, int fd) = 0;

  /// The same for each sighting of the pipe with this inode.
  virtual PipeSeen& pipe(std::uint64_t inode) = 0;
  /// Whether some descriptor of the process is the socket with this inode.
  virtual bool has_socket(std::uint64_t inode) const = 0;
  /// Nobody outside may hold the pipe; `object` names it in the refusal otherwise.
  virtual void expect_private_pipe(std::uint64_t inode, std::string object) = 0;
  /// Nobody outside may have the slave side of a pseudo-terminal open, by st_dev of its node and
  /// st_rdev; if it is the terminal of the process's session, nobody else may be in that.
  virtual void expect_private_terminal(std::uint64_t instance, std::uint64_t device,
                                       bool is_of_session, std::string object) = 0;
  /// The stream whose end this is, if an earlier move gave the process that end.
  virtual std::optional<std::uint64_t> known_stream(std::uint64_t inode) const = 0;
  /// The stream whose end the terminal with this st_rdev is, the same.
  virtual std::optional<std::uint64_t> known_terminal(std::uint64_t device) const = 0;
  /// The process is away from home: what it has connected here no deputy has.
  virtual bool is_guest() const = 0;
  /// The id of the stream to `object`, which the process has as descriptor `number`.
  virtual std::uint64_t stream_to(std::uint32_t number, const std::string& object) = 0;
};

/// What capturing an object's content may ask. The process is frozen.
class CaptureContext {
 public:
  virtual ~CaptureContext() = default;

  virtual wire::Objects& objects() = 0;
  /// A duplicate of the process's descriptor. Errors: kSystem.
  virtual Result<UniqueFd> fetch(std::uint32_t number) = 0;
  /// The content of the shared memory with this index, as its extents say, is read from this open
  /// file later, and follows the image.
  virtual void follow(std::uint64_t memory, UniqueFd source) = 0;
};

/// What comparing a file with this host's own may ask.
class CompareContext {
 public:
  virtual ~CompareContext() = default;

  /// Whether source and destination are the same running kernel.
  virtual bool same_kernel() const = 0;
  /// Adds a refusal about the file.
  virtual void refuse(std::string_view code, std::string_view detail) = 0;
};

/// What making an object anew may ask of the restorer.
class MakeContext {
 public:
  virtual ~MakeContext() = default;

  virtual const wire::Objects& objects() const = 0;
  /// The process that the object is made for, as this one sees it.
  virtual pid_t process() const = 0;
  /// Opens what is under the path of `file`, if that is surely this file. For carriers that are
  /// Carrier::opened_as_user only. Errors: kNotFound, kRefused, kSystem.
  virtual Result<UniqueFd> open(const wire::FileIdentity& file, int flags) = 0;
  /// A place for the pipe with this index into Objects.pipes, empty at first.
  virtual MadePipe& pipe(std::uint64_t index) = 0;
  /// A place for the pseudo-terminal with this index into Objects.terminal_pairs, empty at first.
  virtual MadeTerminalPair& terminal_pair(std::uint64_t index) = 0;
  /// The socket pair with this index into Objects.socket_pairs, which the process itself has made,
  /// so that it is the one whom SO_PEERCRED names.
  virtual MadeSocketPair& socket_pair(std::uint64_t index) = 0;
  /// What Carrier::create has made for the file that make() is called for. To be asked for once.
  virtual UniqueFd created() = 0;
  /// The shared memory with this index into Objects.shared_memories; borrowed.
  virtual int memory(std::uint64_t index) const = 0;
  /// Whether nobody has asked this about the memory yet: its own open file is given away once.
  virtual bool is_first_of_memory(std::uint64_t index) = 0;
  /// The process's end of a relayed stream; borrowed. Errors: kCorrupt (there is no such stream).
  virtual Result<int> relay_end(std::uint64_t stream) const = 0;
};

/// All that is to be known of one kind of open file. What a kind does not need stays null. The
/// functions keep no state; each says below when it is called, and by which room.
struct Carrier {
  wire::OpenFile::Kind kind = wire::OpenFile::REGULAR;
  std::string_view name;  ///< "eventfd"; empty: no such kind
  std::span<const ShownLine> lines = {};

  /// inspect: whether a descriptor is of this kind, by its link alone. At most one kind's is.
  bool (*claims_link)(const FindContext& context, const Sighting& seen) = nullptr;
  /// inspect: the same of a file that its link names, by its identity.
  bool (*claims_file)(const wire::FileIdentity& identity) = nullptr;
  /// inspect: fills `file`, in which kind, flags, position and (of files with a path) identity are
  /// set already. False after a refusal. Once for each open file, frozen or not.
  bool (*find)(FindContext& context, const Sighting& seen, wire::OpenFile& file) = nullptr;
  /// inspect: what can be told only when all descriptors have been seen. Once for each open file
  /// that was found, with its lowest descriptor.
  void (*settle)(FindContext& context, std::uint32_t number, wire::OpenFile& file) = nullptr;
  /// inspect: whether the kernel keeps a state with the open file that no two hosts can share.
  bool (*has_state)(const wire::OpenFile& file) = nullptr;
  /// inspect: who is left behind with the same open file is given its position at the end.
  bool position_returns = false;

  /// capture: reads what is in the object into the image. Once for each descriptor, in the freeze.
  Result<void> (*capture)(CaptureContext& context, std::uint32_t number,
                          const wire::OpenFile& file) = nullptr;
  /// park: the most bytes that capture() may add to the draft `objects` for all objects of this
  /// kind, also for those that grow meanwhile: the final image is written into the parked process,
  /// where there must be room for it.
  std::uint64_t (*most_content_bytes)(const wire::Objects& objects) = nullptr;
  /// capture: takes the time off that has gone by since find(), by the source's CLOCK_MONOTONIC.
  void (*advance)(wire::OpenFile& file, std::uint64_t source_now_ns) = nullptr;

  /// image: what is wrong with a file that a peer sent; null: nothing. Whatever passes can be
  /// restored without looking at it again.
  const char* (*flaw)(const wire::Objects& objects, const wire::OpenFile& file) = nullptr;
  /// rules: compares with what this host has in its place, and refuses.
  void (*compare)(CompareContext& context, const wire::OpenFile& file) = nullptr;

  /// restore: adds the call that makes the object in the process itself, with the ids of its user,
  /// to whom the kernel counts it: a user has no more of them anywhere than he may. Returns the
  /// call's index. make() gets what it has made by MakeContext::created().
  std::size_t (*create)(Script& script, const wire::Objects& objects,
                        const wire::OpenFile& file) = nullptr;
  /// restore: opens or makes the object in this process.
  Result<UniqueFd> (*make)(MakeContext& context, const wire::OpenFile& file) = nullptr;
  /// restore: make() runs with the rights of the process's user, and before all that does not.
  bool opened_as_user = false;
  /// restore: adds calls that the process makes when all its descriptors are in place. Once for
  /// each open file, with its lowest descriptor.
  void (*connect)(Script& script, std::uint32_t number, const wire::OpenFile& file) = nullptr;
};

}  // namespace migrate::carriers
