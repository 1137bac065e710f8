#pragma once

#include <optional>
#include <set>
#include <string>
#include <vector>

#include "libmigrate/move/source_move_options.h"
#include "libmigrate/policy/travel.h"
#include "libmigrate/program/program.h"

namespace migrate {

/// How the memory of one process travels, as its host's policy, who asks, and the program say:
/// makes of what was seen of the process what its destination hears of it. Owned by the thread of
/// the move.
class TravelPlan {
 public:
  /// `options` is borrowed and outlives this.
  explicit TravelPlan(const SourceMoveOptions& options);

  /// A new attempt begins: no destination has said anything.
  void begin();
  /// The running process, with what its program advises: makes the draft.
  void see(wire::Image seen, std::vector<ProgramAdvice> advice);
  /// Which files the destination has counts for a rule or is told to who asks, and it has not said
  /// so: until it has, the draft is the process as it was seen, and nobody knows which files are
  /// refused.
  bool must_ask() const { return asks_ && !asked_; }
  /// The destination has said which files it has not got.
  bool asked() const { return asked_; }
  /// The destination has not got these files: makes the draft anew.
  void learn(const FilesNotThere& not_there);
  /// It has refused the draft for that alone: learns it. True: the policy has something of them
  /// sent.
  bool ship(const std::optional<FilesNotThere>& not_there);
  /// The same for the frozen process, whose image that is.
  void apply_frozen(const std::vector<ProgramAdvice>& advice, wire::Image& image);
  /// Notes which of the files that are not there are mapped shared and to be sent. True: there are
  /// some, so that the process is to be seen anew, with memory in their place.
  bool sends_as_memory();
  /// The paths of all that were noted.
  const std::set<std::string>& files_as_memory() const { return as_memory_; }
  /// Nobody may hear what was found.
  void forget() { travels_.reset(); }

  /// The process as it was seen, and as it is to be there.
  const wire::Image& seen() const { return seen_; }
  const wire::Image& draft() const { return draft_; }
  /// What was decided last; nothing if nobody may hear that.
  const std::optional<Travels>& travels() const { return travels_; }
  const FilesNotThere& not_there() const { return not_there_; }

 private:
  TravelPolicy policy() const;
  bool ships_unknown() const;

  const SourceMoveOptions& options_;
  wire::Image seen_;
  wire::Image draft_;
  std::vector<ProgramAdvice> advice_;
  FilesNotThere not_there_;
  std::set<std::string> as_memory_;
  bool asks_ = false;   // must_ask() until then
  bool asked_ = false;  // the destination has said which files it has
  std::optional<Travels> travels_;
};

}  // namespace migrate
