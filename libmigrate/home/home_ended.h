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
  void on_request(Command command, nlohmann::json request, EventSink client) override;

 private:
  void tell(EventSink client);

  Deputy& deputy_;
  const std::int64_t until_us_;
};

/// The last phase of every worker, which is about to end: whoever has asked meanwhile is told why
/// nothing came of it. Owned by the worker's one thread.
class HomeOver : public AnsweringPhase {
 public:
  /// What everybody is told.
  HomeOver(int exit_code, Error reason) : exit_code_(exit_code), reason_(std::move(reason)) {}

  int collect_poll_fds(std::vector<pollfd>& /*polled*/) override { return 0; }
  bool step() override { return false; }

 protected:
  void on_caller(std::unique_ptr<Channel> channel) override;
  Result<void> may_resolve(const Asker& asker) override;
  void on_resolve(EventSink client, Resolution resolution) override;
  void on_request(Command command, nlohmann::json request, EventSink client) override;

 private:
  const int exit_code_;
  const Error reason_;
};

/// What is said of `process`, as people know it, when it has ended.
Error ended_error(const std::string& process);

}  // namespace migrate
