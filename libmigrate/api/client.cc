#include <fcntl.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <cstdlib>
#include <cstring>
#include <functional>
#include <string>
#include <string_view>
#include <system_error>

#include "libmigrate/api/json_text.h"
#include "libmigrate/include/libmigrate/migrate.h"
#include "libmigrate/requests/move_words.h"

namespace migrate::client {
namespace {

constexpr std::size_t kMaxLineBytes = 4U << 20U;

thread_local std::string last_error;

int fail_with(int status, std::string message) {
  last_error = std::move(message);
  return status;
}

int fail_errno(const std::string& what, const std::string& remedy) {
  const int code = errno;
  return fail_with(MIGRATE_ERROR,
                   what + ": " + std::generic_category().message(code) + "; " + remedy);
}

/// Closes a descriptor at the end of its scope. (base/ is not used here: no dependencies.)
class Descriptor {
 public:
  explicit Descriptor(int number = -1) : number_(number) {}
  Descriptor(const Descriptor&) = delete;
  Descriptor& operator=(const Descriptor&) = delete;
  ~Descriptor() { close(); }
  int get() const { return number_; }
  void set(int number) {
    close();
    number_ = number;
  }
  void close() {
    if (number_ >= 0) {
      ::close(number_);
      number_ = -1;
    }
  }

