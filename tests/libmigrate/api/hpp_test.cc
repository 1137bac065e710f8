// The C++ interface: values, exceptions and scopes over the C functions, which have tests of their
// own.
#include <gtest/gtest.h>
#include <unistd.h>

#include <array>
#include <libmigrate/migrate.hpp>
#include <stdexcept>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "base/file.h"
#include "libmigrate/program/program.h"
#include "transport/handoff.h"

namespace {

/// Serves one connection with an answer.
class PretendedDaemon {
 public:
  explicit PretendedDaemon(std::string answer)
      : path_(testing::TempDir() + "hpp_test." + std::to_string(getpid())),
        listener_(migrate::UnixListener::create(path_, 0600, migrate::UnixKind::kStream).value()),
        thread_([this, text = std::move(answer)] {
          const migrate::UniqueFd client = listener_.accept(5000).value();
          std::array<char, 4096> buffer = {};
          EXPECT_GT(read(client.get(), buffer.data(), buffer.size()), 0);
          (void)migrate::write_all(client.get(), std::as_bytes(std::span(text)));
        }) {}
  ~PretendedDaemon() { thread_.join(); }
  PretendedDaemon(const PretendedDaemon&) = delete;
  PretendedDaemon& operator=(const PretendedDaemon&) = delete;

  migrate::options options() const { return {.socket = path_}; }

 private:
  std::string path_;
  migrate::UnixListener listener_;
  std::thread thread_;
};

TEST(Cpp, ErrorsHaveStatusAndRefusals) {
  const PretendedDaemon daemon(
      "{\"event\":\"result\",\"exit\":3,\"refusals\":[{\"code\":\"DEVICE\",\"remedy\":\"close "
      "it\"}]}\n");
  try {
    migrate::move_process(17, "hostB", daemon.options());
    FAIL() << "it throws";
  } catch (const migrate::error& error) {
    EXPECT_EQ(error.status(), MIGRATE_REFUSED);
    ASSERT_EQ(error.refusals().size(), 1U);
    EXPECT_EQ(error.refusals()[0].code, "DEVICE");
    EXPECT_NE(std::string(error.what()).find("close it"), std::string::npos);
  }
}

TEST(Cpp, ResultsAreValues) {
  const PretendedDaemon daemon("{\"event\":\"result\",\"exit\":0,\"freeze_us\":300}\n");
  const migrate::result moved = migrate::try_move_process(17, "hostB", daemon.options());
  EXPECT_TRUE(moved);
  EXPECT_EQ(moved.number("freeze_us"), 300);
  EXPECT_FALSE(moved.number("destination"));
  EXPECT_TRUE(moved.refusals().empty());
}

TEST(Cpp, TellsWhereTheCallerIs) {
  const PretendedDaemon daemon(
      "{\"event\":\"result\",\"exit\":0,\"host\":\"b\",\"home\":\"a\",\"moves\":2,\"identity\":\"a/"
      "1/2\"}\n");
  const migrate::place place = migrate::here(daemon.options());
  EXPECT_EQ(place.host, "b");
  EXPECT_EQ(place.moves, 2U);
  EXPECT_EQ(place.identity, (migrate::identity{"a", 1, 2}));
}

TEST(Cpp, ListsProcesses) {
  const PretendedDaemon daemon(
      "{\"event\":\"result\",\"exit\":0,\"processes\":[{\"process\":\"ab\",\"pid\":17,\"owed_"
      "pages\":null},"
      "{\"process\":\"cd\",\"owed_pages\":4,\"exit_status\":9}]}\n");
  const std::vector<migrate::process> found = migrate::list(true, daemon.options());
  ASSERT_EQ(found.size(), 2U);
  EXPECT_EQ(found[0].pid, 17);
  EXPECT_FALSE(found[0].owed_pages);
  EXPECT_FALSE(found[0].exit_status);
  EXPECT_EQ(found[1].owed_pages, 4U);
  EXPECT_EQ(found[1].exit_status, 9);
}

TEST(Cpp, WhatAProgressFunctionThrowsComesWhenTheCallIsOver) {
  const PretendedDaemon daemon(
      "{\"event\":\"phase\",\"phase\":\"offer\"}\n{\"event\":\"phase\",\"phase\":\"freeze\"}\n"
      "{\"event\":\"result\",\"exit\":0}\n");
  migrate::options options = daemon.options();
  std::vector<std::string> heard;
  options.progress = [&heard](const migrate_progress& progress) {
    heard.emplace_back(progress.phase);
    throw std::length_error("enough");
  };
  EXPECT_THROW(migrate::try_move_process(17, "hostB", options), std::length_error);
  EXPECT_EQ(heard, std::vector<std::string>{"offer"});
}

TEST(Cpp, WatchTellsWhereAProcessIs) {
  const std::string seen_at_b =
      R"({"event":"process","identity":"a/1/2","state":"done","where":"b"})"
      "\n";
  {
    const PretendedDaemon daemon(seen_at_b +
                                 "{\"event\":\"result\",\"exit\":0,\"exit_status\":9}\n");
    std::vector<std::string> seen;
    const migrate::result ended = migrate::try_watch(
        "a/1/2",
        [&](const migrate::sighting& each) {
          seen.push_back(each.identity + " " + each.state + " " + each.where);
          return true;
        },
        daemon.options());
    EXPECT_EQ(seen, std::vector<std::string>{"a/1/2 done b"});
    EXPECT_EQ(ended.number("exit_status").value_or(0), 9);
  }
  {
    const PretendedDaemon daemon(seen_at_b);
    EXPECT_THROW(
        migrate::try_watch(
            "a/1/2", [](const migrate::sighting&) -> bool { throw std::length_error("enough"); },
            daemon.options()),
        std::length_error);
  }
  const PretendedDaemon daemon(
      R"({"event":"result","exit":3,"error":{"code":"refused","message":"not yours"}})"
      "\n");
  EXPECT_THROW(migrate::send_signal("a/1/2", 15, daemon.options()), migrate::error);
}

TEST(Cpp, AHoldIsAScope) {
  const auto holds = [] { return migrate::Program::open(getpid()).value().read().value().holds; };
  {
    const migrate::hold outer;
    const migrate::hold inner;
    EXPECT_EQ(holds(), 2U);
  }
  EXPECT_EQ(holds(), 0U);
  EXPECT_FALSE(migrate::point());
}

}  // namespace
