#pragma once

#include <memory>
#include <nlohmann/json.hpp>

#include "libmigrate/host/event_sink.h"
#include "libmigrate/host/worker_loop.h"
#include "libmigrate/requests/requests.h"

namespace migrate {

/// A phase of a home worker, which says what it does with each kind of letter. There is no kind of
/// which it can say nothing: whoever asks for something is answered.
class AnsweringPhase : public WorkerPhase {
 public:
  /// Takes a letter apart. A request that cannot be read is answered here, in every phase alike.
  void on_letter(Letter letter) final;

 protected:
  /// Somebody who knows the process's token calls from where it runs, or may run.
  virtual void on_caller(std::unique_ptr<Channel> channel) = 0;
  /// `asker` wants to decide about the process. Errors: he may not.
  virtual Result<void> may_resolve(const Asker& asker) = 0;
  /// An operator, who may, has decided. Answers `client`, now or later.
  virtual void on_resolve(EventSink client, Resolution resolution) = 0;
  /// Any other request, which the process's worker at its place carries out and is left to read, or
  /// nobody. Answers `client`, now or later.
  virtual void on_request(nlohmann::json request, EventSink client) = 0;
};

}  // namespace migrate
