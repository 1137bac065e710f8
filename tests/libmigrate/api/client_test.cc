// The C interface against a pretended daemon.
#include <gtest/gtest.h>
#include <libmigrate/migrate.h>
#include <sys/socket.h>
#include <unistd.h>

#include <array>
#include <cstddef>
#include <cstring>
#include <future>
#include <string>
#include <thread>
#include <vector>

#include "base/file.h"
#include "libmigrate/requests/json_member.h"
#include "libmigrate/requests/request_json.h"
#include "transport/handoff.h"

namespace {

using migrate::UniqueFd;
using migrate::UnixKind;
using migrate::UnixListener;

/// Serves one connection: keeps the request and sends the answer.
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
    made.size = sizeof made;
    made.socket = path_.c_str();
    return made;
  }
  std::string request() { return request_.get_future().get(); }
  /// Lets a daemon that keeps silent hang up.
  void end() { end_.set_value(); }

 private:
  void serve(const std::string& answer) {
    const UniqueFd client = listener_.accept(5000).value();
    std::array<char, 4096> buffer = {};
    const ssize_t count = read(client.get(), buffer.data(), buffer.size());
    request_.set_value(std::string(buffer.data(), count > 0 ? static_cast<std::size_t>(count) : 0));
    (void)migrate::write_all(client.get(), std::as_bytes(std::span(answer)));
    if (answer.empty()) {
      end_.get_future().wait();
    }
  }

  std::string path_;
  UnixListener listener_;
  std::promise<std::string> request_;
  std::promise<void> end_;
  std::thread thread_;
};

/// A result that is freed.
class Held {
 public:
  Held() = default;
  Held(const Held&) = delete;
  Held& operator=(const Held&) = delete;
  ~Held() { migrate_result_free(result_); }
  migrate_result** operator&() { return &result_; }  // NOLINT(google-runtime-operator): as C's
  migrate_result* get() const { return result_; }

 private:
  migrate_result* result_ = nullptr;
};

std::size_t open_descriptors() {
  return migrate::list_directory("/proc/self/fd").value().size();
}

TEST(Client, CopiesAnotherProcess) {
  PretendedDaemon daemon(
      "{\"event\":\"copy\",\"pid\":18,\"destination\":\"hostB\",\"exit\":0}\n"
      "{\"event\":\"result\",\"exit\":4,\"pid\":17,\"stop_us\":900,\"processes\":[{\"process\":"
      "\"ab\","
      "\"pid\":18,\"where\":\"hostB\"}],\"failed\":[{\"pid\":19,\"destination\":\"hostC\",\"exit\":"
      "4}],"
      "\"error\":{\"code\":\"retry\",\"message\":\"1 of 2\"}}\n");
  migrate_options options = daemon.options();
  options.mode = "demand";
  Held result;
  const std::array<const char*, 2> hosts = {"hostB", "hostC:7071"};
  EXPECT_EQ(migrate_fork(17, hosts.data(), hosts.size(), 3, &options, &result), MIGRATE_FAILED);
  EXPECT_STREQ(migrate_result_message(result.get()), "1 of 2");
  ASSERT_EQ(migrate_result_process_count(result.get()), 1U);
  migrate_process copy = {};
  copy.size = sizeof copy;
  ASSERT_EQ(migrate_result_process(result.get(), 0, &copy), 0);
  EXPECT_EQ(copy.pid, 18);
  EXPECT_STREQ(copy.where, "hostB");
  const auto request = migrate::parse_object(daemon.request());
  EXPECT_EQ(migrate::command_of(request).value(), "fork");
  EXPECT_EQ(migrate::parse_process(request).value().pid, 17);
  const auto fork = migrate::request_as<migrate::ForkRequest>(request).value();
  EXPECT_EQ(fork.destinations, (std::vector<std::string>{"hostB", "hostC:7071"}));
  EXPECT_EQ(fork.count, 3U);
  EXPECT_EQ(fork.move.plan.word, "demand");
}

