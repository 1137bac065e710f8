#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <vector>

#include "libmigrate/home/answering_phase.h"
#include "libmigrate/home/deputy.h"

namespace migrate {

/// HomePhase::kServing and kIndependent: the process runs elsewhere. Over when it is known how it
/// ended. Owned by the worker's one thread.
class HomeServing : public AnsweringPhase {
 public:
  explicit HomeServing(Deputy& deputy) : deputy_(deputy) {}

  int collect_poll_fds(std::vector<pollfd>& polled) override;
  bool step() override;

 protected:
  void on_caller(std::unique_ptr<Channel> channel) override;
  Result<void> may_resolve(const Asker& asker) override;
  void on_resolve(EventSink client, Resolution resolution) override;
  void on_request(nlohmann::json request, EventSink client) override;

 private:
  void hear_of_end();

  Deputy& deputy_;
  std::optional<std::int64_t> told_ended_us_;  // when the destination's daemon said so
};

/// An operator knows that the process is lost with its place.
ProcessEnd given_up_end();

}  // namespace migrate
