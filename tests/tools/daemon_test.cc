// The daemon and the command line from outside, without moving anything. Needs root.
#include <gtest/gtest.h>
#include <sys/wait.h>
#include <unistd.h>

#include <chrono>
#include <csignal>
#include <cstdio>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <nlohmann/json.hpp>
#include <string>
#include <thread>
#include <vector>

#include "base/file.h"
#include "transport/handoff.h"
#include "transport/preamble.h"
#include "transport/tcp.h"

namespace migrate {
namespace {

using nlohmann::json;

struct Outcome {
  int exit_code = -1;
  std::string output;
};

/// Runs a shell command; output is that of both streams.
Outcome run(const std::string& command) {
  Outcome outcome;
  FILE* pipe = popen((command + " 2>&1").c_str(), "r");
  for (int next = 0; (next = std::fgetc(pipe)) != EOF;) {
    outcome.output.push_back(static_cast<char>(next));
  }
  outcome.exit_code = WEXITSTATUS(pclose(pipe));
  return outcome;
}

class DaemonTest : public testing::Test {
 protected:
  void SetUp() override {
    if (geteuid() != 0) {
      GTEST_SKIP() << "needs root, as migrated does";
    }
    std::string pattern = testing::TempDir() + "daemonXXXXXX";
    ASSERT_NE(mkdtemp(pattern.data()), nullptr);
    directory_ = pattern;
  }
  void TearDown() override {
    stop();
    std::filesystem::remove_all(directory_);
  }

  std::string socket() const { return directory_ + "/socket"; }
  std::string state() const { return directory_ + "/state"; }
  std::string control(const std::string& arguments) const {
    return std::string(MIGRATE_CONTROL) + " --socket " + socket() + " " + arguments;
  }
  std::string daemon(const std::string& arguments) const {
    return std::string(MIGRATE_DAEMON) + " " + arguments;
  }

  /// Starts a daemon on a free port, which port_ becomes.
  void start(const std::vector<std::string>& more = {}) {
    port_ = free_port();
    std::vector<std::string> words = {
        MIGRATE_DAEMON, "--listen", "tcp://127.0.0.1:" + std::to_string(port_),
        "--socket",     socket(),   "--state",
        state()};
    words.insert(words.end(), more.begin(), more.end());
    std::vector<char*> arguments;
    for (std::string& word : words) {
      arguments.push_back(word.data());
    }
    arguments.push_back(nullptr);
    daemon_ = fork();
    if (daemon_ == 0) {
      (void)!freopen((directory_ + "/log").c_str(), "a", stderr);
      execv(arguments[0], arguments.data());
      _exit(127);
    }
    for (int i = 0; i < 200 && run(control("ping")).exit_code != 0; ++i) {
      std::this_thread::sleep_for(std::chrono::milliseconds(20));
    }
  }
  int stop() {
    int status = -1;
    if (daemon_ > 0) {
      kill(daemon_, SIGTERM);
      waitpid(daemon_, &status, 0);
      daemon_ = 0;
    }
    return status;
  }
  static std::uint16_t free_port() {
    return TcpListener::create(Address{"tcp", "127.0.0.1", 0}).value().port();
  }
  std::string log() const { return read_file(directory_ + "/log").value_or(""); }
  /// Sends bytes to the local socket and returns all that comes back.
  std::string exchange(const std::string& bytes) const {
    const UniqueFd client = connect_unix(socket(), UnixKind::kStream).value();
    (void)write_all(client.get(), std::as_bytes(std::span(bytes)));
    std::string answer;
    for (char next = 0; ::read(client.get(), &next, 1) == 1;) {
      answer.push_back(next);
    }
    return answer;
  }