TEST(Client, MovesAnotherProcess) {
  PretendedDaemon daemon(
      "{\"event\":\"phase\",\"phase\":\"offer\"}\n"
      "{\"event\":\"progress\",\"arrived_pages\":12,\"owed_pages\":3,\"wire_bytes\":9,"
      "\"bytes_per_second\":1.5}\n"
      "{\"event\":\"result\",\"exit\":0,\"pid\":17,\"freeze_us\":300,\"phases_us\":{\"run\":9.5},"
      "\"destination\":\"host\\u0042\"}\n");
  migrate_options options = daemon.options();
  options.mode = "eager";
  options.wish = "exposure";
  options.network = "place";
  options.wait = "done";
  options.retry_seconds = 1.5;
  std::vector<std::string> phases;
  options.progress_data = &phases;
  options.progress = [](const migrate_progress* progress, void* data) {
    static_cast<std::vector<std::string>*>(data)->push_back(progress->phase +
                                                            std::to_string(progress->owed_pages));
  };
  Held result;
  EXPECT_EQ(migrate_move(17, "hostB:7071", &options, &result), MIGRATE_DONE);
  EXPECT_EQ(migrate_result_status(result.get()), MIGRATE_DONE);
  EXPECT_STREQ(migrate_result_message(result.get()), "");
  EXPECT_STREQ(migrate_result_text(result.get(), "destination"), "hostB");
  EXPECT_STREQ(migrate_result_text(result.get(), "nothing.of.this"), "");
  double number = 0;
  EXPECT_EQ(migrate_result_number(result.get(), "phases_us.run", &number), 0);
  EXPECT_EQ(number, 9.5);
  EXPECT_EQ(migrate_result_number(result.get(), "destination", &number), -1);
  EXPECT_EQ(migrate::parse_object(migrate_result_json(result.get()))["freeze_us"], 300);
  EXPECT_STREQ(migrate_last_error(), "");
  EXPECT_EQ(phases, (std::vector<std::string>{"offer0", "pages3"}));
  // As the daemon reads it.
  const auto request = migrate::parse_object(daemon.request());
  EXPECT_EQ(migrate::command_of(request).value(), "move");
  EXPECT_EQ(migrate::parse_process(request).value().pid, 17);
  const migrate::MoveRequest move = migrate::request_as<migrate::MoveRequest>(request).value();
  EXPECT_EQ(move.destination, "hostB:7071");
  EXPECT_EQ(move.plan.word, "eager");
  EXPECT_EQ(move.wish.best, migrate::Wish::kExposure);
  EXPECT_EQ(move.network, migrate::NetworkOf::kPlace);
  EXPECT_EQ(move.wait, migrate::MoveWait::kDone);
  EXPECT_EQ(move.retry_seconds, 1.5);
  EXPECT_FALSE(move.push.bytes_per_second);
  EXPECT_FALSE(move.point_wait);
  EXPECT_EQ(move.asked, 0U);
}

TEST(Client, ReportsRefusals) {
  PretendedDaemon daemon(
      "{\"event\":\"refused\",\"refusals\":[{\"code\":\"DEVICE\",\"object\":\"descriptor 3\","
      "\"reason\":\"it stays\",\"remedy\":\"close it\"},{\"code\":\"SOCKET\"}]}\n"
      "{\"event\":\"result\",\"exit\":3}\n");
  migrate_options options = daemon.options();
  options.network = "place";
  Held result;
  EXPECT_EQ(migrate_check(17, nullptr, &options, &result), MIGRATE_REFUSED);
  const auto check =
      migrate::request_as<migrate::CheckRequest>(migrate::parse_object(daemon.request()));
  ASSERT_TRUE(check);
  EXPECT_EQ(check->network, migrate::NetworkOf::kPlace);
  ASSERT_EQ(migrate_result_refusal_count(result.get()), 2U);
  migrate_refusal refusal = {};
  EXPECT_EQ(migrate_result_refusal(result.get(), 0, &refusal), -1);  // It has no size.
  refusal.size = sizeof refusal;
  EXPECT_EQ(migrate_result_refusal(result.get(), 2, &refusal), -1);
  ASSERT_EQ(migrate_result_refusal(result.get(), 0, &refusal), 0);
  EXPECT_STREQ(refusal.code, "DEVICE");
  EXPECT_STREQ(refusal.remedy, "close it");
  ASSERT_EQ(migrate_result_refusal(result.get(), 1, &refusal), 0);
  EXPECT_STREQ(refusal.code, "SOCKET");
  EXPECT_STREQ(refusal.remedy, "");
  // What to do is in the message, too.
  EXPECT_NE(std::string(migrate_last_error()).find("close it"), std::string::npos);
  EXPECT_STREQ(migrate_last_error(), migrate_result_message(result.get()));
}

