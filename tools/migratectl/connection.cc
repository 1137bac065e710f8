#include "tools/migratectl/connection.h"

#include <poll.h>
#include <sys/signalfd.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <csignal>

#include "base/file.h"
#include "transport/handoff.h"

namespace migrate {
namespace {

constexpr const char* kStartDaemon =
    "is migrated running on this host? start it as root: migrated --listen tcp://127.0.0.1:7070; "
    "or name its socket with --socket or MIGRATE_SOCKET";

Result<UniqueFd> take_signals() {
  sigset_t set;
  sigemptyset(&set);
  sigaddset(&set, SIGINT);
  sigaddset(&set, SIGTERM);
  sigprocmask(SIG_BLOCK, &set, nullptr);
  UniqueFd signals(signalfd(-1, &set, SFD_CLOEXEC));
  if (!signals.valid()) {
    return fail(system_error("signalfd"));
  }
  return signals;
}

}  // namespace

Result<DaemonConnection> DaemonConnection::open(const std::string& socket_path, Signals signals) {
  Result<UniqueFd> socket = connect_unix(socket_path, UnixKind::kStream);
  if (!socket) {
    Error error = socket.error();
    error.operation = "connect to the daemon";
    error.remedy = kStartDaemon;
    return fail(std::move(error));
  }
  (void)std::signal(SIGPIPE, SIG_IGN);
  return DaemonConnection(std::move(*socket),
                          signals == Signals::kOfEvents ? MIGRATE_TRY(take_signals()) : UniqueFd());
}

Result<void> DaemonConnection::send(const nlohmann::json& request) {
  const std::string line =
      request.dump(-1, ' ', false, nlohmann::json::error_handler_t::replace) + "\n";
  Result<void> written = write_all(socket_.get(), std::as_bytes(std::span(line)));
  if (!written && written.error().code == ErrorCode::kPeerLost) {
    return {};  // the daemon hung up early; next_event() gives what it said
  }
  return written;
}

Result<std::optional<nlohmann::json>> DaemonConnection::next_event() {
  std::array<char, 16384> buffer = {};
  for (;;) {
    const std::size_t end = pending_.find('\n');
    if (end != std::string::npos) {
      nlohmann::json event = nlohmann::json::parse(pending_.substr(0, end), nullptr, false);
      pending_.erase(0, end + 1);
      if (!event.is_object()) {
        return fail(make_error(ErrorCode::kCorrupt, "read the daemon's answer", {},
                               "do migrated and migratectl have the same version?"));
      }
      return std::optional<nlohmann::json>(std::move(event));
    }
    std::array<pollfd, 2> waits = {pollfd{socket_.get(), POLLIN, 0},
                                   pollfd{signals_.get(), POLLIN, 0}};
    if (poll(waits.data(), waits.size(), -1) < 0 && errno != EINTR) {
      return fail(system_error("wait for the daemon"));
    }
    if (waits[0].revents != 0) {
      const ssize_t count = read(socket_.get(), buffer.data(), buffer.size());
      if (count <= 0 && !(count < 0 && errno == EINTR)) {
        return fail(make_error(ErrorCode::kPeerLost, "read the daemon's answer",
                               "it ended without a result",
                               "see the daemon's log, and `migratectl ps`"));
      }
      pending_.append(buffer.data(), count > 0 ? static_cast<std::size_t>(count) : 0);
    } else if (waits[1].revents != 0) {
      signalfd_siginfo info = {};
      (void)!read(signals_.get(), &info, sizeof info);
      return std::optional<nlohmann::json>();
    }
  }
}

}  // namespace migrate
