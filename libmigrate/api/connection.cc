#include "libmigrate/api/connection.h"

#include <poll.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstddef>
#include <cstdlib>
#include <cstring>
#include <system_error>
#include <utility>

#include "libmigrate/api/descriptor.h"
#include "libmigrate/api/json_text.h"

namespace migrate::client {
namespace {

constexpr std::size_t kMaxLineBytes = std::size_t{4} << 20U;
constexpr double kLongestSeconds = 1e9;
/// Of the first version that had a size.
constexpr std::size_t kLeastOptionsBytes = offsetof(migrate_options, progress_data) + sizeof(void*);

Answer failed_call(const std::string& what, const std::string& remedy) {
  const int code = errno;
  return answer_of(MIGRATE_ERROR,
                   what + ": " + std::generic_category().message(code) + "; " + remedy);
}

std::string socket_path(const migrate_options& options) {
  return or_default(options.socket,
                    or_default(::secure_getenv("MIGRATE_SOCKET"), MIGRATE_DEFAULT_SOCKET));
}

std::optional<Answer> connect_to(const std::string& path, int socket) {
  sockaddr_un address = {};
  address.sun_family = AF_UNIX;
  if (path.size() >= sizeof address.sun_path) {
    return answer_of(MIGRATE_USAGE, "the socket path " + path + " is too long");
  }
  std::memcpy(address.sun_path, path.c_str(), path.size() + 1);
  // The socket interface takes every address family through sockaddr.
  const auto* generic = reinterpret_cast<const sockaddr*>(&address);
  if (socket < 0 || ::connect(socket, generic, sizeof address) != 0) {
    return failed_call("connect to the daemon at " + path,
                       "is migrated running on this host? (migrated --listen tcp://ADDR:PORT)");
  }
  return std::nullopt;
}

std::optional<Answer> send_all(int socket, std::string_view text) {
  while (!text.empty()) {
    const ssize_t count = ::send(socket, text.data(), text.size(), MSG_NOSIGNAL);
    if (count < 0 && errno == EPIPE) {
      return std::nullopt;  // the daemon hung up early; what it said is still to be read
    }
    if (count < 0 && errno != EINTR) {
      return failed_call("send the request to the daemon", "see the daemon's log");
    }
    text.remove_prefix(count > 0 ? static_cast<std::size_t>(count) : 0);
  }
  return std::nullopt;
}

/// Lines that come over a connection.
class Lines {
 public:
  explicit Lines(int socket) : socket_(socket) {}

  /// The next line, or why none comes.
  std::optional<Answer> next(const TimeLimit& limit, std::string& line) {
    for (;;) {
      const std::size_t end = pending_.find('\n');
      if (end != std::string::npos) {
        line = pending_.substr(0, end);
        pending_.erase(0, end + 1);
        return std::nullopt;
      }
      if (auto failed = read_more(limit)) {
        return failed;
      }
    }
  }

 private:
  std::optional<Answer> read_more(const TimeLimit& limit) {
    pollfd polled{socket_, POLLIN, 0};
    if (::poll(&polled, 1, limit.left_ms()) <= 0) {
      return limit.is_over() ? std::optional(answer_of(MIGRATE_TIMEOUT,
                                                       "the daemon has not answered in the time "
                                                       "that the call may take"))
                             : std::nullopt;  // a signal
    }
    std::array<char, 4096> buffer = {};
    const ssize_t count = ::read(socket_, buffer.data(), buffer.size());
    if (count < 0 && errno == EINTR) {
      return std::nullopt;
    }
    if (count <= 0 || pending_.size() > kMaxLineBytes) {
      return answer_of(MIGRATE_ERROR,
                       "wait for the daemon's answer: it ended without a result; see the daemon's "
                       "log and `migratectl ps`");
    }
    pending_.append(buffer.data(), static_cast<std::size_t>(count));
    return std::nullopt;
  }