TEST(Client, TellsWhereTheCallerIs) {
  PretendedDaemon daemon(
      "{\"event\":\"result\",\"exit\":0,\"host\":\"b\",\"address\":\"tcp://b:7070\",\"home\":"
      "\"tcp://a:7070\",\"moves\":3,\"identity\":\"a/1f/ffffffffffffffff\",\"owed_pages\":7}\n");
  const migrate_options options = daemon.options();
  Held result;
  ASSERT_EQ(migrate_here(&options, &result), MIGRATE_DONE);
  EXPECT_EQ(migrate::command_of(migrate::parse_object(daemon.request())).value(), "here");
  migrate_place place = {};
  place.size = sizeof place;
  ASSERT_EQ(migrate_result_place(result.get(), &place), 0);
  EXPECT_STREQ(place.host, "b");
  EXPECT_STREQ(place.address, "tcp://b:7070");
  EXPECT_STREQ(place.home, "tcp://a:7070");
  EXPECT_EQ(place.moves, 3U);
  EXPECT_EQ(place.owed_pages, 7U);
  EXPECT_STREQ(place.identity.origin, "a");
  EXPECT_EQ(place.identity.serial, 0x1fU);
  EXPECT_EQ(place.identity.epoch, 0xffffffffffffffffU);
}

TEST(Client, ListsProcesses) {
  PretendedDaemon daemon(
      "{\"event\":\"result\",\"exit\":0,\"processes\":[{\"process\":\"ab\",\"pid\":17,\"role\":"
      "\"home\",\"state\":\"away\",\"where\":\"tcp://b:7070\",\"home\":\"a\",\"command\":\"x y\","
      "\"owed_pages\":null,\"identity\":\"a/1/2\"},{\"process\":\"cd\",\"pid\":18,\"owed_pages\":5,"
      "\"exit_status\":256}]}\n");
  const migrate_options options = daemon.options();
  Held result;
  ASSERT_EQ(migrate_list(1, &options, &result), MIGRATE_DONE);
  EXPECT_TRUE(
      migrate::request_as<migrate::PsRequest>(migrate::parse_object(daemon.request())).value().all);
  ASSERT_EQ(migrate_result_process_count(result.get()), 2U);
  migrate_process process = {};
  process.size = sizeof process;
  ASSERT_EQ(migrate_result_process(result.get(), 0, &process), 0);
  EXPECT_STREQ(process.id, "ab");
  EXPECT_EQ(process.pid, 17);
  EXPECT_STREQ(process.state, "away");
  EXPECT_STREQ(process.command, "x y");
  EXPECT_EQ(process.owed_pages, UINT64_MAX);
  EXPECT_EQ(process.exit_status, -1);
  EXPECT_STREQ(process.identity.origin, "a");
  ASSERT_EQ(migrate_result_process(result.get(), 1, &process), 0);
  EXPECT_EQ(process.owed_pages, 5U);
  EXPECT_EQ(process.exit_status, 256);
  EXPECT_STREQ(process.identity.origin, "");
}

TEST(Client, WaitGivesTheExitStatus) {
  PretendedDaemon daemon("{\"event\":\"result\",\"exit\":0,\"exit_status\":768}\n");
  const migrate_options options = daemon.options();
  Held result;
  EXPECT_EQ(migrate_wait("ab12", "exit", &options, &result), MIGRATE_DONE);
  double status = 0;
  EXPECT_EQ(migrate_result_number(result.get(), "exit_status", &status), 0);
  EXPECT_EQ(status, 768);
  const auto request = migrate::parse_object(daemon.request());
  EXPECT_EQ(migrate::command_of(request).value(), "wait");
  EXPECT_EQ(migrate::parse_process(request).value().id, "ab12");
  EXPECT_EQ(migrate::request_as<migrate::WaitRequest>(request).value().wait_for,
            migrate::WaitFor::kExit);
}

TEST(Client, AWaitHasALimit) {
  const std::size_t before = open_descriptors();
  {
    PretendedDaemon daemon("");
    migrate_options options = daemon.options();
    options.time_limit_seconds = 0.01;
    EXPECT_EQ(migrate_wait("ab12", "done", &options, nullptr), MIGRATE_TIMEOUT);
    daemon.end();
  }
  EXPECT_EQ(open_descriptors(), before);
}

