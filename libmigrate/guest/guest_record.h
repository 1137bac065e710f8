#pragma once

#include <cstdint>
#include <functional>
#include <set>
#include <string>
#include <utility>

#include "base/result.h"
#include "libmigrate/cell/cell_control.h"
#include "libmigrate/proto/session.pb.h"
#include "libmigrate/relay/guest_relay.h"
#include "libmigrate/state/process_row.h"
#include "libmigrate/state/session_file.h"
#include "transport/preamble.h"

namespace migrate {

/// What is written down of a guest: its phase and all that a new worker needs, in the session's
/// file and with its cell's init, and what users see of it, in its row. Owned by one thread.
class GuestRecord {
 public:
  /// `noted`: what the file's text says already.
  GuestRecord(SessionFile file, ProcessRow row, const SessionId& session,
              wire::CellSession noted = {});

  /// What the row says beside what is noted.
  struct Facts {
    std::uint64_t owed_pages = 0;  ///< To the process.
    std::string owed_by{};         ///< By which host; empty: this one.
    std::string where{};           ///< Where it runs; empty: here.
    bool children_left = false;    ///< Once it has ended: whether children of it are in its cell.
    std::string lost{};            ///< Why it did not end by itself.
  };
  /// `facts` is asked whenever the row is written.
  void set_facts(std::function<Facts()> facts) { facts_ = std::move(facts); }

  GuestPhase phase() const { return file_.mark().phase.guest(); }
  /// As wait(2) gives it; counts once has_ended(phase()).
  int wait_status() const { return file_.mark().phase.wait_status(); }
  /// The one place where the worker takes a step: into the record, the log and the row.
  /// `wait_status` counts if the process has ended with it, and nobody has noted how before.
  void enter(GuestPhase phase, int wait_status = SessionPhase::kKilled);
  /// Writes the row, which is what the record and the facts say. None before its process has a pid.
  void write_row();

  /// The file's text, which save() writes.
  wire::CellSession& noted() { return noted_; }
  const wire::CellSession& noted() const { return noted_; }
  Result<void> save() { return file_.save(noted_.SerializeAsString()); }

  /// Makes the init hold the ends of `relay` that are open here and nothing else: what it held
  /// longer, the process would not see closed. What failed is tried again at the next call.
  Result<void> keep_ends(CellControl& cell, const GuestRelay& relay);
  /// The init holds that end already, as a new worker finds.
  void note_kept(Kept what) { kept_ends_.emplace(what.kind, what.number); }

  SessionFile& file() { return file_; }
  ProcessRow& row() { return row_; }

 private:
  SessionFile file_;
  ProcessRow row_;
  const SessionId session_;
  wire::CellSession noted_;
  std::set<std::pair<Kept::Kind, std::uint32_t>> kept_ends_;
  std::function<Facts()> facts_ = [] { return Facts(); };
};

/// What a dead worker noted; empty if the text is damaged. Errors: as SessionFile::load.
Result<wire::CellSession> read_noted(const SessionFile& file);
/// The process that it noted; all zeros if none.
SessionId process_of(const wire::CellSession& noted);

/// As what the init of a cell keeps an end of a relayed stream.
Kept::Kind kept_kind(RelayEnd::Kind kind);

}  // namespace migrate
