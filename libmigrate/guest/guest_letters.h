#pragma once

#include <memory>
#include <nlohmann/json.hpp>
#include <optional>

#include "libmigrate/guest/guest.h"
#include "libmigrate/host/event_sink.h"
#include "libmigrate/host/letter_request.h"
#include "libmigrate/host/worker_loop.h"
#include "libmigrate/requests/requests.h"

namespace migrate {

/// A request to the worker of a guest.
struct GuestRequest {
  WorkerRequest wanted;
  nlohmann::json text;  ///< Who asks is in it.
  EventSink sink;
  std::optional<PeerIdentity> home;  ///< Who passed it on; nothing if a client on this host asks.

  const PeerIdentity* home_or_null() const { return home ? &*home : nullptr; }
  void refuse(int exit_code, const Error& error) { sink.finish_failed(exit_code, error); }
};

/// A phase of a guest, with an answer to every kind of letter. Owned by the worker's thread.
class GuestPhaseRunner : public WorkerPhase {
 public:
  explicit GuestPhaseRunner(Guest& guest) : guest_(guest) {}

  /// Sorts letters. Requests that cannot be read, or are a daemon's, are answered here.
  void on_letter(Letter letter) final;

 protected:
  /// Of a client on this host or of the home. Answers `request`, or keeps it and answers later.
  virtual void on_request(GuestRequest request) = 0;
  // Of the source.
  virtual void on_resume(std::unique_ptr<ControlChannel> control) = 0;
  virtual void on_pages(Purpose purpose, std::unique_ptr<Channel> channel) = 0;

  Guest& guest_;

 private:
  void read_request(LetterRequest asked);
};

}  // namespace migrate
