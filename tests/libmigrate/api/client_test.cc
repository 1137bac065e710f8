// The C interface against a pretended daemon.
#include <gtest/gtest.h>
#include <libmigrate/migrate.h>
#include <sys/socket.h>
#include <unistd.h>

#include <array>
#include <cstring>
#include <filesystem>
#include <future>
#include <optional>
#include <string>
#include <thread>

#include "base/file.h"
#include "libmigrate/requests/json_member.h"
#include "libmigrate/requests/requests.h"
#include "transport/handoff.h"

namespace {

using migrate::UniqueFd;
using migrate::UnixKind;
using migrate::UnixListener;

/// Serves one connection: keeps the request and sends the answer, to the pipe if one was passed.
class PretendedDaemon {
 public:
  explicit PretendedDaemon(std::string answer)
      : path_(testing::TempDir() + "client_test." + std::to_string(getpid())),
        listener_(UnixListener::create(path_, 0600, UnixKind::kStream).value()),
        thread_([this, text = std::move(answer)] { serve(text); }) {}
  ~PretendedDaemon() { thread_.join(); }
  PretendedDaemon(const PretendedDaemon&) = delete;
  PretendedDaemon& operator=(const PretendedDaemon&) = delete;

  migrate_options options() const {
    migrate_options made = {};
    made.socket = path_.c_str();
    return made;
  }
  std::string request() { return request_.get_future().get(); }
  bool answered_by_pipe() const { return answered_by_pipe_; }

 private:
  void serve(const std::string& answer) {
    UniqueFd client = listener_.accept(5000).value();
    std::array<char, 4096> buffer = {};
    iovec part = {buffer.data(), buffer.size()};
    alignas(cmsghdr) std::array<char, CMSG_SPACE(sizeof(int))> control = {};
    msghdr message = {};
    message.msg_iov = &part;
    message.msg_iovlen = 1;
    message.msg_control = control.data();
    message.msg_controllen = control.size();
    const ssize_t count = recvmsg(client.get(), &message, MSG_CMSG_CLOEXEC);
    if (const cmsghdr* header = CMSG_FIRSTHDR(&message)) {
      int number = -1;
      std::memcpy(&number, CMSG_DATA(header), sizeof number);
      std::array<char, 16> rest = {};
      EXPECT_EQ(read(client.get(), rest.data(), rest.size()), 0);  // the caller hung up
      client.reset(number);
      answered_by_pipe_ = true;
    }
    request_.set_value(std::string(buffer.data(), count > 0 ? static_cast<std::size_t>(count) : 0));
    (void)migrate::write_all(client.get(), std::as_bytes(std::span(answer)));
  }