 private:
  int number_;
};

const char* or_default(const char* text, const char* fallback) {
  return text != nullptr && *text != '\0' ? text : fallback;
}

std::string socket_path(const migrate_options& options) {
  return or_default(options.socket, or_default(getenv("MIGRATE_SOCKET"), MIGRATE_DEFAULT_SOCKET));
}

int connect_to_daemon(const std::string& path, Descriptor& connection) {
  sockaddr_un address = {};
  address.sun_family = AF_UNIX;
  if (path.size() >= sizeof address.sun_path) {
    return fail_with(MIGRATE_USAGE, "the socket path " + path + " is too long");
  }
  std::memcpy(address.sun_path, path.c_str(), path.size() + 1);
  connection.set(socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0));
  // The socket interface takes every address family through sockaddr.
  const auto* generic = reinterpret_cast<const sockaddr*>(&address);
  if (connection.get() < 0 || connect(connection.get(), generic, sizeof address) != 0) {
    return fail_errno("connect to the daemon at " + path,
                      "is migrated running on this host? (migrated --listen tcp://ADDR:PORT)");
  }
  return MIGRATE_DONE;
}

/// Sends one line, with `descriptor` attached to it unless it is negative.
int send_line(int connection, const std::string& line, int descriptor) {
  std::size_t sent = 0;
  while (sent < line.size()) {
    iovec part = {const_cast<char*>(line.data()) + sent, line.size() - sent};
    msghdr message = {};
    message.msg_iov = &part;
    message.msg_iovlen = 1;
    alignas(cmsghdr) std::array<char, CMSG_SPACE(sizeof(int))> control = {};
    if (descriptor >= 0 && sent == 0) {
      message.msg_control = control.data();
      message.msg_controllen = control.size();
      cmsghdr* header = CMSG_FIRSTHDR(&message);
      header->cmsg_level = SOL_SOCKET;
      header->cmsg_type = SCM_RIGHTS;
      header->cmsg_len = CMSG_LEN(sizeof(int));
      std::memcpy(CMSG_DATA(header), &descriptor, sizeof descriptor);
    }
    const ssize_t count = sendmsg(connection, &message, MSG_NOSIGNAL);
    if (count < 0 && errno == EPIPE) {
      return MIGRATE_DONE;  // the daemon hung up early; what it said is still to be read
    }
    if (count < 0 && errno != EINTR) {
      return fail_errno("send the request to the daemon", "see the daemon's log");
    }
    sent += count > 0 ? static_cast<std::size_t>(count) : 0;
  }
  return MIGRATE_DONE;
}

/// Reads lines until the result line, which it puts into `result`.
int read_result(int descriptor, std::string& result, std::string& refusals) {
  std::string pending;
  std::array<char, 4096> buffer = {};
  for (;;) {
    const std::size_t end = pending.find('\n');
    if (end != std::string::npos) {
      result = pending.substr(0, end);
      pending.erase(0, end + 1);
      const ObjectScanner event(result);
      const std::string kind = event.string("event").value_or("");
      if (kind == "result") {
        return MIGRATE_DONE;
      }
      if (kind == "refused") {
        refusals = std::string(event.raw("refusals").value_or("[]"));
      }
      continue;
    }
    const ssize_t count = read(descriptor, buffer.data(), buffer.size());
    if (count < 0 && errno == EINTR) {
      continue;
    }
    if (count <= 0 || pending.size() > kMaxLineBytes) {
      return fail_with(MIGRATE_ERROR,
                       "wait for the daemon's answer: it ended without a result; see the daemon's "
                       "log and `migratectl ps`");
    }
    pending.append(buffer.data(), static_cast<std::size_t>(count));
  }
}

/// The text of the result's error, which is a string or an object with a message.
std::string error_text(const ObjectScanner& result) {
  if (const auto text = result.string("error")) {
    return *text;
  }
  if (const auto object = result.raw("error")) {
    return ObjectScanner(*object).string("message").value_or(std::string(*object));
  }
  return {};
}

/// Sends the request, waits for its end and leaves the result line in `result`.
/// `moves_caller`: the caller itself is to move, so that no socket may stay open meanwhile. The
/// answer then comes through a pipe, which the deputy relays once the caller is elsewhere.
int request(const migrate_options& options, const std::string& line, bool moves_caller,
            std::string& result, std::string& refusals) {
  last_error.clear();
  Descriptor connection;
  Descriptor answer;
  if (const int status = connect_to_daemon(socket_path(options), connection)) {
    return status;
  }
  if (moves_caller) {
    std::array<int, 2> ends = {};
    if (pipe2(ends.data(), O_CLOEXEC) != 0) {
      return fail_errno("make a pipe for the answer", "close some descriptors");
    }
    answer.set(ends[0]);
    Descriptor writer(ends[1]);
    if (const int status = send_line(connection.get(), line, writer.get())) {
      return status;
    }
    writer.close();  // before the connection, whose end tells the daemon that it may begin
    connection.close();
  } else if (const int status = send_line(connection.get(), line, -1)) {
    return status;
  }
  const int source = moves_caller ? answer.get() : connection.get();
  if (const int status = read_result(source, result, refusals)) {
    return status;
  }
  const ObjectScanner scanner(result);
  const int status = static_cast<int>(scanner.integer("exit").value_or(MIGRATE_ERROR));
  if (status != MIGRATE_DONE) {
    last_error = error_text(scanner);
    if (last_error.empty()) {
      last_error = migrate_strerror(status);
    }
  }
  return status;
}

void give_report(const std::string& result, const std::string& refusals, char** report) {
  if (report == nullptr || result.empty()) {
    return;
  }
  std::string text = ObjectScanner(result).without("event", "exit");
  if (!refusals.empty() && !ObjectScanner(text).raw("refusals")) {
    text.pop_back();
    text += (text.size() > 1 ? "," : "") + std::string("\"refusals\":") + refusals + "}";
  }
  *report = strdup(text.c_str());
}

/// Runs `body` and turns what the C++ library may throw (no memory) into a status: callers are C.
int guarded(char** report, const std::function<int()>& body) noexcept {
  if (report != nullptr) {
    *report = nullptr;
  }
  try {
    return body();
  } catch (...) {
    return MIGRATE_ERROR;
  }
}

std::string target_members(pid_t pid, const char* destination) {
  return "\"pid\":" + std::to_string(pid) +
         ",\"destination\":" + quote(or_default(destination, ""));
}

}  // namespace
}  // namespace migrate::client

