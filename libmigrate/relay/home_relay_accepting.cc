// What the home side does for listeners of the process, its calls, and the streams that come of
// them.
#include <algorithm>
#include <cerrno>
#include <set>
#include <string>
#include <utility>

#include "libmigrate/links/tcp_socket.h"
#include "libmigrate/relay/home_relay.h"

namespace migrate {

// All that the process had when it left home are there, and of the others those that both know.
Result<void> HomeRelay::check_streams(const wire::RelayResume& resume) const {
  const auto wrong = [](std::uint32_t id) {
    return fail(
        make_error(ErrorCode::kCorrupt, "resume a stream", "relay stream " + std::to_string(id)));
  };
  if (!acceptor_.may_resume_at(resume.next_accepted())) {
    return wrong(resume.next_accepted());
  }
  std::set<std::uint32_t> seen;
  for (const wire::RelayResume::Stream& stream : resume.streams()) {
    const auto found = streams_.find(stream.id());
    const bool is_known = found != streams_.end() || acceptor_.had(stream.id());
    if (!is_known || !seen.insert(stream.id()).second) {
      return wrong(stream.id());
    }
    if (found != streams_.end()) {
      MIGRATE_TRY(found->second.check_resume(stream));
    }
  }
  for (const auto& [id, stream] : streams_) {
    if (!seen.contains(id) && !acceptor_.has(id)) {
      return wrong(id);
    }
  }
  return {};
}

void HomeRelay::resume_streams(const wire::RelayResume& resume, wire::RelayResumed& resumed) {
  std::set<std::uint32_t> named;
  for (const wire::RelayResume::Stream& stream : resume.streams()) {
    wire::RelayResumed::Stream& answer = *resumed.add_streams();
    named.insert(stream.id());
    const auto ours = streams_.find(stream.id());
    if (ours != streams_.end() && !retired_.contains(stream.id())) {
      ours->second.accept_resume(stream);
      ours->second.describe(answer);
      acceptor_.set_told(stream.id(), true);
      if (stream.taken()) {
        acceptor_.set_taken(stream.id());
      }
    } else {
      answer.set_id(stream.id());
      answer.set_retired(true);
    }
  }
  for (auto& [id, stream] : streams_) {
    if (!named.contains(id) && acceptor_.is_called(id)) {
      stream.end(true);  // Who has called does not wait for it any more, or will call again.
      retire(id);
    } else if (!named.contains(id) && id < resume.next_accepted()) {
      retire(id);
    } else if (!named.contains(id)) {
      stream.accept_resume(wire::RelayResume::Stream());  // Nothing of it has come there.
      acceptor_.set_told(id, false);
    }
  }
  for (const std::uint32_t listener : acceptor_.listeners()) {
    if (std::ranges::find(resume.listeners(), listener) == resume.listeners().end()) {
      close_listener(listener);
    }
  }
}

void HomeRelay::accept_waiting() {
  while (may_accept()) {
    auto accepted = acceptor_.accept(handlers_.on_accept, streams_.size());
    if (!accepted) {
      return;
    }
    const std::uint32_t id = accepted->stream;
    if (!accepted->real.valid()) {
      retired_.insert(id);
    }
    streams_.try_emplace(id, id, wire::RELAY_BOTH, std::move(accepted->real), std::nullopt,
                         ConnectionEnd::Start{});
    if (retired_.contains(id)) {
      streams_.at(id).close();
    }
  }
}

void HomeRelay::pump_calls() {
  if (!may_accept()) {
    return;
  }
  for (HomeCaller::Outcome& outcome : outgoing_.pump(handlers_.on_call, active_->link)) {
    int error = outcome.error;
    if (error == 0) {
      const std::uint32_t id =
          acceptor_.add_called(outcome.number, outcome.socket, streams_.size());
      const auto counts = count_bytes(outcome.socket.real.get());
      if (id != 0 && counts) {
        streams_.try_emplace(id, id, wire::RELAY_BOTH, std::move(outcome.socket.real), std::nullopt,
                             ConnectionEnd::Start{counts->taken, counts->given});
        continue;
      }
      ConnectionEnd::reset(outcome.socket.real.get());
      acceptor_.forget(id);
      handlers_.on_accepted_closed(outcome.socket.descriptor);
      error = EAGAIN;
    }
    wire::RelayMessage message;
    message.mutable_call_failed()->set_number(outcome.number);
    message.mutable_call_failed()->set_error(static_cast<std::uint32_t>(error));
    active_->link.send(message);
  }
}

void HomeRelay::close_left() {
  for (const std::uint32_t descriptor : outgoing_.take_left()) {
    handlers_.on_accepted_closed(descriptor);
  }
}

std::set<std::uint32_t> HomeRelay::accepted_descriptors() const {
  std::set<std::uint32_t> all = acceptor_.descriptors();
  outgoing_.add_descriptors(all);
  for (const auto& [id, stream] : streams_) {
    if (stream.journal_descriptor() != 0) {
      all.insert(stream.journal_descriptor());
    }
  }
  return all;
}

// Each is noted before anything is written by it.
void HomeRelay::make_journals() {
  bool has_made = false;
  for (auto& [id, stream] : streams_) {
    if (!stream.needs_journal()) {
      continue;
    }
    auto made = handlers_.on_journal();
    const std::uint32_t descriptor = made ? made->descriptor : 0;
    if (stream.begin_journal(std::move(made))) {
      has_made = true;
    } else if (descriptor != 0) {
      handlers_.on_accepted_closed(descriptor);
    }
  }
  if (has_made) {
    handlers_.on_change();
  }
}

Result<AcceptedSocket> HomeRelay::no_journal() {
  return fail(make_error(ErrorCode::kRetry, "make a journal for the process", "no deputy"));
}

Result<AcceptedSocket> HomeRelay::no_deputy(int /*type*/, const SocketName& /*local*/,
                                            const SocketName* /*peer*/) {
  return fail(make_error(ErrorCode::kRetry, "make a socket for the process", "no deputy"));
}

Result<AcceptedSocket> HomeRelay::no_listener(const wire::RelayListening& /*wanted*/) {
  return fail(make_error(ErrorCode::kRetry, "make a listener for the process", "no deputy"));
}

void HomeRelay::tell_accepted() {
  for (const auto& [id, stream] : streams_) {
    const wire::RelayAccepted* const news = retired_.contains(id) ? nullptr : acceptor_.news(id);
    if (news != nullptr) {
      wire::RelayMessage message;
      *message.mutable_accepted() = *news;
      active_->link.send(message);
    }
  }
}

// Its place may say so before it is true, of a connection of its own process.
void HomeRelay::retire(std::uint32_t id) {
  const auto stream = streams_.find(id);
  if (stream != streams_.end() && acceptor_.has(id)) {
    stream->second.close();
    retired_.insert(id);
  }
}

void HomeRelay::close_listener(std::uint32_t id) {
  const auto descriptor = acceptor_.close(id);
  if (descriptor && *descriptor != 0) {
    handlers_.on_accepted_closed(*descriptor);
  } else if (descriptor && handlers_.on_stream_closed) {
    handlers_.on_stream_closed(id, wire::RELAY_IN);
  }
}

// When the deputy has closed them.
void HomeRelay::forget_retired() {
  for (const std::uint32_t id : std::exchange(retired_, {})) {
    streams_.erase(id);
    acceptor_.forget(id);
    told_closed_.erase(id);
  }
}

}  // namespace migrate