TEST(Client, WatchTellsWhereAProcessIs) {
  PretendedDaemon daemon(
      "{\"event\":\"process\",\"identity\":\"a/1/2\",\"state\":\"not-moved\",\"where\":\"a\"}\n"
      "{\"event\":\"unreachable\",\"message\":\"x\"}\n"
      "{\"event\":\"process\",\"identity\":\"a/1/2\",\"state\":\"done\",\"where\":\"tcp://"
      "b:7070\"}\n"
      "{\"event\":\"result\",\"exit\":0,\"exit_status\":9}\n");
  const migrate_options options = daemon.options();
  std::vector<std::string> seen;
  const auto note = [](const migrate_sighting* sighting, void* data) {
    static_cast<std::vector<std::string>*>(data)->push_back(
        std::string(sighting->identity) + " " + sighting->state + " " + sighting->where);
    return 0;
  };
  Held result;
  EXPECT_EQ(migrate_watch("a/1/2", note, &seen, &options, &result), MIGRATE_DONE);
  EXPECT_EQ(seen, (std::vector<std::string>{"a/1/2 not-moved a", "a/1/2 done tcp://b:7070"}));
  double status = 0;
  EXPECT_EQ(migrate_result_number(result.get(), "exit_status", &status), 0);
  EXPECT_EQ(status, 9);
  const auto request = migrate::parse_object(daemon.request());
  EXPECT_EQ(migrate::command_of(request).value(), "watch");
  EXPECT_EQ(migrate::parse_process(request).value().id, "a/1/2");
}

TEST(Client, WhoeverWatchesMayStop) {
  PretendedDaemon daemon(
      "{\"event\":\"process\",\"identity\":\"a/1/2\",\"state\":\"away\",\"where\":\"b\"}\n");
  const migrate_options options = daemon.options();
  EXPECT_EQ(
      migrate_watch(
          "a/1/2", [](const migrate_sighting*, void*) { return 1; }, nullptr, &options, nullptr),
      MIGRATE_DONE);
}

TEST(Client, WatchGoesOnWithTheNextDaemonAsLongAsItMay) {
  migrate_options options = {};
  {
    PretendedDaemon daemon(
        "{\"event\":\"process\",\"identity\":\"a/1/2\",\"state\":\"away\",\"where\":\"b\"}\n");
    options = daemon.options();
    options.time_limit_seconds = 0.5;
    int seen = 0;
    EXPECT_NE(migrate_watch(
                  "a/1/2",
                  [](const migrate_sighting*, void* data) { return ++*static_cast<int*>(data), 0; },
                  &seen, &options, nullptr),
              MIGRATE_DONE);
    EXPECT_EQ(seen, 1);
  }
}

TEST(Client, KillSaysWhichSignal) {
  PretendedDaemon daemon(
      "{\"event\":\"result\",\"exit\":0,\"identity\":\"a/1/2\",\"signal\":10}\n");
  const migrate_options options = daemon.options();
  EXPECT_EQ(migrate_kill("a/1/2", 10, &options, nullptr), MIGRATE_DONE);
  const auto request = migrate::parse_object(daemon.request());
  EXPECT_EQ(migrate::request_as<migrate::KillRequest>(request).value().signal, 10U);
  EXPECT_EQ(migrate_kill("", 10, &options, nullptr), MIGRATE_USAGE);
  EXPECT_EQ(migrate_watch(nullptr, nullptr, nullptr, &options, nullptr), MIGRATE_USAGE);
}

TEST(Client, ErrorsSayWhatAndWhy) {
  {
    PretendedDaemon daemon(
        "{\"event\":\"result\",\"exit\":1,\"error\":{\"code\":\"not found\",\"message\":\"no such "
        "process\"}}\n");
    const migrate_options options = daemon.options();
    Held result;
    EXPECT_EQ(migrate_move(17, "hostB", &options, &result), MIGRATE_ERROR);
    EXPECT_STREQ(migrate_last_error(), "no such process");
    EXPECT_STREQ(migrate_result_text(result.get(), "error.code"), "not found");
  }
  {
    PretendedDaemon daemon("{\"event\":\"phase\"");
    const migrate_options options = daemon.options();
    EXPECT_EQ(migrate_move(17, "hostB", &options, nullptr), MIGRATE_ERROR);
    EXPECT_NE(std::string(migrate_last_error()).find("without a result"), std::string::npos);
  }
  migrate_options options = {};
  options.size = sizeof options;
  options.socket = "/nonexistent/socket";
  EXPECT_EQ(migrate_check(17, nullptr, &options, nullptr), MIGRATE_ERROR);
  EXPECT_NE(std::string(migrate_last_error()).find("/nonexistent/socket"), std::string::npos);
}

