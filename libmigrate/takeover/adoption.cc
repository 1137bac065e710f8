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
#include "libmigrate/guest/guest.h"
#include "libmigrate/home/home_worker.h"
#include "libmigrate/move/control_channel.h"
#include "libmigrate/proto/home.pb.h"
#include "libmigrate/proto/session.pb.h"
#include "libmigrate/state/registry.h"
#include "transport/handoff.h"
#include "transport/proof.h"

namespace migrate {
namespace {

constexpr int kAnswerTimeoutMs = 2000;
constexpr std::string_view kHomePrefix = "home-";
constexpr std::string_view kCellPrefix = "cell-";
static_assert(kHomePrefix.size() == kCellPrefix.size());

// What a dead worker's file says of the process; nothing while that is not certain yet, because a
// new worker is about to take over.
std::optional<wire::Verdict> verdict_of(const WorkerContext& context, SessionFile& file,
                                        const std::string& name) {
  wire::Verdict verdict;
  const SessionMark& mark = file.mark();
  if (!file.worker_gone()) {
    return std::nullopt;
  }
  file.await_start();
  if (file.never_ran()) {
    verdict.set_fate(wire::Verdict::NEVER_RAN);
    verdict.set_reason("its worker at the destination died before it ran there");
    return verdict;
  }
  const std::string socket =
      SessionFile::directory(context.state_directory) + "/" + name + ".socket";
  if (mark.closed == 0 && connect_unix(socket)) {
    return std::nullopt;  // The cell lives.
  }
  if (mark.closed != 0 && mark.ended == 0) {
    verdict.set_fate(wire::Verdict::RUNS);  // It went on from here.
    verdict.mutable_progress()->set_done(true);
    return verdict;
  }
  verdict.set_fate(wire::Verdict::ENDED);
  verdict.set_wait_status(mark.ended != 0 ? mark.wait_status.load() : SIGKILL);
  verdict.set_reason(mark.ended != 0 ? "it has ended" : "its cell was killed");
  return verdict;
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
    run_adopted_resident(context, std::move(*file), *id);
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
    if (file && file->mark().closed != 0) {
      closed_now.insert(name);
    } else if (file && (name.starts_with(kHomePrefix) || name.starts_with(kCellPrefix))) {
      orphans.push_back(name);
    }
  }
  closed = std::move(closed_now);
  return orphans;
}

void answer_resident(const WorkerContext& context, UniqueFd connection, const Preamble& preamble) {
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
  verdict.set_fate(wire::Verdict::NEVER_RAN);
  verdict.set_reason("the destination knows nothing of it: it did not run there");
  if (file) {
    const auto certain = verdict_of(context, *file, name);
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
  if (file && file->never_ran()) {
    clear_session(context, *file, preamble.session);
  } else if (file && knows) {
    file->remove();
  }
}

}  // namespace migrate