  std::string path_;
  UnixListener listener_;
  std::promise<std::string> request_;
  bool answered_by_pipe_ = false;
  std::thread thread_;
};

std::size_t open_descriptors() {
  return migrate::list_directory("/proc/self/fd").value().size();
}

TEST(Client, MovesAnotherProcess) {
  PretendedDaemon daemon(
      "{\"event\":\"phase\",\"phase\":\"offer\"}\n"
      "{\"event\":\"result\",\"exit\":0,\"pid\":17,\"freeze_us\":300}\n");
  migrate_options options = daemon.options();
  options.mode = "eager";
  options.wait = "done";
  options.retry_seconds = 1.5;
  char* report = nullptr;
  EXPECT_EQ(migrate_move(17, "hostB:7071", &options, &report), MIGRATE_DONE);
  EXPECT_STREQ(report, "{\"pid\":17,\"freeze_us\":300}");
  EXPECT_STREQ(migrate_last_error(), "");
  // As the daemon reads it.
  const auto request = migrate::parse_object(daemon.request());
  EXPECT_EQ(migrate::parse_command(request).value(), migrate::Command::kMove);
  EXPECT_EQ(migrate::parse_process(request).value().pid, 17);
  const migrate::MoveRequest move = migrate::parse_move(request).value();
  EXPECT_EQ(move.destination, "hostB:7071");
  EXPECT_EQ(move.plan.word, "eager");
  EXPECT_EQ(move.wait, migrate::MoveWait::kDone);
  EXPECT_EQ(move.retry_seconds, 1.5);
  EXPECT_FALSE(move.push.bytes_per_second);
  EXPECT_FALSE(daemon.answered_by_pipe());
  migrate_free(report);
}

TEST(Client, MovesItselfWithoutASocket) {
  const std::size_t before = open_descriptors();
  {
    PretendedDaemon daemon("{\"event\":\"result\",\"exit\":0}\n");
    const migrate_options options = daemon.options();
    EXPECT_EQ(migrate_move(0, "hostB", &options, nullptr), MIGRATE_DONE);
    EXPECT_EQ(migrate::parse_process(migrate::parse_object(daemon.request())).value().pid, 0);
    EXPECT_TRUE(daemon.answered_by_pipe());
  }
  EXPECT_EQ(open_descriptors(), before);
}

TEST(Client, ReportsRefusals) {
  PretendedDaemon daemon(
      "{\"event\":\"refused\",\"refusals\":[{\"code\":\"DEVICE\"}]}\n"
      "{\"event\":\"result\",\"exit\":3}\n");
  const migrate_options options = daemon.options();
  char* report = nullptr;
  EXPECT_EQ(migrate_check(17, nullptr, &options, &report), MIGRATE_REFUSED);
  EXPECT_TRUE(migrate::parse_check(migrate::parse_object(daemon.request())));
  EXPECT_STREQ(report, "{\"refusals\":[{\"code\":\"DEVICE\"}]}");
  EXPECT_NE(std::string(migrate_last_error()).find("refused"), std::string::npos);
  migrate_free(report);
}

TEST(Client, WaitGivesTheExitStatus) {
  PretendedDaemon daemon("{\"event\":\"result\",\"exit\":0,\"exit_status\":768}\n");
  const migrate_options options = daemon.options();
  int status = 0;
  EXPECT_EQ(migrate_wait("ab12", "exit", &options, &status), MIGRATE_DONE);
  EXPECT_EQ(status, 768);
  const auto request = migrate::parse_object(daemon.request());
  EXPECT_EQ(migrate::parse_command(request).value(), migrate::Command::kWait);
  EXPECT_EQ(migrate::parse_process(request).value().id, "ab12");
  EXPECT_EQ(migrate::parse_wait(request).value(), migrate::WaitFor::kExit);
}

TEST(Client, ErrorsSayWhatAndWhy) {
  {
    PretendedDaemon daemon(
        "{\"event\":\"result\",\"exit\":1,\"error\":{\"code\":\"not found\",\"message\":\"no such "
        "process\"}}\n");
    const migrate_options options = daemon.options();
    EXPECT_EQ(migrate_move(17, "hostB", &options, nullptr), MIGRATE_ERROR);
    EXPECT_STREQ(migrate_last_error(), "no such process");
  }
  {
    PretendedDaemon daemon("{\"event\":\"phase\"");
    const migrate_options options = daemon.options();
    EXPECT_EQ(migrate_move(17, "hostB", &options, nullptr), MIGRATE_ERROR);
    EXPECT_NE(std::string(migrate_last_error()).find("without a result"), std::string::npos);
  }
  migrate_options options = {};
  options.socket = "/nonexistent/socket";
  EXPECT_EQ(migrate_check(17, nullptr, &options, nullptr), MIGRATE_ERROR);
  EXPECT_NE(std::string(migrate_last_error()).find("/nonexistent/socket"), std::string::npos);
}

TEST(Client, RefusesWrongUseBeforeConnecting) {
  migrate_options options = {};
  options.mode = "quick";
  EXPECT_EQ(migrate_move(17, "hostB", &options, nullptr), MIGRATE_USAGE);
  options.mode = nullptr;
  options.wait = "exit";
  EXPECT_EQ(migrate_move(0, "hostB", &options, nullptr), MIGRATE_USAGE);
  EXPECT_EQ(migrate_move(17, nullptr, nullptr, nullptr), MIGRATE_USAGE);
  EXPECT_EQ(migrate_move(-1, "hostB", nullptr, nullptr), MIGRATE_USAGE);
  EXPECT_EQ(migrate_wait("", "exit", nullptr, nullptr), MIGRATE_USAGE);
  EXPECT_EQ(migrate_wait("17", "long", nullptr, nullptr), MIGRATE_USAGE);
  for (int status = 0; status <= 6; ++status) {
    EXPECT_NE(std::string(migrate_strerror(status)), "");
  }
}

}  // namespace
