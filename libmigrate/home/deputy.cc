#include "libmigrate/home/deputy.h"

#include <poll.h>
#include <signal.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstring>
#include <string>
#include <utility>

#include "base/file.h"
#include "base/log.h"
#include "libmigrate/relay/connection_end.h"
#include "libmigrate/requests/json_member.h"
#include "libmigrate/requests/request_json.h"
#include "libmigrate/state/global_name.h"

namespace migrate {
namespace {

constexpr int kOwesNothingMs = 1000;
constexpr int kShortestLookMs = 20;  // At what the page server confirms, which wakes nobody.
constexpr int kLongestLookMs = 320;
constexpr std::int64_t kRulesNotedEveryUs = 1'000'000;

// Sent by on_continued below, because the process goes on already.
bool is_own_continue(const std::array<std::byte, kSiginfoBytes>& bytes) {
  siginfo_t information{};
  std::memcpy(&information, bytes.data(), sizeof(information));
  return information.si_signo == SIGCONT && information.si_code == SI_USER &&
         information.si_pid == ::getpid();
}

// The process as it was when it left, which the deputy is still.
Firewall firewall_of(const HomeSurroundings& around, const HomeRecord& record) {
  const wire::HomeSession& text = record.text();
  Firewall firewall(
      around.links,
      {.user = text.user(),
       .program = read_link("/proc/" + std::to_string(record.pid()) + "/exe").value_or(""),
       .identity = to_string(text.name())});
  for (const wire::HomeSession::LinkRule& noted : text.link_rules()) {
    firewall.adopt(noted.place(), noted.count());
  }
  return firewall;
}

}  // namespace

std::array<std::byte, kSiginfoBytes> plain_siginfo(int signal) {
  siginfo_t information{};
  information.si_signo = signal;
  information.si_code = SI_USER;
  std::array<std::byte, kSiginfoBytes> bytes{};
  std::copy_n(reinterpret_cast<const std::byte*>(&information), kSiginfoBytes, bytes.begin());
  return bytes;
}

Deputy::Deputy(const HomeSurroundings& around, HomeRecord& record, Asking& asking,
               Departed departed, RealFiles files, std::unique_ptr<Channel> caller,
               bool is_taken_over)
    : around_(around),
      record_(record),
      asking_(asking),
      departed_(std::move(departed)),
      files_(std::move(files)),
      forwards_(
          record.command(),
          [this](const Whereabouts& where, const nlohmann::json& request) {
            return around_.send_request(where, request);
          },
          around.clock),
      pause_(kShortestLookMs, kLongestLookMs),
      firewall_(firewall_of(around, record)),
      reported_done_(is_taken_over && departed_.move->done()) {
  Whereabouts& where = record_.where();
  if (where.session.empty()) {
    where.host = asking_.destination.empty() ? departed_.move->destination() : asking_.destination;
    where.session = to_hex(departed_.move->session());
  }
  relay_ = std::make_unique<HomeRelay>(files_.take_streams(), record_.pid(), relay_handlers());
  relay_->keep(files_.take_datagrams());
  const wire::HomeRelayState& noted = record_.text().relay();
  relay_->adopt(noted);
  if (!firewall_.rules().empty()) {
    note_rules();
  }
  record_.enter(departed_.move->done() ? HomePhase::kIndependent : HomePhase::kServing,
                last_move());
  if (noted.exit_delivered()) {  // To a worker that died before it had ended the deputy.
    note_end(ProcessEnd::from(noted.exited()));
  }
  if (caller) {
    relay_->attach(std::move(caller));
  }
}

HomeRelay::Handlers Deputy::relay_handlers() {
  HomeRelay::Handlers handlers;
  handlers.on_exit = [this](const wire::RelayExited& exited) {
    note_end(ProcessEnd::from(exited));
    files_.set_positions(exited, record_.command());
  };
  handlers.on_change = [this] { note_relay(); };
  const auto send = [this](int signal) {
    if (departed_.deputy) {
      departed_.deputy->send(signal);
    }
  };
  handlers.on_stopped = [send](int) { send(SIGSTOP); };
  handlers.on_continued = [send] { send(SIGCONT); };
  handlers.on_located = [this](const std::string& host, const std::string& session) {
    record_.where() = {host, session};
    record_.write_row(last_move());
  };
  handlers.on_owed = [this] { record_.show_progress(last_move()); };
  handlers.on_stream_closed = [this](std::uint32_t id, wire::RelayDirection) { close_stream(id); };
  handlers.on_accept = [this](std::uint32_t listener,
                              std::uint32_t descriptor) -> Result<AcceptedSocket> {
    if (parked() == nullptr) {
      return fail(make_error(ErrorCode::kNotFound, "accept a connection", "no deputy"));
    }
    auto accepted =
        MIGRATE_TRY(parked()->accept(listener, descriptor, relay_->accepted_descriptors()));
    const auto local = SocketName::of(accepted.real.get());
    const auto peer = SocketName::of_peer(accepted.real.get());
    if (local && peer && !lets(LinkDirection::kIn, LinkProtocol::kTcp, *local, *peer)) {
      ConnectionEnd::reset(accepted.real.get());  // As one that is reset while it waits.
    }
    return accepted;
  };
  handlers.on_listen = [this](const wire::RelayListening& wanted) -> Result<AcceptedSocket> {
    if (parked() == nullptr) {
      return fail(make_error(ErrorCode::kRetry, "make a listener", "no deputy"));
    }
    return parked()->listen(wanted, relay_->accepted_descriptors());
  };
  handlers.on_call = [this](int type, const SocketName& local,
                            const SocketName* peer) -> Result<AcceptedSocket> {
    if (parked() == nullptr) {
      return fail(make_error(ErrorCode::kRetry, "make a socket", "no deputy"));
    }
    if (peer != nullptr && !lets(LinkDirection::kOut, LinkProtocol::kTcp, local, *peer)) {
      return fail(system_error_from(EACCES, "connect", peer->to_string()));
    }
    return parked()->make_socket(type, local, peer, relay_->accepted_descriptors());
  };
  handlers.on_datagram = [this](bool is_out, const SocketName& local, const SocketName& peer) {
    return lets(is_out ? LinkDirection::kOut : LinkDirection::kIn, LinkProtocol::kUdp, local, peer);
  };
  handlers.on_journal = [this]() -> Result<AcceptedSocket> {
    if (parked() == nullptr) {
      return fail(make_error(ErrorCode::kNotFound, "make a journal", "no deputy"));
    }
    return parked()->make_journal(relay_->accepted_descriptors());
  };
  handlers.on_accepted_closed = [this](std::uint32_t descriptor) { close_accepted(descriptor); };
  return handlers;
}

Result<void> Deputy::settle() {
  if (!departed_.deputy) {
    // Who has ended needs no signal.
    return end_ ? Result<void>() : relay_->send_signal(plain_siginfo(SIGKILL));
  }
  departed_.deputy->fetch_shared(files_);
  MIGRATE_TRY(departed_.deputy->settle(relay_->accepted_descriptors()));
  around_.stops.reach("source.settled");
  asking_.client.send({{"event", "phase"}, {"phase", "run"}});
  if (asking_.wait == MoveWait::kResumed) {
    asking_.client.finish(MIGRATE_DONE, departed_.move->result());
  }
  return {};
}

int Deputy::collect_poll_fds(std::vector<pollfd>& polled) {
  int timeout_ms = departed_.move->done() ? kOwesNothingMs : look_in_ms();
  polled.push_back({around_.child_signals, POLLIN, 0});
  polled.push_back({departed_.move->control_fd(), POLLIN, 0});
  for (const int wanted_ms :
       {forwards_.collect_poll_fds(polled), relay_->collect_poll_fds(polled)}) {
    timeout_ms = wanted_ms >= 0 ? std::min(timeout_ms, wanted_ms) : timeout_ms;
  }
  return end_ ? std::min(timeout_ms, kShortestLookMs) : timeout_ms;
}

// Of a process that asks for few pages, many are served at little cost.
int Deputy::look_in_ms() {
  const int idle_ms = pause_.next_ms(departed_.move->owed_pages());
  const bool is_waited_for = asking_.client.open() || departed_.move->control_fd() < 0;
  return is_waited_for ? kShortestLookMs : idle_ms;
}

int Deputy::collect_poll_fds_of_deputy(std::vector<pollfd>& polled) {
  if (departed_.deputy) {
    polled.push_back({departed_.deputy->signal_pipe(), POLLIN, 0});
  }
  return collect_poll_fds(polled);
}

void Deputy::watch() {
  if (const int signal = watch_deputy(around_, record_, departed_); signal != 0) {
    static_cast<void>(relay_->send_signal(plain_siginfo(signal)));
  }
  read_signals();
}

// Signals that the parked leader received.
void Deputy::read_signals() {
  if (!departed_.deputy) {
    return;
  }
  pollfd polled{departed_.deputy->signal_pipe(), POLLIN, 0};
  std::array<std::byte, kSiginfoBytes> siginfo;
  while (::poll(&polled, 1, 0) > 0 && (polled.revents & POLLIN) != 0 &&
         ::read(polled.fd, siginfo.data(), siginfo.size()) ==
             static_cast<ssize_t>(siginfo.size())) {
    if (is_own_continue(siginfo)) {
      continue;
    }
    if (auto sent = relay_->send_signal(siginfo); !sent) {
      log::warn("a signal was lost: {}", sent.error().message());
    }
  }
}

void Deputy::hear_move() {
  static_cast<void>(departed_.move->handle());  // watch_deputy() sees the end of what is parked.
}

void Deputy::follow_move() {
  Departure& move = *departed_.move;
  const bool was_done = move.done();
  hear_move();
  record_.show_waiting(move, around_.clock());
  if (move.done() && !reported_done_) {
    reported_done_ = true;
    if (parked() != nullptr) {
      if (auto freed = parked()->free_all(); !freed) {
        log::warn("{}", freed.error().message());
      }
    }
    record_.enter(HomePhase::kIndependent, last_move());
    record_.show_result(json_text(outcome()));
    if (asking_.wait == MoveWait::kDone) {
      asking_.client.finish(MIGRATE_DONE, move.result());
    }
  } else if (!was_done && around_.clock() >= next_progress_us_) {
    next_progress_us_ = around_.clock() + kProgressEveryUs;
    record_.show_progress(last_move());
    if (asking_.client.open()) {
      asking_.client.send(move.progress_event());
    }
  }
}

void Deputy::pump() {
  record_.refresh_row();
  pump_forwards();
  if (auto handled = relay_->handle(); !handled) {
    log::warn("link to {}: {}", record_.where().host, handled.error().message());
  }
  if (firewall_.applied() != rules_noted_ && around_.clock() >= next_rules_us_) {
    note_rules();
  }
}

void Deputy::pump_forwards() {
  for (EndClient& waiting : forwards_.pump(record_.where(), end_.has_value())) {
    if (end_) {
      tell_end(waiting.client, std::move(waiting.result), *end_);
    } else {
      end_clients_.push_back(std::move(waiting));
    }
  }
}

void Deputy::pass_on(nlohmann::json request, EventSink client) {
  const bool is_move = command_of(request).value_or("") == MoveRequest::kWord;
  forwards_.pass_on(std::move(request), std::move(client), record_.where(),
                    is_move ? MIGRATE_FAILED : MIGRATE_ERROR);
}

// The deputy is one into whom nobody may look, and to give it up is to kill it. Where nothing is,
// nobody but its user, whom the daemon has let through, and root can ask.
Result<void> Deputy::may_resolve(const Asker& asker) const {
  return departed_.deputy ? departed_.deputy->let_signal(asker) : Result<void>();
}

bool Deputy::lets_give_up(EventSink client, Resolution resolution) {
  const std::string who = "process " + record_.command();
  if (resolution != Resolution::kGiveUp) {
    client.finish_failed(MIGRATE_REFUSED, make_error(ErrorCode::kRefused, "resume", who,
                                                     "it is known to have run elsewhere"));
    return false;
  }
  const std::string& host = record_.where().host;
  if (place_answers()) {
    const pid_t kept = departed_.keeper ? departed_.keeper->process() : record_.pid();
    client.finish_failed(MIGRATE_REFUSED,
                         make_error(ErrorCode::kRefused, "give up", who,
                                    "it is at " + host + ", which answers; to end it, kill pid " +
                                        std::to_string(kept)));
    return false;
  }
  log::warn("{}: an operator gives it up, as lost with {}", who, host);
  client.finish(MIGRATE_DONE,
                {{"process", to_hex(record_.process())}, {"resolved", to_string(resolution)}});
  return true;
}

// Its worker may answer where its daemon does not. Otherwise asked anew.
bool Deputy::place_answers() const {
  constexpr std::uint32_t kHeardLatelyMs = 6000;  // Its kernel is asked when silent for five.
  return (relay_->connected() && relay_->silent_ms() < kHeardLatelyMs) ||
         around_.connect(record_.where()).has_value();
}

bool Deputy::lets(LinkDirection direction, LinkProtocol protocol, const SocketName& local,
                  const SocketName& peer) {
  return firewall_.lets(
      {.direction = direction, .protocol = protocol, .local = local, .peer = peer});
}

// What `show` tells of them, and whoever takes over goes on counting from.
void Deputy::note_rules() {
  auto* const noted = record_.text().mutable_link_rules();
  noted->Clear();
  for (const Firewall::Counted& each : firewall_.rules()) {
    wire::HomeSession::LinkRule& rule = *noted->Add();
    rule.set_place(each.rule.place);
    rule.set_text(to_string(each.rule));
    rule.set_count(each.count);
  }
  rules_noted_ = firewall_.applied();
  next_rules_us_ = around_.clock() + kRulesNotedEveryUs;
  record_.keep();
}

void Deputy::note_relay() {
  *record_.text().mutable_relay() = relay_->note();
  record_.keep();
}

// The process closed one of its ends: whoever is at the other end of the real one shall see it.
void Deputy::close_stream(std::uint32_t id) {
  if (parked() == nullptr) {
    return;
  }
  if (auto done = parked()->close_stream(id); !done) {
    log::warn("{}", done.error().message());
  }
}

void Deputy::close_accepted(std::uint32_t descriptor) {
  if (parked() == nullptr) {
    return;
  }
  if (auto done = parked()->close_accepted(descriptor); !done) {
    log::warn("{}", done.error().message());
  }
}

// The keeper, once there is one: the deputy is about to end then.
ParkedHere* Deputy::parked() const {
  if (departed_.keeper) {
    return departed_.keeper.get();
  }
  return departed_.deputy.get();
}

LastMove Deputy::last_move() const {
  LastMove last{.is_owed = !departed_.move->done(), .owed_pages = departed_.move->owed_pages()};
  nlohmann::json result = outcome();
  if (const auto elsewhere = relay_->owed(); elsewhere && !last.is_owed) {
    last.is_owed = true;
    last.owed_pages = elsewhere->pages;
    last.owed_by = elsewhere->by;
    result["expected_independence_us"] = nullptr;  // Which only that host knows.
  }
  last.result = json_text(result);
  return last;
}

// Of the last move, and of the end.
nlohmann::json Deputy::outcome() const {
  nlohmann::json result = departed_.move->result();
  if (end_) {
    add_end(result, *end_);
  }
  return result;
}

}  // namespace migrate
