#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "libmigrate/home/answering_phase.h"
#include "libmigrate/home/home_record.h"
#include "libmigrate/home/home_surroundings.h"
#include "libmigrate/proto/control.pb.h"

namespace migrate {

/// A process that was killed here while it was in doubt where it runs, and while no worker looked:
/// asks the destination until that answers, and ends the process if it runs there. In the record it
/// stays in the phase in which the dead worker left it. Owned by the worker's one thread.
class HomeKilled : public AnsweringPhase {
 public:
  /// Asks the destination what became of the process. Blocks for up to eight seconds.
  using Ask = std::function<Result<wire::Verdict>()>;

  /// `there`: the destination, and the session of the move to it.
  HomeKilled(const HomeSurroundings& around, HomeRecord& record, Whereabouts there, Ask ask);

  int collect_poll_fds(std::vector<pollfd>& polled) override;
  /// Blocks for up to eighteen seconds.
  bool step() override;

  /// When step() has given false: what the destination said; nothing if an operator gave up asking.
  const std::optional<wire::Verdict>& verdict() const { return verdict_; }

 protected:
  void on_caller(std::unique_ptr<Channel> channel) override;
  Result<void> may_resolve(const Asker& asker) override;
  void on_resolve(EventSink client, Resolution resolution) override;
  void on_request(nlohmann::json request, EventSink client) override;

 private:
  Result<wire::Verdict> end_there();

  const HomeSurroundings& around_;
  HomeRecord& record_;
  const Whereabouts there_;
  const Ask ask_;
  const std::int64_t since_us_;
  std::unique_ptr<Channel> caller_;
  std::optional<wire::Verdict> verdict_;
  bool given_up_ = false;
};

}  // namespace migrate