TEST(Client, RefusesWrongUseBeforeConnecting) {
  migrate_options options = {};
  Held result;
  EXPECT_EQ(migrate_move(17, "hostB", &options, &result), MIGRATE_USAGE);
  EXPECT_NE(std::string(migrate_result_message(result.get())).find("size"), std::string::npos);
  options.size = sizeof options;
  options.mode = "quick";
  EXPECT_EQ(migrate_move(17, "hostB", &options, nullptr), MIGRATE_USAGE);
  options.mode = nullptr;
  options.wait = "long";
  EXPECT_EQ(migrate_move(17, "hostB", &options, nullptr), MIGRATE_USAGE);
  options.wait = nullptr;
  options.time_limit_seconds = -1;
  EXPECT_EQ(migrate_self("hostB", &options, nullptr), MIGRATE_USAGE);
  EXPECT_EQ(migrate_self("", nullptr, nullptr), MIGRATE_USAGE);
  EXPECT_EQ(migrate_move(0, "hostB", nullptr, nullptr), MIGRATE_USAGE);
  const std::array<const char*, 2> hosts = {"hostB", nullptr};
  EXPECT_EQ(migrate_fork(0, hosts.data(), 1, 0, nullptr, nullptr), MIGRATE_USAGE);
  EXPECT_EQ(migrate_fork(17, hosts.data(), 2, 0, nullptr, nullptr), MIGRATE_USAGE);
  EXPECT_EQ(migrate_fork(17, nullptr, 2, 0, nullptr, nullptr), MIGRATE_USAGE);
  EXPECT_EQ(migrate_move(17, nullptr, nullptr, nullptr), MIGRATE_USAGE);
  EXPECT_EQ(migrate_move(-1, "hostB", nullptr, nullptr), MIGRATE_USAGE);
  EXPECT_EQ(migrate_wait("", "exit", nullptr, nullptr), MIGRATE_USAGE);
  EXPECT_EQ(migrate_wait("17", "long", nullptr, nullptr), MIGRATE_USAGE);
  EXPECT_EQ(migrate_state(nullptr, nullptr, nullptr), MIGRATE_USAGE);
  for (int status = 0; status <= 7; ++status) {
    EXPECT_NE(std::string(migrate_strerror(status)), "");
  }
}

TEST(Client, TakesOptionsOfALaterVersionThatAskForNothingNew) {
  struct Later {
    migrate_options known;
    long more;
  };
  Later later = {};
  later.known.size = sizeof later;
  later.known.socket = "/nonexistent/socket";
  EXPECT_EQ(migrate_check(17, nullptr, &later.known, nullptr), MIGRATE_ERROR);
  later.more = 1;
  EXPECT_EQ(migrate_check(17, nullptr, &later.known, nullptr), MIGRATE_USAGE);
}

// What is behind a struct of before is not the library's.
TEST(Client, TakesOptionsOfTheFirstVersionAndNothingBehindThem) {
  migrate_options options = {};
  options.wish = "of nobody";
  options.size = offsetof(migrate_options, wish);
  options.socket = "/nonexistent/socket";
  options.mode = "auto";
  EXPECT_EQ(migrate_move(17, "hostB", &options, nullptr), MIGRATE_ERROR);
  options.size = sizeof options;
  EXPECT_EQ(migrate_move(17, "hostB", &options, nullptr), MIGRATE_USAGE);
  EXPECT_NE(std::string(migrate_last_error()).find("exposure"), std::string::npos);
  options.wish = "bytes";
  EXPECT_EQ(migrate_move(17, "hostB", &options, nullptr), MIGRATE_ERROR);
  options.network = "of nobody";
  for (const int status : {migrate_move(17, "hostB", &options, nullptr),
                           migrate_check(17, "hostB", &options, nullptr)}) {
    EXPECT_EQ(status, MIGRATE_USAGE);
    EXPECT_NE(std::string(migrate_last_error()).find("place"), std::string::npos);
  }
}

TEST(Client, NothingComesOfNoResult) {
  EXPECT_EQ(migrate_result_status(nullptr), MIGRATE_ERROR);
  EXPECT_STREQ(migrate_result_json(nullptr), "{}");
  EXPECT_STREQ(migrate_result_text(nullptr, "x"), "");
  EXPECT_EQ(migrate_result_refusal_count(nullptr), 0U);
  migrate_result_free(nullptr);
  EXPECT_EQ(migrate_version(), MIGRATE_VERSION_NUMBER);
}

}  // namespace
