#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "libmigrate/guest/guest_letters.h"
#include "libmigrate/guest/onward.h"
#include "libmigrate/move/doubt.h"
#include "libmigrate/relay/home_enquiry.h"

namespace migrate {

/// What both phases of a move on answer to letters: everything but an operator's decision is to be
/// asked again, of whoever has the process then. Owned by the worker's thread.
class GoingOn : public GuestPhaseRunner {
 public:
  /// Both are borrowed.
  GoingOn(Guest& guest, OnwardMove& onward) : GuestPhaseRunner(guest), onward_(onward) {}

  int collect_poll_fds(std::vector<pollfd>& polled) override;

 protected:
  void on_request(GuestRequest request) final;
  void on_resume(std::unique_ptr<ControlChannel> control) final;
  void on_pages(Purpose purpose, std::unique_ptr<Channel> channel) final;
  /// An operator on this host, who may, has decided.
  virtual void decide(Resolution resolution, EventSink sink) = 0;

  Departure& move() const { return *onward_.move; }
  void refuse(EventSink& sink, const char* operation, const std::string& reason) const;

  OnwardMove& onward_;

 private:
  void on_decision(GuestRequest request, Resolution resolution);
};

/// Run was sent, and nobody has said yet whether the process runs there (kInDoubt). It stands
/// still here.
class GuestInDoubt final : public GoingOn {
 public:
  GuestInDoubt(Guest& guest, OnwardMove& onward);

  bool step() override;

  /// How it ended.
  enum class End {
    kThere,  ///< It ran, runs or ended at the next place.
    kHere,   ///< It runs here again.
    kOver,   ///< It is over, as its home or an operator says; report_end() was called.
  };
  /// To be called once step() is false.
  End settle();

 protected:
  void decide(Resolution resolution, EventSink sink) override;

 private:
  void ask_home();
  void end_process(const std::string& why);
  void stay();

  Decision decision_;
  std::unique_ptr<HomeEnquiry> enquiry_;
  const std::int64_t since_us_;
  std::int64_t next_enquiry_us_ = 0;
  bool home_ended_ = false;  // its home says that it is over
};

/// The process runs at the next place, and this host serves its pages until it owes nothing
/// (kLeaving); then waits a moment for the source that it came from itself, which would never hear
/// of the end otherwise.
class GuestLeaving final : public GoingOn {
 public:
  GuestLeaving(Guest& guest, OnwardMove& onward);
  ~GuestLeaving() override;

  bool step() override;

 protected:
  void decide(Resolution resolution, EventSink sink) override;

 private:
  bool serve();
  bool waits_too_long() const;

  std::int64_t next_progress_us_ = 0;
  std::int64_t goodbye_until_us_ = 0;  // 0: it still serves
  bool given_up_ = false;              // nobody will ask for pages any more
};

}  // namespace migrate
