// Functions that run elsewhere, with a daemon that only says so: the child is told that it was
// moved, by the words that a move leaves in its block. Real moves are in tests/system/api_test.py.
#include <fcntl.h>
#include <gtest/gtest.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/uio.h>
#include <sys/wait.h>
#include <unistd.h>

#include <array>
#include <atomic>
#include <cerrno>
#include <chrono>
#include <csignal>
#include <cstddef>
#include <libmigrate/migrate.hpp>
#include <stdexcept>
#include <string>
#include <system_error>
#include <thread>
#include <vector>

#include "base/file.h"
#include "libmigrate/program/layout.h"
#include "transport/handoff.h"

namespace {

using namespace std::chrono_literals;

/// Serves children, each in the way that `refusal` says: empty, it is "moved".
class PretendedDaemon {
 public:
  explicit PretendedDaemon(std::string refusal = {})
      : path_(testing::TempDir() + "task_test." + std::to_string(getpid())),
        refusal_(std::move(refusal)),
        listener_(migrate::UnixListener::create(path_, 0600, migrate::UnixKind::kStream).value()),
        thread_([this] { serve(); }) {}
  ~PretendedDaemon() {
    ends_ = true;
    thread_.join();
  }
  PretendedDaemon(const PretendedDaemon&) = delete;
  PretendedDaemon& operator=(const PretendedDaemon&) = delete;

  migrate::options options() const { return {.socket = path_}; }
  std::string asked() const { return asked_; }  ///< By the last one, once it has an answer.
  int moved() const { return moved_; }

 private:
  void serve() {
    sigset_t pipe;  // A child may be killed before it has its answer.
    sigemptyset(&pipe);
    sigaddset(&pipe, SIGPIPE);
    pthread_sigmask(SIG_BLOCK, &pipe, nullptr);
    while (!ends_) {
      if (auto client = listener_.accept(20)) {
        serve_one(*client);
      }
    }
  }

  void serve_one(const migrate::UniqueFd& client) {
    std::array<char, 4096> buffer = {};
    const ssize_t count = read(client.get(), buffer.data(), buffer.size());
    asked_.assign(buffer.data(), count > 0 ? static_cast<std::size_t>(count) : 0);
    const std::string answer =
        refusal_.empty() ? "{\"event\":\"accepted\",\"worker\":1}\n" : refusal_ + "\n";
    (void)migrate::write_all(client.get(), std::as_bytes(std::span(answer)));
    if (refusal_.empty()) {
      ucred peer = {};
      socklen_t size = sizeof peer;
      ASSERT_EQ(getsockopt(client.get(), SOL_SOCKET, SO_PEERCRED, &peer, &size), 0);
      tell_moved(peer.pid);
      ++moved_;
    }
  }

  static void tell_moved(pid_t pid) {
    std::uint64_t nothing = 0;
    const auto asked =
        migrate::program::kBlockAddresses[0] + offsetof(migrate::program::Block, asked);
    iovec from = {&nothing, sizeof nothing};
    iovec to = {reinterpret_cast<void*>(asked), sizeof nothing};
    (void)process_vm_writev(pid, &from, 1, &to, 1, 0);  // It may have been killed, too.
  }