  int socket_;
  std::string pending_;
};

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

Answer read_answer(int socket, const TimeLimit& limit, const OnEvent& on_event) {
  Lines lines(socket);
  std::string refusals;
  for (;;) {
    std::string line;
    if (auto failed = lines.next(limit, line)) {
      return *std::move(failed);
    }
    const ObjectScanner event(line);
    const std::string kind = event.string("event").value_or("");
    if (kind == "result") {
      return parse_result(line, refusals);
    }
    if (kind == "refused") {
      refusals = std::string(event.raw("refusals").value_or("[]"));
    }
    if (!on_event(line)) {
      return answer_of(MIGRATE_DONE, {});
    }
  }
}

}  // namespace

const char* or_default(const char* text, const char* fallback) {
  return text != nullptr && *text != '\0' ? text : fallback;
}

Answer answer_of(int status, std::string message) {
  Answer answer;
  answer.status = status;
  answer.message = std::move(message);
  return answer;
}

TimeLimit::TimeLimit(double seconds) {
  if (seconds > 0) {
    end_ = Clock::now() + std::chrono::duration_cast<Clock::duration>(
                              std::chrono::duration<double>(std::min(seconds, kLongestSeconds)));
  }
}

int TimeLimit::left_ms(int most) const {
  if (!end_) {
    return most;
  }
  const auto left = std::chrono::ceil<std::chrono::milliseconds>(*end_ - Clock::now()).count();
  const auto bounded = std::clamp<std::int64_t>(left, 0, most < 0 ? 3'600'000 : most);
  return static_cast<int>(bounded);
}

Options read_options(const migrate_options* given) {
  Options options;
  options.chosen.size = sizeof options.chosen;
  if (given == nullptr) {
    return options;
  }
  const std::size_t size = given->size;
  const auto* bytes = reinterpret_cast<const char*>(given);
  const bool is_known = size >= kLeastOptionsBytes && size <= kMaxLineBytes &&
                        std::all_of(bytes + std::min(size, sizeof options.chosen), bytes + size,
                                    [](char byte) { return byte == 0; });
  if (!is_known) {
    options.wrong = answer_of(
        MIGRATE_USAGE, "the options' size is " + std::to_string(size) +
                           ", or they ask for what this version of the library does not "
                           "know; set size to sizeof(struct migrate_options), all else to 0");
    return options;
  }
  std::memcpy(&options.chosen, given, std::min(size, sizeof options.chosen));
  options.chosen.size = sizeof options.chosen;
  if (!(options.chosen.retry_seconds >= 0) || !(options.chosen.time_limit_seconds >= 0)) {
    options.wrong = answer_of(MIGRATE_USAGE, "a number of seconds cannot be negative");
  }
  return options;
}

Answer parse_result(const std::string& line, const std::string& refusals) {
  const ObjectScanner scanner(line);
  Answer answer;
  answer.status = static_cast<int>(scanner.integer("exit").value_or(MIGRATE_ERROR));
  answer.json = scanner.without("event", "exit");
  if (!refusals.empty() && !ObjectScanner(answer.json).raw("refusals")) {
    answer.json.pop_back();
    answer.json +=
        (answer.json.size() > 1 ? "," : "") + std::string("\"refusals\":") + refusals + "}";
  }
  if (answer.status != MIGRATE_DONE) {
    answer.message = error_text(scanner);
    if (answer.message.empty()) {
      answer.message = migrate_strerror(answer.status);
      for (const std::string_view each : ObjectScanner(answer.json).elements("refusals")) {
        const ObjectScanner refusal(each);
        answer.message += "; " + refusal.string("object").value_or("") + ": " +
                          refusal.string("reason").value_or("") + " (" +
                          refusal.string("code").value_or("") + "); " +
                          refusal.string("remedy").value_or("");
      }
    }
  }
  return answer;
}

Answer exchange(const migrate_options& options, const std::string& request, const TimeLimit& limit,
                const OnEvent& on_event, const std::function<void()>& before_close) {
  const Descriptor connection(::socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0));
  auto failed = connect_to(socket_path(options), connection.get());
  if (!failed) {
    failed = send_all(connection.get(), request + "\n");
  }
  Answer answer = failed ? *std::move(failed) : read_answer(connection.get(), limit, on_event);
  before_close();
  return answer;
}

}  // namespace migrate::client
