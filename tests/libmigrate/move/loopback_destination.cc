#include "tests/libmigrate/move/loopback_destination.h"

#include <gtest/gtest.h>
#include <poll.h>
#include <sys/socket.h>

#include <algorithm>
#include <array>
#include <utility>

#include "tests/libmigrate/move/stand_ins.h"
#include "transport/peer_trust.h"
#include "transport/proof.h"

namespace migrate::handover_testing {
namespace {

constexpr int kTurnMs = 5;
constexpr int kPatienceMs = 2000;

Preamble read_preamble(int fd) {
  std::array<std::byte, kPreambleBytes> bytes{};
  std::size_t count = 0;
  while (count < bytes.size()) {
    pollfd polled{fd, POLLIN, 0};
    ::poll(&polled, 1, kPatienceMs);
    const ssize_t got = ::recv(fd, bytes.data() + count, bytes.size() - count, 0);
    if (got <= 0) {
      ADD_FAILURE() << "no preamble came";
      return {};
    }
    count += static_cast<std::size_t>(got);
  }
  return decode_preamble(bytes).value();
}

}  // namespace

LoopbackDestination::LoopbackDestination()
    : listener_(TcpListener::create({.scheme = "tcp", .host = "127.0.0.1", .port = 0}).value()) {
  answer(Body::kOffer, {offer_reply()});
  answer(Body::kFinal, {restored()});
  answer(Body::kRun, {running()});
}

void LoopbackDestination::start() {
  thread_ = std::thread([this] { serve(); });
}

void LoopbackDestination::stop() {
  stopping_ = true;
  if (thread_.joinable()) {
    thread_.join();
  }
  control_.reset();
  pages_.clear();
}

void LoopbackDestination::say(const Message& message) {
  const std::scoped_lock lock(mutex_);
  if (control_) {
    EXPECT_TRUE(control_->send(message));
  } else {
    ADD_FAILURE() << "no source is there to be told";
  }
}

std::vector<LoopbackDestination::Body> LoopbackDestination::heard() const {
  const std::scoped_lock lock(mutex_);
  return heard_;
}

bool LoopbackDestination::has_heard(Body body) const {
  const std::vector<Body> all = heard();
  return std::find(all.begin(), all.end(), body) != all.end();
}

void LoopbackDestination::serve() {
  while (!stopping_) {
    std::array<pollfd, 2> polled{{{listener_.fd(), POLLIN, 0}, {-1, POLLIN, 0}}};
    if (control_) {
      polled[1].fd = control_->channel().poll_fd();
    }
    ::poll(polled.data(), polled.size(), kTurnMs);
    if (polled[0].revents != 0) {
      let_in();
    }
    hear();
  }
}

void LoopbackDestination::let_in() {
  auto accepted = listener_.accept(kPatienceMs);
  ASSERT_TRUE(accepted);
  const Preamble preamble = read_preamble(accepted->fd.get());
  auto peer = PeerTrust().accept(std::move(accepted->fd), preamble, kPatienceMs);
  ASSERT_TRUE(peer) << peer.error().message();
  if (preamble.purpose != Purpose::kOffer) {
    const auto proved = ask_proof(*peer->channel, token_, preamble, kPatienceMs);
    ASSERT_TRUE(proved) << proved.error().message();
  }
  const std::scoped_lock lock(mutex_);
  if (preamble.purpose == Purpose::kUrgent || preamble.purpose == Purpose::kBulk) {
    pages_.push_back(std::move(peer->channel));
    if (preamble.purpose == Purpose::kBulk && control_) {
      EXPECT_TRUE(control_->send(connected()));
    }
    return;
  }
  control_.emplace(std::move(peer->channel), "source");
  if (preamble.purpose == Purpose::kResume) {
    for (const Message& message : says_on_resume_) {
      EXPECT_TRUE(control_->send(message));
    }
  }
}

void LoopbackDestination::hear() {
  while (control_) {
    auto message = control_->try_receive();
    if (message && !*message) {
      return;
    }
    if (message) {
      take(**message);
      continue;
    }
    const std::scoped_lock lock(mutex_);
    control_.reset();
  }
}

void LoopbackDestination::take(const Message& message) {
  const Body body = message.body_case();
  if (body == Body::kPing) {
    return;
  }
  if (const auto act = acts_.find(body); act != acts_.end()) {
    act->second();
  }
  const std::scoped_lock lock(mutex_);
  heard_.push_back(body);
  if (cut_ == body) {
    control_.reset();
    return;
  }
  auto& in_turn = answers_[body];
  if (in_turn.empty()) {
    return;
  }
  for (const Message& answer : in_turn.front()) {
    // A source that has had enough hangs up.
    static_cast<void>(control_->send(answer));
  }
  if (in_turn.size() > 1) {
    in_turn.erase(in_turn.begin());
  }
}

}  // namespace migrate::handover_testing
