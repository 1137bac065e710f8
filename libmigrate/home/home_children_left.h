#pragma once

#include <cstdint>
#include <memory>
#include <vector>

#include "libmigrate/home/answering_phase.h"
#include "libmigrate/home/deputy.h"

namespace migrate {

/// HomePhase::kChildrenLeft: the process and its deputy have ended, descendants of it have not.
/// They are owed pages, or use streams that lead home. Owned by the worker's one thread.
class HomeChildrenLeft : public AnsweringPhase {
 public:
  /// Deputy::end_deputy() has given true.
  explicit HomeChildrenLeft(Deputy& deputy) : deputy_(deputy), heard_us_(deputy.around().clock()) {}

  int collect_poll_fds(std::vector<pollfd>& polled) override;
  bool step() override;

 protected:
  void on_caller(std::unique_ptr<Channel> channel) override;
  Result<void> may_resolve(const Asker& asker) override;
  void on_resolve(EventSink client, Resolution resolution) override;
  void on_request(nlohmann::json request, EventSink client) override;

 private:
  void watch_keeper();
  void watch_silence();

  Deputy& deputy_;
  std::int64_t heard_us_;   // when something was heard of where they are
  bool given_up_ = false;   // by an operator, or after too long a silence
  bool told_lost_ = false;  // they know that their memory is lost
};

}  // namespace migrate
