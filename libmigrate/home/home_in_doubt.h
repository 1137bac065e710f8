#pragma once

#include <cstdint>
#include <memory>
#include <vector>

#include "libmigrate/home/answering_phase.h"
#include "libmigrate/home/departed.h"
#include "libmigrate/move/doubt.h"

namespace migrate {

/// HomePhase::kInDoubt: Run was sent, and the process runs nowhere until one of them says where it
/// runs: the destination, the process itself by calling from there, or an operator. Owned by the
/// worker's one thread.
class HomeInDoubt : public AnsweringPhase {
 public:
  /// Enters the phase. `client` asked for the move; it is told if the doubt lasts.
  HomeInDoubt(const HomeSurroundings& around, HomeRecord& record, Departed& departed,
              EventSink& client);

  int collect_poll_fds(std::vector<pollfd>& polled) override;
  bool step() override;

  /// When step() has given false: does what was decided, and answers the operator. Blocks for up to
  /// seven seconds.
  DoubtEnd settle();
  /// Who has called from where it runs, if he has: a link to the process for its relay.
  std::unique_ptr<Channel> take_caller() { return std::move(caller_); }

 protected:
  void on_caller(std::unique_ptr<Channel> channel) override;
  Result<void> may_resolve(const Asker& asker) override;
  void on_resolve(EventSink client, Resolution resolution) override;
  void on_request(nlohmann::json request, EventSink client) override;

 private:
  bool is_settled() const;
  void hear_caller();

  const HomeSurroundings& around_;
  HomeRecord& record_;
  Departed& departed_;
  EventSink& client_;
  const std::int64_t since_us_;
  std::unique_ptr<Channel> caller_;  // from where it may run
  Decision decision_;
};

}  // namespace migrate
