// The table of transports of pages, and the contract of channels over each that has a port here.
#include <algorithm>
#include <future>
#include <set>

#include "tests/transport/channel_contract.h"
#include "transport/page_transport.h"

namespace migrate::test {
namespace {

constexpr SessionId kSession = {std::byte{1}};
constexpr PageToken kToken = {std::byte{2}};

std::vector<std::string> words() {
  std::vector<std::string> words;
  for (const PageTransport* const each : page_transports()) {
    words.emplace_back(each->word);
  }
  return words;
}

/// An address of this host by which `transport` goes; empty: it goes by none.
std::string address_for(const PageTransport& transport) {
  for (const PagePort& port : transport.ports().value_or(std::vector<PagePort>())) {
    for (const std::string& address : port.addresses) {
      if (port.state == "active" && transport.problem(address).empty()) {
        return address;
      }
    }
  }
  return {};
}

std::string why_skipped(const std::string& word) {
  const PageTransport& transport = *find_page_transport(word);
  return address_for(transport).empty() ? std::string("no port here has ") + transport.name : "";
}

ChannelPair make_pair_by(const std::string& word) {
  const PageTransport& transport = *find_page_transport(word);
  const std::string host = address_for(transport);
  auto listener = transport.listen(host, kSession, kToken);
  EXPECT_TRUE(listener) << listener.error().message();
  if (!listener) {
    return {};
  }
  const Address address{.scheme = word, .host = host, .port = (*listener)->port()};
  auto connecting = std::async(std::launch::async, [&] {
    return transport.connect(address, {Purpose::kUrgent, kSession, kToken}, "", kPageConnectMs);
  });
  auto accepted = (*listener)->accept(kPageConnectMs);
  auto connected = connecting.get();
  EXPECT_TRUE(accepted) << accepted.error().message();
  EXPECT_TRUE(connected) << connected.error().message();
  if (!accepted || !connected) {
    return {};
  }
  EXPECT_EQ(accepted->purpose, Purpose::kUrgent);
  return {std::move(*connected), std::move(accepted->channel)};
}

std::vector<ChannelKind> kinds() {
  std::vector<ChannelKind> kinds;
  for (const std::string& word : words()) {
    kinds.push_back(
        {word, [word] { return make_pair_by(word); }, [word] { return why_skipped(word); }});
  }
  return kinds;
}

INSTANTIATE_TEST_SUITE_P(PageTransports, ChannelContract, testing::ValuesIn(kinds()), kind_name);

// By its word a transport is asked for, and addressed.
TEST(PageTransports, AreFoundByTheirWords) {
  for (const PageTransport* const each : page_transports()) {
    EXPECT_EQ(find_page_transport(each->word), each);
    const auto address = Address::parse(std::string(each->word) + "://node2:9");
    ASSERT_TRUE(address) << address.error().message();
    EXPECT_EQ(address->scheme, each->word);
  }
  EXPECT_EQ(find_page_transport("tcp"), nullptr) << "that is the daemons' own";
  EXPECT_EQ(find_page_transport("pigeon"), nullptr);
}

TEST(PageTransports, HaveWordsOfTheirOwn) {
  std::vector<std::string> all = words();
  for (const char* const taken : {"tcp", "tls", "auto"}) {
    all.emplace_back(taken);
  }
  EXPECT_EQ(std::set<std::string>(all.begin(), all.end()).size(), all.size());
}

TEST(PageTransports, AreNamedWhereASchemeIsNone) {
  const Error error = Address::parse("pigeon://node2").error();
  for (const std::string& word : words()) {
    EXPECT_NE(error.message().find(word + "://"), std::string::npos) << error.message();
  }
}

// Whoever asks a build for what it does not have is told so, not crashed.
TEST(PageTransports, SayWhatIsMissing) {
  for (const PageTransport* const each : page_transports()) {
    if (each->missing == nullptr) {
      continue;
    }
    const Address address{.scheme = each->word, .host = "192.0.2.1"};
    EXPECT_EQ(each->check(address).error().code, ErrorCode::kUnsupported);
    EXPECT_EQ(each->ports().error().code, ErrorCode::kUnsupported);
    EXPECT_EQ(each->listen(address.host, kSession, kToken).error().code, ErrorCode::kUnsupported);
    EXPECT_EQ(each->connect(address, {}, "", 10).error().code, ErrorCode::kUnsupported);
    EXPECT_NE(each->problem(address.host).find(each->missing), std::string::npos);
  }
}

}  // namespace
}  // namespace migrate::test
