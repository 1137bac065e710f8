#pragma once

#include <sys/types.h>

#include <cstdint>
#include <map>
#include <vector>

#include "base/unique_fd.h"
#include "libmigrate/capture/timed_wait.h"
#include "libmigrate/cell/cell_control.h"
#include "libmigrate/inspect/process_inspector.h"
#include "libmigrate/proto/session.pb.h"

namespace migrate {

/// What a guest has that an inspection would not know for its own: the ends of its relayed streams,
/// files whose position counts at home, and the waits in which its threads came. Owned by one
/// thread.
class GuestObjects {
 public:
  /// Inodes of the relay's ends in the process, to stream ids.
  void set_relays(std::map<std::uint64_t, std::uint64_t> relays) { relays_ = std::move(relays); }
  /// The same of terminals, by st_rdev.
  void set_terminals(std::map<std::uint64_t, std::uint64_t> terminals) {
    terminals_ = std::move(terminals);
  }
  /// By OpenFile.shared_id.
  void set_shared_files(std::map<std::uint64_t, UniqueFd> files) { files_ = std::move(files); }
  void set_waits(std::vector<WaitRecord> waits) { waits_ = std::move(waits); }

  /// What a new worker needs, into the text, and what it needs open, to the init.
  Result<void> note(wire::CellSession& noted, CellControl& cell) const;
  /// The same back. Shared files come by adopt_file().
  void adopt(const wire::CellSession& noted);
  void adopt_file(std::uint64_t id, UniqueFd file) { files_.emplace(id, std::move(file)); }

  /// For an inspection of `seed`; borrows the files.
  KnownObjects known(pid_t seed) const;
  const std::vector<WaitRecord>& waits() const { return waits_; }
  /// Where the shared files are read and written now, by OpenFile.shared_id.
  std::map<std::uint64_t, std::uint64_t> positions() const;

 private:
  std::map<std::uint64_t, std::uint64_t> relays_;
  std::map<std::uint64_t, std::uint64_t> terminals_;
  std::map<std::uint64_t, UniqueFd> files_;
  std::vector<WaitRecord> waits_;
};

}  // namespace migrate
