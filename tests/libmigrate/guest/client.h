#pragma once

#include <gtest/gtest.h>
#include <sys/socket.h>

#include <memory>
#include <nlohmann/json.hpp>
#include <span>
#include <string>
#include <thread>
#include <utility>

#include "base/mutex.h"
#include "libmigrate/host/mailbox.h"
#include "transport/memory_channel.h"

namespace migrate {

/// A home that waits for the answer to what it passed on, and hangs up then, for which the worker
/// waits.
class HomeReader {
 public:
  explicit HomeReader(std::unique_ptr<Channel> channel)
      : channel_(std::move(channel)), thread_([this] { read(); }) {}
  ~HomeReader() {
    channel_->shutdown();
    thread_.join();
  }
  HomeReader(const HomeReader&) = delete;
  HomeReader& operator=(const HomeReader&) = delete;

  nlohmann::json result() {
    const MutexLock lock(mutex_);
    return result_;
  }

 private:
  void read() {
    for (auto message = channel_->receive(); message; message = channel_->receive()) {
      const auto event = nlohmann::json::parse(
          std::string(reinterpret_cast<const char*>(message->data()), message->size()));
      if (event.value("event", "") == "result") {
        const MutexLock lock(mutex_);
        result_ = event;
        break;
      }
    }
    channel_->shutdown();
  }

  std::unique_ptr<Channel> channel_;
  Mutex mutex_;
  nlohmann::json result_ MIGRATE_GUARDED_BY(mutex_);
  std::thread thread_;
};

/// Someone who asks, on this host or through the home.
class Client {
 public:
  /// A letter of a client on this host.
  static std::pair<Letter, Client> local(const std::string& text) {
    int ends[2] = {-1, -1};
    EXPECT_EQ(::socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, ends), 0);
    Letter letter;
    letter.fd.reset(ends[0]);
    letter.request = text;
    Client client;
    client.fd_.reset(ends[1]);
    return {std::move(letter), std::move(client)};
  }
  /// A letter that the home passed on.
  static std::pair<Letter, Client> from_home(const std::string& text) {
    auto ends = make_memory_channels().value();
    EXPECT_TRUE(ends.second->send_one(std::as_bytes(std::span(text))));
    Letter letter;
    letter.preamble = Preamble{.purpose = Purpose::kCommand, .session = {}};
    letter.channel = std::move(ends.first);
    Client client;
    client.home_ = std::make_unique<HomeReader>(std::move(ends.second));
    return {std::move(letter), std::move(client)};
  }

  /// The result that it has been told, null so far.
  nlohmann::json result() {
    if (home_) {
      return home_->result();
    }
    for (nlohmann::json event = next(); !event.is_null(); event = next()) {
      if (event.value("event", "") == "result") {
        result_ = event;
      }
    }
    return result_;
  }
  int exit_code() { return result().is_null() ? -1 : result()["exit"].get<int>(); }

 private:
  nlohmann::json next() {
    char byte = 0;
    std::string line;
    while (::recv(fd_.get(), &byte, 1, MSG_DONTWAIT) == 1 && byte != '\n') {
      line += byte;
    }
    return line.empty() ? nlohmann::json() : nlohmann::json::parse(line);
  }

  UniqueFd fd_;
  std::unique_ptr<HomeReader> home_;
  nlohmann::json result_;
};

}  // namespace migrate
