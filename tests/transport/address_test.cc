#include "transport/address.h"

#include <gtest/gtest.h>

namespace migrate {
namespace {

struct Case {
  const char* text;
  const char* scheme;
  const char* host;
  int port;
  const char* formatted;
};

TEST(Address, ParsesEveryForm) {
  const Case cases[] = {
      {"tcp://node1:7171", "tcp", "node1", 7171, "tcp://node1:7171"},
      {"node1", "tcp", "node1", 7070, "tcp://node1:7070"},
      {"node-1.cluster.local:1", "tcp", "node-1.cluster.local", 1, "tcp://node-1.cluster.local:1"},
      {"10.0.0.1:0", "tcp", "10.0.0.1", 0, "tcp://10.0.0.1:0"},
      {"[::1]:65535", "tcp", "::1", 65535, "tcp://[::1]:65535"},
      {"[fe80::1%eth0]", "tcp", "fe80::1%eth0", 7070, "tcp://[fe80::1%eth0]:7070"},
      {"2001:db8::7", "tcp", "2001:db8::7", 7070, "tcp://[2001:db8::7]:7070"},
      {"tls://[::]:9", "tls", "::", 9, "tls://[::]:9"},
      {"rdma://node2", "rdma", "node2", 7070, "rdma://node2:7070"},
  };
  for (const Case& c : cases) {
    const auto address = Address::parse(c.text);
    ASSERT_TRUE(address) << address.error().message();
    EXPECT_EQ(address->scheme, c.scheme) << c.text;
    EXPECT_EQ(address->host, c.host) << c.text;
    EXPECT_EQ(address->port, c.port) << c.text;
    EXPECT_EQ(address->to_string(), c.formatted);
    EXPECT_EQ(*Address::parse(address->to_string()), *address);
  }
  EXPECT_EQ(Address::parse("node1", 99)->port, 99);
}

TEST(Address, RefusesWhatIsNoAddress) {
  for (const char* text : {"", ":7070", "host:", "host:x", "host:70000", "host:-1", "host:7070x",
                           "[::1", "[::1]7070", "[node1]:7070", "[]", "ftp://host", "://host",
                           "tcp://", "a b", "host/path", "::1:x", "host:1:2"}) {
    const auto address = Address::parse(text);
    ASSERT_FALSE(address) << text;
    EXPECT_EQ(address.error().code, ErrorCode::kInvalid);
    EXPECT_FALSE(address.error().remedy.empty());
  }
}

TEST(Address, KnowsLoopback) {
  EXPECT_TRUE(*Address::parse("127.0.0.1")->is_loopback());
  EXPECT_TRUE(*Address::parse("127.9.8.7:1")->is_loopback());
  EXPECT_TRUE(*Address::parse("[::1]:1")->is_loopback());
  EXPECT_TRUE(*Address::parse("::ffff:127.0.0.1")->is_loopback());
  EXPECT_TRUE(*Address::parse("localhost")->is_loopback());
  EXPECT_FALSE(*Address::parse("0.0.0.0")->is_loopback());
  EXPECT_FALSE(*Address::parse("10.1.2.3")->is_loopback());
  EXPECT_FALSE(*Address::parse("[::]")->is_loopback());
  EXPECT_FALSE(*Address::parse("::ffff:10.0.0.1")->is_loopback());
}

TEST(Address, ResolvesNumericAddresses) {
  const auto v4 = Address::parse("127.0.0.1:81")->resolve();
  ASSERT_TRUE(v4);
  ASSERT_EQ(v4->size(), 1U);
  EXPECT_EQ(v4->front().to_string(), "127.0.0.1:81");
  EXPECT_EQ(v4->front().port(), 81);
  const auto v6 = Address::parse("[::1]:82")->resolve(true);
  ASSERT_TRUE(v6);
  EXPECT_EQ(v6->front().to_string(), "[::1]:82");
}

TEST(Address, ReportsUnknownHosts) {
  const auto none = Address::parse("no-such-host.invalid")->resolve();
  ASSERT_FALSE(none);
  EXPECT_NE(none.error().message().find("no-such-host.invalid"), std::string::npos);
}

}  // namespace
}  // namespace migrate
