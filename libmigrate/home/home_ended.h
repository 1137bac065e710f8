#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "libmigrate/home/answering_phase.h"
#include "libmigrate/home/deputy.h"

namespace migrate {

/// HomePhase::kEnded, while the place where the process was may not yet know that we know of its
/// end: for two seconds at most. Owned by the worker's one thread.
class HomeEnded : public AnsweringPhase {
 public:
  explicit HomeEnded(Deputy& deputy);

  int collect_poll_fds(std::vector<pollfd>& polled) override;
  bool step() override;

 protected:
  void on_caller(std::unique_ptr<Channel> channel) override;
  Result<void> may_resolve(const Asker& asker) override;
  void on_resolve(EventSink client, Resolution resolution) override;
  void on_request(nlohmann::json request, EventSink client) override;

 private:
  void tell(EventSink client);

  Deputy& deputy_;
  const std::int64_t until_us_;
};

/// What is said of `process`, as people know it, when it has ended.
Error ended_error(const std::string& process);

}  // namespace migrate
