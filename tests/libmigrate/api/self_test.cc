// What a program says of itself in its block, and hears there, against a pretended daemon that
// reads and writes as the real one does.
#include <fcntl.h>
#include <gtest/gtest.h>
#include <libmigrate/migrate.h>
#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

#include <array>
#include <atomic>
#include <functional>
#include <string>
#include <thread>

#include "base/file.h"
#include "libmigrate/program/layout.h"
#include "libmigrate/program/program.h"
#include "libmigrate/requests/json_member.h"
#include "libmigrate/requests/request_json.h"
#include "transport/handoff.h"

namespace {

using migrate::Program;
using migrate::ProgramWish;
using migrate::UniqueFd;
using migrate::UnixKind;
using migrate::UnixListener;
using migrate::program::Block;

constexpr const char* kAccepted = "{\"event\":\"accepted\",\"worker\":17}\n";

ProgramWish wish() {
  return Program::open(getpid()).value().read().value();
}

/// As a page arrives where the process has moved to: by the image that was made of it.
void arrive(std::uint64_t asked) {
  migrate::wire::ProcessImage image;
  ASSERT_TRUE(migrate::note_arrival(getpid(), wish(), asked, image));
  const UniqueFd memory = migrate::open_file("/proc/self/mem", O_RDWR | O_CLOEXEC).value();
  const std::string& page = image.starter_pages(0).content();
  ASSERT_EQ(pwrite(memory.get(), page.data(), page.size(),
                   static_cast<off_t>(image.starter_pages(0).address())),
            static_cast<ssize_t>(page.size()));
}

/// Serves `count` connections, each with what `serve` answers to it.
class PretendedDaemon {
 public:
  using Serve = std::function<void(int client, std::uint64_t token, int number)>;

  PretendedDaemon(int count, Serve serve)
      : path_(testing::TempDir() + "self_test." + std::to_string(getpid())),
        listener_(UnixListener::create(path_, 0600, UnixKind::kStream).value()),
        serve_(std::move(serve)),
        thread_([this, count] { run(count); }) {}
  ~PretendedDaemon() { thread_.join(); }
  PretendedDaemon(const PretendedDaemon&) = delete;
  PretendedDaemon& operator=(const PretendedDaemon&) = delete;

  migrate_options options() const {
    migrate_options made = {};
    made.size = sizeof made;
    made.socket = path_.c_str();
    return made;
  }

 private:
  void run(int count) {
    for (int number = 0; number < count; ++number) {
      const UniqueFd client = listener_.accept(10000).value();
      std::array<char, 4096> buffer = {};
      const ssize_t bytes = read(client.get(), buffer.data(), buffer.size());
      const auto request = migrate::parse_object(
          std::string_view(buffer.data(), bytes > 0 ? static_cast<std::size_t>(bytes) : 0));
      serve_(client.get(), migrate::parse_token(request).value_or(0), number);
    }
  }

