#include "libmigrate/takeover/adoption.h"

#include <signal.h>
#include <unistd.h>

#include <algorithm>
#include <optional>
#include <string_view>

#include "base/file.h"
#include "base/log.h"
#include "libmigrate/cell/cell.h"
#include "libmigrate/guest/clear_session.h"
#include "libmigrate/guest/guest_worker.h"
#include "libmigrate/home/home_worker.h"
#include "libmigrate/move/control_channel.h"
#include "libmigrate/proto/home.pb.h"
#include "libmigrate/proto/session.pb.h"
#include "libmigrate/state/phase.h"
#include "libmigrate/state/registry.h"
#include "transport/handoff.h"
#include "transport/proof.h"

namespace migrate {
namespace {

constexpr int kAnswerTimeoutMs = 2000;
static_assert(kHomePrefix.size() == kCellPrefix.size());

// What the file says. The init takes whoever connects for a new worker: it is only asked whether it
// is there where that matters.
SessionVerdict verdict_on(const WorkerContext& context, const SessionFile& file,
                          const std::string& name) {
  if (!file.worker_gone()) {
    return verdict(file.mark().phase.guest(), true, true);
  }
  file.await_start();
  const SessionVerdict with_cell = verdict(file.mark().phase.guest(), false, true);
  if (with_cell != SessionVerdict::kWait) {
    return with_cell;
  }
  const std::string socket =
      SessionFile::directory(context.state_directory) + "/" + name + ".socket";
  const bool is_cell_there = connect_unix(socket).has_value();
  return verdict(file.mark().phase.guest(), false, is_cell_there);
}

// What a dead worker's file says of the process; nothing while that is not certain yet, because a
// new worker is about to take over.
std::optional<wire::Verdict> answer_of(const SessionFile& file, SessionVerdict what) {
  wire::Verdict answer;
  switch (what) {
    case SessionVerdict::kWait:
      return std::nullopt;
    case SessionVerdict::kNeverRan:
      answer.set_fate(wire::Verdict::NEVER_RAN);
      answer.set_reason("its worker at the destination died before it ran there");
      break;
    case SessionVerdict::kRuns:  // It went on from here.
      answer.set_fate(wire::Verdict::RUNS);
      answer.mutable_progress()->set_done(true);
      break;
    case SessionVerdict::kEnded:
      answer.set_fate(wire::Verdict::ENDED);
      answer.set_wait_status(file.mark().phase.wait_status());
      answer.set_reason("it has ended");
      break;
    case SessionVerdict::kKilled:
      answer.set_fate(wire::Verdict::ENDED);
      answer.set_wait_status(SIGKILL);
      answer.set_reason("its cell was killed");
      break;
  }
  return answer;
}

std::string token_of(const SessionFile& file) {
  wire::CellSession noted;
  const auto text = file.load();
  return text && noted.ParseFromString(*text) ? noted.token() : std::string();
}

// Whoever knows the token, where there is one to know: that there is nothing may be told to any
// host that has proved what it is. Null if it is not let in.
std::unique_ptr<Channel> let_in(const WorkerContext& context, UniqueFd connection,
                                const Preamble& preamble, const std::string& token) {
  auto peer = context.trust.accept(std::move(connection), preamble, kAnswerTimeoutMs);
  if (!peer) {
    log::warn("{}", peer.error().message());
    return nullptr;
  }
  // Without a token no answer is right; but the peer gives one.
  const std::string secret =
      token.empty() ? to_hex(random_session_id().value_or(SessionId{})) : token;
  const auto proved = ask_proof(*peer->channel, secret, preamble, kAnswerTimeoutMs);
  if (!proved && (!token.empty() || proved.error().code != ErrorCode::kRefused)) {
    log::warn("{}: {}", peer->identity.to_string(), proved.error().message());
    return nullptr;
  }
  return std::move(peer->channel);
}

}  // namespace

void run_adopted_worker(const WorkerContext& context, const std::string& name) {
  auto file = SessionFile::open(context.state_directory, name);
  const auto id = session_id_from_hex(name.substr(kHomePrefix.size()));
  if (!file || !id) {
    return;
  }
  if (name.starts_with(kHomePrefix)) {
    run_adopted_home(context, std::move(*file), *id);
  } else {
    run_adopted_guest(context, std::move(*file), *id);
  }
}

std::vector<std::string> orphaned_sessions(const std::string& state_directory,
                                           std::set<std::string>& closed) {
  std::vector<std::string> orphans;
  std::set<std::string> closed_now;
  for (const std::string& name : SessionFile::list(state_directory, closed)) {
    if (closed.contains(name)) {
      closed_now.insert(name);
      continue;
    }
    const auto file = SessionFile::open(state_directory, name);
    const bool of_cell = name.starts_with(kCellPrefix);
    if (file && of_cell && is_closed(file->mark().phase.guest())) {
      closed_now.insert(name);
    } else if (file && (of_cell || name.starts_with(kHomePrefix))) {
      orphans.push_back(name);
    }
  }
  closed = std::move(closed_now);
  return orphans;
}

void answer_guest(const WorkerContext& context, UniqueFd connection, const Preamble& preamble) {
  const std::string process = to_hex(preamble.session);
  auto registry = Registry::open(context.state_directory);
  auto records = registry ? registry->find_process(process)
                          : Result<std::vector<ProcessRecord>>(fail(registry.error()));
  const bool ended =
      records && std::any_of(records->begin(), records->end(), [](const ProcessRecord& record) {
        return record.role == ProcessRole::kHome && record.state == ProcessState::kExited;
      });
  auto channel = let_in(context, std::move(connection), preamble, {});
  if (!ended || !channel) {
    return;
  }
  wire::RelayMessage message;
  message.mutable_exited_ack();
  const std::string bytes = message.SerializeAsString();
  if (channel->send_one(std::as_bytes(std::span(bytes)))) {
    // It has begun to speak: no reset now.
    static_cast<void>(channel->receive(0, kAnswerTimeoutMs));
    static_cast<void>(channel->receive(0, kAnswerTimeoutMs));
  }
}

void answer_resume(const WorkerContext& context, UniqueFd connection, const Preamble& preamble) {
  const std::string name = cell_session_name(to_hex(preamble.session));
  auto file = SessionFile::open(context.state_directory, name);
  if (!file && file.error().code != ErrorCode::kNotFound) {
    return;
  }
  if (!file && SessionFile::is_damaged(context.state_directory, name)) {
    log::error("session {}: its source asks what became of it, and its file was damaged",
               to_hex(preamble.session));
    return;
  }
  wire::Verdict verdict;
  SessionVerdict noted = SessionVerdict::kNeverRan;
  verdict.set_fate(wire::Verdict::NEVER_RAN);
  verdict.set_reason("the destination knows nothing of it: it did not run there");
  if (file) {
    noted = verdict_on(context, *file, name);
    const auto certain = answer_of(*file, noted);
    if (!certain) {
      return;
    }
    verdict = *certain;
  }
  const auto incarnation = SessionFile::incarnation(context.state_directory);
  if (!incarnation) {
    log::error("session {}: {}", to_hex(preamble.session), incarnation.error().message());
    return;
  }
  verdict.set_incarnation(*incarnation);
  auto channel = let_in(context, std::move(connection), preamble, file ? token_of(*file) : "");
  if (!channel) {
    return;
  }
  ControlChannel control(std::move(channel), "the source of session " + to_hex(preamble.session));
  wire::ControlMessage message;
  *message.mutable_verdict() = verdict;
  if (!control.send(message)) {
    return;
  }
  // The source says that it knows, or just hangs up.
  const auto answer = control.receive(0, kAnswerTimeoutMs);
  const bool knows = answer && answer->has_goodbye();
  if (file && noted == SessionVerdict::kNeverRan) {
    clear_session(context, *file, preamble.session);
  } else if (file && knows) {
    file->remove();
  }
}

}  // namespace migrate