  std::string directory_;
  std::uint16_t port_ = 0;
  pid_t daemon_ = 0;
};

TEST_F(DaemonTest, AnswersAndEndsOnSigterm) {
  start();
  EXPECT_EQ(run(control("ping")).exit_code, 0);
  const Outcome listed = run(control("--json ps"));
  EXPECT_EQ(listed.exit_code, 0);
  EXPECT_EQ(json::parse(listed.output), json::parse("{\"processes\":[]}"));
  EXPECT_EQ(run(control("ps --json")).output, listed.output);
  EXPECT_EQ(std::filesystem::status(state()).permissions(), std::filesystem::perms::owner_all);
  EXPECT_EQ(stop(), 0);
  EXPECT_FALSE(std::filesystem::exists(socket()));
  const Outcome gone = run(control("ping"));
  EXPECT_EQ(gone.exit_code, 1);
  EXPECT_NE(gone.output.find("migrated --listen"), std::string::npos);
}

TEST_F(DaemonTest, ErrorsHaveTheirExitCodes) {
  start();
  const Outcome missing = run(control("--json move 4194000 127.0.0.1"));
  EXPECT_EQ(missing.exit_code, 1);
  EXPECT_TRUE(json::parse(missing.output)["error"]["message"].is_string());
  EXPECT_EQ(run(control("show abcd")).exit_code, 1);
  EXPECT_EQ(run(control("show xyz")).exit_code, 2);
  EXPECT_EQ(run(control("wait 4194000")).exit_code, 1);
  EXPECT_EQ(run(control("move 1 hostB --mode quick")).exit_code, 2);
  EXPECT_EQ(run(control("move 1")).exit_code, 2);
  EXPECT_EQ(run(control("")).exit_code, 2);
  EXPECT_EQ(run(control("--help")).exit_code, 0);
}

TEST_F(DaemonTest, UsersMayUseOnlyTheirOwn) {
  start();
  std::filesystem::permissions(directory_, std::filesystem::perms::others_exec,
                               std::filesystem::perm_options::add);
  const pid_t pid = fork();
  if (pid == 0) {
    const bool changed = setgid(65534) == 0 && setuid(65534) == 0;
    const std::string answer = exchange(
        "{\"command\":\"move\",\"pid\":" + std::to_string(getppid()) + ",\"destination\":\"h\"}\n");
    _exit(changed && answer.find("another user") != std::string::npos ? 0 : 1);
  }
  int status = 0;
  waitpid(pid, &status, 0);
  EXPECT_EQ(status, 0);
}

TEST_F(DaemonTest, HostileLocalRequestsAreAnsweredWithErrors) {
  start();
  for (const std::string& line :
       {std::string("\n"), std::string("[]\n"), std::string("{\"a\":\n"), std::string("{}\n"),
        std::string("{\"command\":7}\n"), std::string("{\"command\":\"move\",\"pid\":-5}\n"),
        std::string("{\"command\":\"move\",\"pid\":1e99,"
                    "\"destination\":\"h\"}\n"),
        std::string("{\"command\":\"show\",\"process\":\"../..\"}\n"),
        std::string("{\"command\":\"wait\",\"process\":\"\\u0000\"}\n"),
        std::string("{\"command\":\"\xff\xfe\"}\n")}) {
    const json answer = json::parse(exchange(line), nullptr, false);
    ASSERT_TRUE(answer.is_object()) << line;
    EXPECT_EQ(answer["event"], "result") << line;
    EXPECT_NE(answer["exit"], 0) << line;
  }
  const json too_long = json::parse(exchange(std::string(70000, 'x')), nullptr, false);
  EXPECT_EQ(too_long["exit"], 1);
  EXPECT_EQ(run(control("ping")).exit_code, 0);
}

TEST_F(DaemonTest, PeersAreQueriedAndWrongOnesClosed) {
  start({"--host-name", "testhost"});
  const Address address{"tcp", "127.0.0.1", port_};
  UniqueFd query = connect_tcp(address, 1000).value();
  Preamble preamble;
  preamble.purpose = Purpose::kQuery;
  ASSERT_TRUE(send_preamble(query.get(), preamble));
  const auto channel = TcpChannel::create(std::move(query)).value();
  const auto answer = channel->receive(0, 5000).value();
  const auto* text = reinterpret_cast<const char*>(answer.data());
  EXPECT_EQ(json::parse(text, text + answer.size())["host"], "testhost");

  UniqueFd stray = connect_tcp(address, 1000).value();
  preamble.purpose = Purpose::kUrgent;
  ASSERT_TRUE(send_preamble(stray.get(), preamble));
  const auto stray_channel = TcpChannel::create(std::move(stray)).value();
  EXPECT_EQ(stray_channel->receive(0, 5000).error().code, ErrorCode::kPeerLost);
  EXPECT_NE(log().find("no worker here"), std::string::npos);

  UniqueFd foreign = connect_tcp(address, 1000).value();
  const std::string web = "GET / HTTP/1.1\r\nHost: localhost\r\n\r\n";
  ASSERT_TRUE(write_all(foreign.get(), std::as_bytes(std::span(web))));
  const auto foreign_channel = TcpChannel::create(std::move(foreign)).value();
  EXPECT_EQ(foreign_channel->receive(0, 5000).error().code, ErrorCode::kPeerLost);
}

TEST_F(DaemonTest, PassesConnectionsToTheWorkerOfTheSession) {
  start();
  Preamble preamble;
  preamble.purpose = Purpose::kBulk;
  preamble.session = random_session_id().value();
  UnixListener mailbox =
      UnixListener::create(state() + "/mailbox/" + to_hex(preamble.session), 0600).value();
  const UniqueFd peer = connect_tcp(Address{"tcp", "127.0.0.1", port_}, 1000).value();
  ASSERT_TRUE(send_preamble(peer.get(), preamble));
  const UniqueFd letter = mailbox.accept(5000).value();
  Handoff handoff = receive_descriptor(letter.get(), 5000).value();
  const auto expected = encode(preamble);
  EXPECT_TRUE(
      std::equal(handoff.bytes.begin(), handoff.bytes.end(), expected.begin(), expected.end()));
  const std::string hello = "hello";
  ASSERT_TRUE(write_all(handoff.fd.get(), std::as_bytes(std::span(hello))));
  handoff.fd.reset();
  std::this_thread::sleep_for(std::chrono::milliseconds(50));
  std::string read(5, '\0');
  EXPECT_EQ(::read(peer.get(), read.data(), read.size()), 5);
  EXPECT_EQ(read, hello);
}

TEST_F(DaemonTest, ServesNoMoreThanItsLimit) {
  start({"--max-connections", "2"});
  // Until two are being served: one may be refused that comes before the last ping was reaped.
  std::vector<UniqueFd> idle;
  Outcome refused;
  for (int i = 0; i < 100 && refused.exit_code != 1; ++i) {
    idle.push_back(connect_unix(socket(), UnixKind::kStream).value());
    refused = run(control("ping"));
  }
  EXPECT_NE(refused.output.find("as many requests as it may"), std::string::npos) << refused.output;
  Outcome served;
  for (int i = 0; i < 600 && served.output.empty(); ++i) {  // The idle ones are given up in 5 s.
    std::this_thread::sleep_for(std::chrono::milliseconds(50));
    const Outcome outcome = run(control("ping"));
    served = outcome.exit_code == 0 ? outcome : served;
  }
  EXPECT_NE(served.output, "") << "both idle connections are still served after 30 s";
}

TEST_F(DaemonTest, RefusesWhatWouldNotBeSafe) {
  const Outcome open_to_all =
      run(daemon("--listen tcp://0.0.0.0:0 --socket " + socket() + " --state " + state()));
  EXPECT_EQ(open_to_all.exit_code, 1);
  EXPECT_NE(open_to_all.output.find("--insecure"), std::string::npos);
  start();
  const Outcome second = run(
      daemon("--listen tcp://127.0.0.1:0 --socket " + directory_ + "/other --state " + state()));
  EXPECT_EQ(second.exit_code, 1);
  EXPECT_NE(second.output.find("pid " + std::to_string(daemon_)), std::string::npos);
  const Outcome same_socket = run(daemon("--listen tcp://127.0.0.1:0 --socket " + socket() +
                                         " --state " + directory_ + "/other"));
  EXPECT_EQ(same_socket.exit_code, 1);
  EXPECT_EQ(run(control("ping")).exit_code, 0);
}

TEST_F(DaemonTest, ReadsItsConfiguration) {
  const std::string path = directory_ + "/migrated.toml";
  std::ofstream(path) << "host_name = \"from-file\"\npeers = [\"127.0.0.1:1\"]\nspin_us = 5\n"
                      << "state = \"/nonexistent\"\n";  // the command line wins
  start({"--config", path});
  const json hosts = json::parse(run(control("--json hosts")).output)["hosts"];
  ASSERT_EQ(hosts.size(), 2U);
  EXPECT_EQ(hosts[0]["host"], "from-file");
  EXPECT_EQ(hosts[1]["state"], "unreachable");
  EXPECT_EQ(run(control("hosts")).exit_code, 0);
  using Case = std::pair<const char*, const char*>;
  for (const auto& [wrong, remedy] :
       {Case("colour = \"red\"\n", "long options"), Case("insecure = 1\n", "true or false"),
        Case("spin_us = -1\n", "whole number from 0"), Case("listen = [1]\n", "[\"TEXT\""),
        Case("state = 5\n", "\"TEXT\""), Case("a = = b\n", "line 1")}) {
    std::ofstream(path) << wrong;
    const Outcome outcome = run(daemon("--config " + path));
    EXPECT_EQ(outcome.exit_code, 2) << wrong;
    EXPECT_NE(outcome.output.find("migrated.toml"), std::string::npos) << outcome.output;
    EXPECT_NE(outcome.output.find(remedy), std::string::npos) << outcome.output;
  }
}

TEST_F(DaemonTest, RefusesSettingsThatCannotBeMeant) {
  const std::string rest =
      " --listen tcp://127.0.0.1:0 --socket " + socket() + " --state " + state();
  for (const char* wrong :
       {"--allow 20-10@hostA", "--peers ::::", "--advertise tcp://0.0.0.0", "--advertise [::]:7070",
        "--advertise 127.0.0.1:0", "--advertise a:b:c"}) {
    const Outcome outcome = run("timeout 5 " + daemon(wrong + rest));
    EXPECT_TRUE(outcome.exit_code == 1 || outcome.exit_code == 2) << wrong << outcome.output;
    EXPECT_NE(outcome.output.find("; "), std::string::npos) << outcome.output;  // What to write.
  }
}

TEST_F(DaemonTest, ErrorsSayWhatToWrite) {
  start();
  for (const char* pid : {"4194000", "99999999"}) {
    const Outcome missing = run(control(std::string("move ") + pid + " 127.0.0.1"));
    EXPECT_EQ(missing.exit_code, 1);
    EXPECT_NE(missing.output.find("no process of this host has this pid"), std::string::npos)
        << missing.output;
  }
  for (const char* wrong : {"--deadline -1", "--deadline 1e300", "--deadline inf", "--retry -1",
                            "--retry nan", "--bandwidth nan", "--bandwidth 1x"}) {
    const Outcome outcome = run(control(std::string("move 1 hostB ") + wrong));
    EXPECT_EQ(outcome.exit_code, 2) << wrong;
    EXPECT_NE(outcome.output.find("from 0 to 1000000"), std::string::npos) << outcome.output;
    EXPECT_LT(outcome.output.size(), 200U) << outcome.output;
  }
}

}  // namespace
}  // namespace migrate