  std::string path_;
  UnixListener listener_;
  Serve serve_;
  std::thread thread_;
};

void say(int client, const std::string& text) {
  ASSERT_TRUE(migrate::write_all(client, std::as_bytes(std::span(text))));
}

/// Accepts, and waits until the program has hung up.
void accept(int client) {
  say(client, kAccepted);
  char byte = 0;
  EXPECT_EQ(read(client, &byte, 1), 0);
}

TEST(Self, HearsInItsMemoryWhyNot) {
  PretendedDaemon daemon(1, [](int client, std::uint64_t token, int) {
    EXPECT_EQ(wish().asked, token);
    EXPECT_EQ(wish().holds, 1U);  // While the connection is there.
    accept(client);
    EXPECT_EQ(wish().holds, 0U);
    ASSERT_TRUE(Program::open(getpid()).value().answer(
        token, "{\"event\":\"result\",\"exit\":3,\"refusals\":[{\"code\":\"DEVICE\"}]}"));
  });
  const migrate_options options = daemon.options();
  migrate_result* result = nullptr;
  EXPECT_EQ(migrate_self("hostB", &options, &result), MIGRATE_REFUSED);
  EXPECT_EQ(migrate_result_refusal_count(result), 1U);
  EXPECT_EQ(wish().asked, 0U);
  migrate_result_free(result);
}

TEST(Self, LeavesOutWhatIsTooMuch) {
  PretendedDaemon daemon(1, [](int client, std::uint64_t token, int) {
    accept(client);
    nlohmann::json refusals = nlohmann::json::array();
    for (int i = 0; i < 100; ++i) {
      refusals.push_back({{"code", "DEVICE"}, {"object", std::string(100, 'x')}});
    }
    ASSERT_TRUE(Program::open(getpid()).value().answer(
        token, nlohmann::json{{"exit", 3}, {"refusals", refusals}}.dump()));
  });
  const migrate_options options = daemon.options();
  migrate_result* result = nullptr;
  EXPECT_EQ(migrate_check_self("hostB", &options, &result), MIGRATE_REFUSED);
  double left_out = 0;
  EXPECT_EQ(migrate_result_number(result, "refusals_left_out", &left_out), 0);
  EXPECT_GT(migrate_result_refusal_count(result), 20U);
  EXPECT_EQ(static_cast<double>(migrate_result_refusal_count(result)) + left_out, 100);
  migrate_result_free(result);
}

TEST(Self, HearsByItsMemoryThatItHasMoved) {
  PretendedDaemon daemon(1, [](int client, std::uint64_t token, int) {
    accept(client);
    arrive(token);
  });
  const migrate_options options = daemon.options();
  EXPECT_EQ(migrate_self("hostB", &options, nullptr), MIGRATE_DONE);
  EXPECT_EQ(wish().asked, 0U);
}

TEST(Self, AsksAgainWhereSomebodyElseMovedIt) {
  PretendedDaemon daemon(2, [](int client, std::uint64_t token, int number) {
    accept(client);
    arrive(number == 0 ? 0 : token);
  });
  const migrate_options options = daemon.options();
  EXPECT_EQ(migrate_self("hostB", &options, nullptr), MIGRATE_DONE);
}

TEST(Self, AsksAgainIfItsWorkerIsNoMore) {
  PretendedDaemon daemon(4, [](int client, std::uint64_t token, int number) {
    if (token == 0) {  // It asks who looks after it.
      EXPECT_EQ(wish().holds, 1U);
      say(client, "{\"event\":\"result\",\"exit\":0,\"worker\":18}\n");
      return;
    }
    accept(client);
    if (number == 3) {
      arrive(token);
    }
  });
  const migrate_options options = daemon.options();
  EXPECT_EQ(migrate_self("hostB", &options, nullptr), MIGRATE_DONE);
}

TEST(Self, TakesBackWhatItAskedWhenTheTimeIsOver) {
  PretendedDaemon daemon(1, [](int client, std::uint64_t, int) { accept(client); });
  migrate_options options = daemon.options();
  options.time_limit_seconds = 0.05;
  EXPECT_EQ(migrate_self("hostB", &options, nullptr), MIGRATE_TIMEOUT);
  EXPECT_EQ(wish().asked, 0U);  // By which whoever has it frozen knows.
}

TEST(Self, ErrorsComeByTheConnection) {
  PretendedDaemon daemon(1, [](int client, std::uint64_t, int) {
    say(client, "{\"event\":\"result\",\"exit\":2,\"error\":{\"message\":\"no such host\"}}\n");
  });
  const migrate_options options = daemon.options();
  EXPECT_EQ(migrate_self("hostB", &options, nullptr), MIGRATE_USAGE);
  EXPECT_STREQ(migrate_last_error(), "no such host");
  EXPECT_EQ(wish().asked, 0U);
}

TEST(Hold, IsCounted) {
  EXPECT_EQ(migrate_release(), MIGRATE_USAGE);
  EXPECT_NE(std::string(migrate_last_error()), "");
  EXPECT_EQ(migrate_hold(), MIGRATE_DONE);
  EXPECT_EQ(migrate_hold(), MIGRATE_DONE);
  EXPECT_EQ(wish().holds, 2U);
  const pid_t child = fork();
  if (child == 0) {
    _exit(wish().holds == 0 && migrate_release() == MIGRATE_USAGE ? 0 : 1);
  }
  int status = -1;
  ASSERT_EQ(waitpid(child, &status, 0), child);
  EXPECT_EQ(status, 0);
  EXPECT_EQ(migrate_release(), MIGRATE_DONE);
  EXPECT_EQ(migrate_release(), MIGRATE_DONE);
  EXPECT_EQ(wish().holds, 0U);
}

TEST(Point, IsNothingWhereNobodyWaits) {
  EXPECT_EQ(migrate_point(), 0);
  EXPECT_EQ(wish().at_point, 0U);
}

TEST(Point, WaitsUntilItHasMoved) {
  EXPECT_EQ(migrate_point(), 0);
  const Program program = Program::open(getpid()).value();
  ASSERT_TRUE(program.ask_for_point(4711));
  std::thread mover([&program] {
    while (program.read().value().at_point != 4711) {
      std::this_thread::yield();
    }
    EXPECT_EQ(migrate_point(), 0);  // Of another thread: one waits, the others go on.
    arrive(0);
  });
  EXPECT_EQ(migrate_point(), 1);
  mover.join();
  EXPECT_EQ(migrate_point(), 0);
  EXPECT_EQ(wish().at_point, 0U);
}

TEST(Point, TellsWhyNot) {
  EXPECT_EQ(migrate_point(), 0);
  const Program program = Program::open(getpid()).value();
  ASSERT_TRUE(program.ask_for_point(4712));
  std::thread mover([&program] {
    while (program.read().value().at_point != 4712) {
      std::this_thread::yield();
    }
    ASSERT_TRUE(program.answer(4712, "{\"exit\":4,\"error\":{\"message\":\"no way\"}}"));
  });
  EXPECT_EQ(migrate_point(), 0);
  mover.join();
  EXPECT_STREQ(migrate_last_error(), "no way");
  EXPECT_EQ(wish().point, 0U);
}

TEST(Block, OfAFrozenProcessIsItsOwn) {
  EXPECT_EQ(migrate_hold(), MIGRATE_DONE);
  const std::uint64_t address = wish().address;
  migrate::wire::ProcessImage image;
  image.set_process_id(static_cast<std::uint32_t>(getpid()));
  EXPECT_FALSE(migrate::wish_of_frozen(getpid(), image));  // Nothing is mapped there.
  migrate::wire::Mapping& mapping = *image.add_mappings();
  mapping.set_start(address);
  mapping.set_end(address + migrate::program::kBlockBytes);
  const auto found = migrate::wish_of_frozen(getpid(), image);
  ASSERT_TRUE(found);
  EXPECT_EQ(found->holds, 1U);
  mapping.set_kind(migrate::wire::Mapping::SHARED_FILE);
  EXPECT_FALSE(migrate::wish_of_frozen(getpid(), image));
  mapping.set_kind(migrate::wire::Mapping::ANONYMOUS);
  image.set_process_id(image.process_id() + 1);  // As in a child: what it says is its parent's.
  EXPECT_FALSE(migrate::wish_of_frozen(getpid(), image));
  EXPECT_EQ(migrate_release(), MIGRATE_DONE);
}

TEST(Block, ArrivesWithNothingAskedThatHasComeTrue) {
  EXPECT_EQ(migrate_hold(), MIGRATE_DONE);
  EXPECT_EQ(migrate_release(), MIGRATE_DONE);
  const migrate::ProgramWish now = wish();
  migrate::wire::ProcessImage image;
  ASSERT_TRUE(migrate::note_arrival(getpid(), now, 0, image));
  ASSERT_TRUE(migrate::note_arrival(getpid(), now, 0, image));  // The page is there already.
  ASSERT_EQ(image.starter_pages_size(), 1);
  EXPECT_EQ(image.starter_pages(0).address(), now.address);
  EXPECT_EQ(image.starter_pages(0).content().size(), migrate::program::kBlockBytes);
}

TEST(Block, IsNotFoundInAProgramWithoutTheLibrary) {
  const pid_t child = fork();
  if (child == 0) {
    execl("/bin/sleep", "sleep", "30", nullptr);
    _exit(1);
  }
  while (migrate::read_file("/proc/" + std::to_string(child) + "/comm").value_or("") != "sleep\n") {
    std::this_thread::yield();
  }
  EXPECT_EQ(Program::open(child).error().code, migrate::ErrorCode::kNotFound);
  kill(child, SIGKILL);
  waitpid(child, nullptr, 0);
}

TEST(Block, IsNotReadInAnotherProgramThatTheProcessBecomes) {
  EXPECT_EQ(migrate_hold(), MIGRATE_DONE);
  std::array<int, 2> ready = {};
  std::array<int, 2> go = {};
  ASSERT_EQ(pipe2(ready.data(), O_CLOEXEC), 0);
  ASSERT_EQ(pipe2(go.data(), O_CLOEXEC), 0);
  const pid_t child = fork();
  if (child == 0) {
    char byte = static_cast<char>(migrate_hold());
    (void)!write(ready[1], &byte, 1);
    (void)!read(go[0], &byte, 1);
    execl("/bin/sleep", "sleep", "30", nullptr);
    _exit(1);
  }
  char byte = 1;
  ASSERT_EQ(read(ready[0], &byte, 1), 1);
  const Program program = Program::open(child).value();
  EXPECT_EQ(program.read().value().holds, 1U);
  ASSERT_EQ(write(go[1], &byte, 1), 1);
  while (migrate::read_file("/proc/" + std::to_string(child) + "/comm").value_or("") != "sleep\n") {
    std::this_thread::yield();
  }
  EXPECT_EQ(program.read().error().code, migrate::ErrorCode::kNotFound);
  EXPECT_FALSE(program.ask_for_point(1));
  kill(child, SIGKILL);
  waitpid(child, nullptr, 0);
  EXPECT_EQ(migrate_release(), MIGRATE_DONE);
}

}  // namespace
