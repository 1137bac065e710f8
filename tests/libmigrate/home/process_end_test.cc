#include "libmigrate/home/process_end.h"

#include <gtest/gtest.h>
#include <signal.h>
#include <sys/socket.h>

#include <array>

#include "tests/libmigrate/home/home_world.h"

namespace migrate::home_testing {
namespace {

json told(const ProcessEnd& end) {
  std::array<int, 2> ends{};
  EXPECT_EQ(::socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, ends.data()), 0);
  Client client{UniqueFd(ends[1])};
  EventSink sink{UniqueFd(ends[0])};
  tell_end(sink, {{"id", "11"}}, end);
  EXPECT_FALSE(sink.open());
  return client.results().at(0);
}

TEST(ProcessEnd, IsWhatThePlaceTells) {
  wire::RelayExited exited;
  exited.set_wait_status(SIGSEGV);
  exited.set_keep_streams(true);
  exited.set_core_lacks_pages(3);
  exited.set_core_file("core.1");
  const ProcessEnd end = ProcessEnd::from(exited);
  EXPECT_EQ(end.wait_status, SIGSEGV);
  EXPECT_TRUE(end.left_children);
  EXPECT_TRUE(end.lost.empty());
  EXPECT_TRUE(end.is_remarkable());
  json result;
  add_end(result, end);
  EXPECT_EQ(result, (json{{"core_lacks_pages", 3}, {"core_file", "core.1"}}));
}

TEST(ProcessEnd, OneLikeAnyOtherIsNotRemarkable) {
  const ProcessEnd end = ProcessEnd::from({});
  EXPECT_FALSE(end.is_remarkable());
  json result = {{"id", "11"}};
  add_end(result, end);
  EXPECT_EQ(result, (json{{"id", "11"}}));
}

TEST(ProcessEnd, IsToldWithTheResultOfTheMove) {
  ProcessEnd end;
  end.wait_status = 2 << 8;
  const json result = told(end);
  EXPECT_EQ(result["exit"], MIGRATE_DONE);
  EXPECT_EQ(result["id"], "11");
  EXPECT_EQ(result["state"], "exited");
  EXPECT_EQ(result["exit_status"], 2 << 8);
  EXPECT_FALSE(result.contains("error"));
}

TEST(ProcessEnd, OfOneThatWasLostIsToldAsAnError) {
  ProcessEnd end;
  end.wait_status = SIGKILL;
  end.lost = "its host has burnt";
  const json result = told(end);
  EXPECT_EQ(result["exit"], MIGRATE_LOST);
  EXPECT_EQ(result["error"]["message"], "the process was lost: its host has burnt");
}

TEST(ProcessEnd, IsToldToNobodyWhoHasHungUp) {
  EventSink nobody;
  tell_end(nobody, {}, {});
  EXPECT_FALSE(nobody.open());
}

}  // namespace
}  // namespace migrate::home_testing