  const std::string path_;
  const std::string refusal_;
  migrate::UnixListener listener_;
  std::string asked_;
  std::atomic<int> moved_ = 0;
  std::atomic<bool> ends_ = false;
  std::thread thread_;
};

constexpr const char* kRefusal =
    "{\"event\":\"result\",\"exit\":3,\"refusals\":[{\"code\":\"DEVICE\",\"remedy\":\"close "
    "it\"}]}";

bool has_children() {
  return waitpid(-1, nullptr, WNOHANG) != -1 || errno != ECHILD;
}

struct Point {
  int x;
  double y;
  bool operator==(const Point&) const = default;
};

TEST(Task, ValuesComeHome) {
  const PretendedDaemon daemon;
  const auto at = [&](auto function) {
    return migrate::async("hostB", function, daemon.options()).get();
  };
  EXPECT_EQ(at([] { return 42; }), 42);
  EXPECT_EQ(at([] { return std::string(300'000, 'x'); }), std::string(300'000, 'x'));
  EXPECT_EQ(at([] { return std::string(); }), "");
  EXPECT_EQ(at([] { return std::vector<double>{1, 2.5}; }), (std::vector<double>{1, 2.5}));
  EXPECT_EQ(at([] {
              return std::vector<std::string>{"a", "", "b\n"};
            }),
            (std::vector<std::string>{"a", "", "b\n"}));
  EXPECT_EQ(at([] { return std::vector<bool>{true, false}; }), (std::vector<bool>{true, false}));
  EXPECT_EQ(at([] { return Point{1, 2}; }), (Point{1, 2}));
  EXPECT_EQ(at([] {
              return std::vector<Point>{{1, 2}, {3, 4}};
            }),
            (std::vector<Point>{{1, 2}, {3, 4}}));
  EXPECT_EQ(at([] { return std::pair(std::string("a"), 7); }), std::pair(std::string("a"), 7));
  EXPECT_EQ(at([] { return std::optional<std::string>(); }), std::nullopt);
  at([] {});
  EXPECT_EQ(daemon.moved(), 11);
  EXPECT_FALSE(has_children());
}

struct Matrix {  // Not to be copied as bytes.
  std::vector<std::string> rows;
  Matrix() = default;
  Matrix(const Matrix&) = default;
  Matrix& operator=(const Matrix&) = default;
};

}  // namespace

template <>
struct migrate::codec<Matrix> {
  static void write(encoder& to, const Matrix& value) {
    codec<std::vector<std::string>>::write(to, value.rows);
  }
  static Matrix read(decoder& from) {
    Matrix value;
    value.rows = codec<std::vector<std::string>>::read(from);
    return value;
  }
};

namespace {

TEST(Task, TypesSayHowTheyTravel) {
  const PretendedDaemon daemon;
  const Matrix came = migrate::async(
                          "hostB",
                          [] {
                            Matrix made;
                            made.rows = {"a", "b"};
                            return made;
                          },
                          daemon.options())
                          .get();
  EXPECT_EQ(came.rows, (std::vector<std::string>{"a", "b"}));
}

struct Diverged : std::runtime_error {
  using std::runtime_error::runtime_error;
};

/// What the caller sees of what `function` throws.
template <class Exception, class Function>
Exception thrown_by(Function function) {
  const PretendedDaemon daemon;
  auto task = migrate::async("hostB", function, daemon.options());
  try {
    task.get();
  } catch (const Exception& caught) {
    EXPECT_EQ(typeid(caught), typeid(Exception));
    EXPECT_FALSE(task.valid());
    return caught;
  }
  throw std::logic_error("nothing was thrown");
}

TEST(Task, ExceptionsComeHome) {
  const auto range = thrown_by<std::out_of_range>([] { throw std::out_of_range("too far"); });
  EXPECT_STREQ(range.what(), "too far");
  thrown_by<std::bad_alloc>([] { throw std::bad_alloc(); });
  const auto system = thrown_by<std::system_error>(
      [] { throw std::system_error(ENOENT, std::generic_category(), "open"); });
  EXPECT_EQ(system.code(), std::errc::no_such_file_or_directory);
  EXPECT_STREQ(system.what(), std::system_error(system.code(), "open").what());
  const auto bare = thrown_by<std::system_error>(
      [] { throw std::system_error(std::make_error_code(std::errc::io_error)); });
  EXPECT_STREQ(bare.what(), std::system_error(bare.code()).what());
  const auto own = thrown_by<migrate::remote_error>([] { throw Diverged("after 7 steps"); });
  EXPECT_STREQ(own.what(), "after 7 steps");
  EXPECT_NE(own.type().find("Diverged"), std::string::npos);
  const auto number = thrown_by<migrate::remote_error>([] { throw 7; });
  EXPECT_EQ(number.type(), "int");
}

TEST(Task, WhatIsRefusedIsNotCalled) {
  const PretendedDaemon daemon(kRefusal);
  std::array<int, 2> ends = {};
  ASSERT_EQ(pipe(ends.data()), 0);
  auto task = migrate::async(
      "hostB", [&] { (void)!write(STDOUT_FILENO, "called", 6); }, daemon.options());
  try {
    task.get();
    FAIL() << "it throws";
  } catch (const migrate::error& error) {
    EXPECT_EQ(error.status(), MIGRATE_REFUSED);
    ASSERT_EQ(error.refusals().size(), 1U);
    EXPECT_EQ(error.refusals()[0].code, "DEVICE");
  }
  EXPECT_FALSE(has_children());
  close(ends[0]);
  close(ends[1]);
}

TEST(Task, WithoutADaemonItIsAnError) {
  auto task = migrate::async("hostB", [] { return 1; }, {.socket = "/no/such/socket"});
  try {
    task.get();
    FAIL() << "it throws";
  } catch (const migrate::error& error) {
    EXPECT_EQ(error.status(), MIGRATE_ERROR);
    EXPECT_NE(std::string(error.what()).find("/no/such/socket"), std::string::npos);
  }
}

TEST(Task, WhatIsWrongIsToldAtOnce) {
  EXPECT_THROW(migrate::async("", [] {}), migrate::error);
  EXPECT_THROW(migrate::async("hostB", [] {}, {.mode = "hasty"}), migrate::error);
  migrate_task* task = nullptr;
  EXPECT_EQ(migrate_spawn("hostB", nullptr, nullptr, nullptr, &task, nullptr), MIGRATE_USAGE);
  EXPECT_EQ(task, nullptr);
  EXPECT_EQ(migrate_task_wait(nullptr, 0, nullptr), MIGRATE_USAGE);
  std::size_t index = 0;
  EXPECT_EQ(migrate_task_wait_any(nullptr, 0, 0, &index), MIGRATE_USAGE);
  EXPECT_EQ(migrate_task_output(nullptr, &index), nullptr);
  migrate_task_free(nullptr);
}

TEST(Task, AChildThatEndsEarlyIsLost) {
  const PretendedDaemon daemon;
  const auto status_of = [&](auto function) {
    auto task = migrate::async("hostB", function, daemon.options());
    try {
      task.get();
    } catch (const migrate::error& error) {
      EXPECT_EQ(error.status(), MIGRATE_LOST);
      return std::string(error.what());
    }
    return std::string("it has returned");
  };
  EXPECT_NE(status_of([] { raise(SIGKILL); }).find("by signal 9"), std::string::npos);
  EXPECT_NE(status_of([] { _exit(7); }).find("exit status 7"), std::string::npos);
  EXPECT_NE(status_of([] {
              rlimit none{};
              setrlimit(RLIMIT_CORE, &none);
              std::terminate();
            }).find("by signal 6"),
            std::string::npos);
  EXPECT_FALSE(has_children());
}

TEST(Task, ItsEndKillsTheChild) {
  const PretendedDaemon daemon;
  pid_t child = 0;
  {
    auto task = migrate::async(
        "hostB", [] { pause(); }, daemon.options());
    EXPECT_FALSE(task.wait_for(0s));
    EXPECT_FALSE(task.wait_for(20ms));
    child = task.pid();
    EXPECT_EQ(kill(child, 0), 0);
  }
  EXPECT_EQ(kill(child, 0), -1);
  EXPECT_FALSE(has_children());
}

TEST(Task, AChildOfTheProgramOnlyForgetsIt) {
  const PretendedDaemon daemon;
  auto task = migrate::async(
      "hostB", [] { pause(); }, daemon.options());
  while (daemon.moved() == 0) {
    usleep(1000);
  }
  const pid_t copy = fork();
  if (copy == 0) {
    EXPECT_EQ(migrate_task_wait(task.handle(), 0, nullptr), MIGRATE_USAGE);
    { const auto own = std::move(task); }
    _exit(0);
  }
  waitpid(copy, nullptr, 0);
  EXPECT_EQ(kill(task.pid(), 0), 0);
}

TEST(Task, SomebodyElseMayWaitForTheChild) {
  const PretendedDaemon daemon;
  auto task = migrate::async(
      "hostB", [] { return 5; }, daemon.options());
  EXPECT_EQ(waitpid(task.pid(), nullptr, 0), task.pid());
  EXPECT_EQ(task.get(), 5);
  (void)std::signal(SIGCHLD, SIG_IGN);
  EXPECT_EQ(migrate::async(
                "hostB", [] { return 6; }, daemon.options())
                .get(),
            6);
  (void)std::signal(SIGCHLD, SIG_DFL);
}

TEST(Task, TheCopyHasFewDescriptorsAndNoHooks) {
  const PretendedDaemon daemon;
  int called = 0;
  const migrate::hooks hooks(
      [&called]() -> migrate::hooks::reason {
        ++called;
        return "no";
      },
      {}, {});
  const auto descriptors = migrate::async(
      "hostB",
      [] {
        std::vector<int> open;
        for (int each = 0; each < 100; ++each) {
          if (fcntl(each, F_GETFD) >= 0) {
            open.push_back(each);
          }
        }
        return open;
      },
      daemon.options());
  auto& task = const_cast<std::remove_const_t<decltype(descriptors)>&>(descriptors);
  EXPECT_LE(task.get().size(), 4U);
  EXPECT_EQ(called, 0);
}

TEST(Task, PagesFollowAsTheyAreTouchedAndFilesThatAreNotThere) {
  const PretendedDaemon daemon;
  migrate::async(
      "hostB", [] {}, daemon.options())
      .get();
  EXPECT_NE(daemon.asked().find("\"mode\":\"demand\""), std::string::npos);
  EXPECT_NE(daemon.asked().find("\"ships_unknown\":true"), std::string::npos);
  EXPECT_NE(daemon.asked().find("\"destination\":\"hostB\""), std::string::npos);
}

TEST(Map, ValuesAreInTheOrderOfTheElements) {
  const PretendedDaemon daemon;
  std::vector<int> numbers(20);
  for (int i = 0; i < 20; ++i) {
    numbers[static_cast<std::size_t>(i)] = i;
  }
  const auto squares = migrate::map({"hostB", "hostC"}, numbers,
                                    [](int each) {
                                      usleep(static_cast<useconds_t>(1000 * (each % 3)));
                                      return each * each;
                                    },
                                    {.each = daemon.options(), .at_once = 5});
  ASSERT_EQ(squares.size(), 20U);
  for (int i = 0; i < 20; ++i) {
    EXPECT_EQ(squares[static_cast<std::size_t>(i)], i * i);
  }
  EXPECT_FALSE(has_children());
}

TEST(Map, AnExceptionEndsTheOthers) {
  const PretendedDaemon daemon;
  const std::vector<int> numbers{0, 1, 2};
  EXPECT_THROW(migrate::map({"hostB"}, numbers,
                            [](int each) {
                              if (each == 1) {
                                throw std::domain_error("no root");
                              }
                              pause();
                            },
                            {.each = daemon.options(), .at_once = 3}),
               std::domain_error);
  EXPECT_FALSE(has_children());
}

TEST(Map, NothingIsNothing) {
  EXPECT_TRUE(migrate::map({"hostB"}, std::vector<int>(), [](int each) { return each; }).empty());
  EXPECT_THROW(migrate::map({}, std::vector<int>{1}, [](int each) { return each; }),
               std::invalid_argument);
}

}  // namespace