using namespace migrate::client;  // the functions below are C's

extern "C" int migrate_check(pid_t pid, const char* destination,
                             const struct migrate_options* options, char** report) {
  return guarded(report, [&]() -> int {
    const migrate_options chosen = options != nullptr ? *options : migrate_options{};
    if (pid < 0) {
      return fail_with(MIGRATE_USAGE, "a pid cannot be negative");
    }
    const bool is_caller = pid == 0 || pid == getpid();
    const std::string line =
        "{\"command\":\"check\"," + target_members(is_caller ? 0 : pid, destination) + "}\n";
    std::string result;
    std::string refusals;
    const int status = request(chosen, line, is_caller, result, refusals);
    give_report(result, refusals, report);
    return status;
  });
}

extern "C" int migrate_move(pid_t pid, const char* destination,
                            const struct migrate_options* options, char** report) {
  return guarded(report, [&]() -> int {
    const migrate_options chosen = options != nullptr ? *options : migrate_options{};
    const std::string mode = or_default(chosen.mode, "lazy");
    const std::string wait = or_default(chosen.wait, "resumed");
    const bool is_caller = pid == 0 || pid == getpid();
    if (pid < 0 || destination == nullptr || *destination == '\0') {
      return fail_with(MIGRATE_USAGE, "a move needs a pid and a destination");
    }
    if (!migrate::find_mode(mode)) {
      return fail_with(MIGRATE_USAGE, "mode \"" + mode + "\" is none of " + migrate::list_modes());
    }
    if (!migrate::find_word(wait, migrate::kMoveWaits) || (is_caller && wait != "resumed")) {
      return fail_with(MIGRATE_USAGE, "wait \"" + wait + "\" is none of " +
                                          migrate::list_words(migrate::kMoveWaits) +
                                          " (resumed only, when the caller moves itself)");
    }
    const std::string line = "{\"command\":\"move\"," +
                             target_members(is_caller ? 0 : pid, destination) +
                             ",\"mode\":" + quote(mode) + ",\"wait\":" + quote(wait) +
                             ",\"retry_seconds\":" + std::to_string(chosen.retry_seconds) + "}\n";
    std::string result;
    std::string refusals;
    const int status = request(chosen, line, is_caller, result, refusals);
    give_report(result, refusals, report);
    return status;
  });
}

extern "C" int migrate_wait(const char* process, const char* condition,
                            const struct migrate_options* options, int* exit_status) {
  return guarded(nullptr, [&]() -> int {
    const migrate_options chosen = options != nullptr ? *options : migrate_options{};
    const std::string what = or_default(condition, "done");
    if (process == nullptr || *process == '\0' || !migrate::find_word(what, migrate::kWaits)) {
      return fail_with(MIGRATE_USAGE, "wait needs a process and \"done\" or \"exit\"");
    }
    const std::string line =
        "{\"command\":\"wait\",\"process\":" + quote(process) + ",\"for\":" + quote(what) + "}\n";
    std::string result;
    std::string refusals;
    const int status = request(chosen, line, false, result, refusals);
    const auto ended = ObjectScanner(result).integer("exit_status");
    if (ended && exit_status != nullptr) {
      *exit_status = static_cast<int>(*ended);
    }
    return status;
  });
}

extern "C" void migrate_free(char* report) {
  free(report);
}

extern "C" const char* migrate_strerror(int status) {
  switch (status) {
    case MIGRATE_DONE:
      return "done";
    case MIGRATE_USAGE:
      return "wrong use: an argument cannot be right";
    case MIGRATE_REFUSED:
      return "refused: the process cannot be moved faithfully; nothing was stopped";
    case MIGRATE_FAILED:
      return "failed: the process runs on where it was";
    case MIGRATE_LOST:
      return "failed after the process had been handed over";
    default:
      return "error: the daemon could not be asked or could not do it";
  }
}

extern "C" const char* migrate_last_error(void) {
  return last_error.c_str();
}
