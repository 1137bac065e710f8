#pragma once

#include <cstdint>
#include <nlohmann/json.hpp>
#include <optional>
#include <string>
#include <vector>

#include "base/result.h"
#include "base/unique_fd.h"
#include "libmigrate/host/event_sink.h"
#include "libmigrate/host/mailbox.h"

namespace migrate {

/// What a letter asks for, and whom to answer.
struct LetterRequest {
  std::string text;  ///< JSON
  EventSink sink;
  std::optional<PeerIdentity> home;  ///< Who passed it on; nothing if a client on this host asks.
};

/// Adds to a request that the descriptor which goes with it is the memory of the process itself,
/// which asks with `token`; of 0, that it is not, whatever the client wrote.
void mark_answer(nlohmann::json& request, std::uint64_t token);
/// Whom to answer: the client, or the process itself if `request` was so marked.
EventSink sink_for(UniqueFd client, const nlohmann::json& request);

/// Whether a letter asks for something, and is not the connection of a peer that has come to stay.
bool is_request(const Letter& letter);

/// Reads a letter for which is_request() is true. Of one that was passed on, the text comes by its
/// channel: blocks up to two seconds. Errors: as Channel::receive; whoever asks has been told.
Result<LetterRequest> open_request(Letter letter);

/// Tells whoever asks for something in `letter` that nothing comes of it; hangs up on a peer that
/// has come to stay. Looks at nothing that is asked. Blocks while a peer takes the answer.
void refuse_letter(Letter letter, int exit_code, const Error& reason);

/// Letters that came before their process ran here. Owned by one thread.
class EarlyLetters {
 public:
  EarlyLetters() = default;
  EarlyLetters(const EarlyLetters&) = delete;
  EarlyLetters& operator=(const EarlyLetters&) = delete;
  /// Refuses what was not taken: whoever asked is told that it did not come to that.
  ~EarlyLetters();

  void add(Letter letter) { letters_.push_back(std::move(letter)); }
  /// All of them, in the order in which they came; they are the caller's to answer.
  std::vector<Letter> take();

 private:
  std::vector<Letter> letters_;
};

}  // namespace migrate
