#pragma once

#include <cstdint>
#include <nlohmann/json.hpp>
#include <string>

#include "base/result.h"
#include "libmigrate/move/move_outcome.h"
#include "libmigrate/pages/confirmed_pages.h"
#include "transport/preamble.h"

namespace migrate {

/// A move of which Run was sent, as the worker sees it that stays behind: what the destination says
/// of the process, and what is still owed. SourceMove is the one that there is; tests of workers
/// have another. Owned by one thread.
class Departure {
 public:
  Departure() = default;
  Departure(const Departure&) = delete;
  Departure& operator=(const Departure&) = delete;
  virtual ~Departure() = default;

  virtual const SessionId& session() const = 0;
  virtual std::string destination() const = 0;
  /// Why it is in doubt, or how the process was lost.
  virtual const Error& error() const = 0;

  /// What is known since Run was sent. Once it is other than kUnknown, only the end can follow.
  virtual Fate fate() const = 0;
  virtual int wait_status() const = 0;
  /// Since when (now_us()) and for what it waits; empty while all is well.
  virtual const std::string& waits_for() const = 0;
  virtual std::int64_t waits_since_us() const = 0;
  /// The destination owes us no more questions: all pages are there, or the process has ended. And
  /// it knows that we know, or did not say so in time.
  virtual bool done() const = 0;
  virtual std::uint64_t owed_pages() const = 0;

  /// Polls readable when handle() has something to do; -1: nothing to poll.
  virtual int control_fd() const = 0;
  /// Reads what the destination reports, frees what it confirmed, and re-makes broken connections.
  /// Call every now and then, and when control_fd() polls readable. No error is the caller's to
  /// handle: what comes of one is in fate(), waits_for() and done(), and in the log. Returns what
  /// is left of the parked process; once that is gone, so it is every time.
  virtual Original handle() = 0;
  /// Asks the destination, by a new connection if there is none. Blocks for up to seven seconds.
  virtual void ask_once_more() = 0;
  /// Its home knows that it runs there: the process has called from there.
  virtual void confirm_runs() = 0;
  /// Brings the process back here: when fate() is kNeverRan, or someone takes that on himself.
  virtual Result<void> resume_here() = 0;
  /// What is parked here is gone, or gives way: answers no more questions of pages. handle() goes
  /// on listening, until the destination has nothing more to say.
  virtual void stop_serving() = 0;
  /// What is parked here is no longer found under its name by `ps`.
  virtual Result<void> hide() = 0;

  /// The object that `move --json` prints, without "exit".
  virtual nlohmann::json result() const = 0;
  virtual nlohmann::json progress_event() const = 0;
};

}  // namespace migrate
