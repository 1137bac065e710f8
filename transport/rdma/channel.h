#pragma once

#include <array>
#include <atomic>
#include <chrono>
#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <string>

#include "base/mapping.h"
#include "base/mutex.h"
#include "base/unique_fd.h"
#include "transport/channel.h"
#include "transport/rdma/endpoint.h"

namespace migrate::rdma {

/// An OneSidedChannel over a reliable connected queue pair.
///
/// A small message is sent inline and takes one of the receives that the peer has posted. A longer
/// one is copied into the staging memory and written by RDMA WRITE with immediate data to the same
/// offset of the peer's landing memory, a ring; one longer than a quarter of the ring goes in
/// pieces. The immediate data gives back the places of messages that were consumed (credits); where
/// nothing is sent that they could go with, they go by themselves. What is read by RDMA READ lands
/// in memory of its own and waits among the messages that have come.
///
/// Completions are taken by whoever comes along, sender or receiver, under one lock, which is never
/// held while waiting.
class RdmaChannel final : public OneSidedChannel {
 public:
  /// `endpoint` is connected and has its staging memory. Errors: kSystem.
  static Result<std::unique_ptr<RdmaChannel>> create(Endpoint endpoint, std::string peer,
                                                     std::uint32_t spin_us);
  /// Lets the device send what is under way (for two seconds at most), then disconnects.
  ~RdmaChannel() override;

  Result<void> send(std::span<const std::span<const std::byte>> parts) override;
  Result<std::optional<std::span<const std::byte>>> try_receive() override;
  Result<std::span<const std::byte>> receive(std::uint32_t spin_us = 0,
                                             int timeout_ms = -1) override;
  int poll_fd() const override { return poll_.get(); }
  Result<bool> arm() override;
  std::size_t window() const override { return kWindow; }
  std::uint64_t bytes_sent() const override { return sent_.load(std::memory_order_relaxed); }
  std::uint64_t bytes_received() const override {
    return received_.load(std::memory_order_relaxed);
  }
  void shutdown() override;
  Result<ExposedPlace> expose(Mapping memory) override;
  Result<void> read(std::span<const std::byte> head, const ExposedPlace& place,
                    std::size_t length_bytes) override;

 private:
  using Clock = std::chrono::steady_clock;

  static constexpr std::uint32_t kArrivals = kReceives + kReads;

  // What a work request was, in its wr_id.
  static constexpr std::uint64_t kMessageWork = 0;
  static constexpr std::uint64_t kControlWork = 1;
  static constexpr std::uint64_t kReadWork = 2;  // and the number of the read

  /// A message or a piece of one, as it came.
  struct Arrival {
    enum class Where : std::uint8_t { kSlot, kRing, kRead };
    std::uint32_t slot = 0;  ///< Of a receive, or of a read.
    std::uint32_t length = 0;
    Where where = Where::kSlot;
    bool more = false;  ///< Pieces follow.
    RingCursor::Place place;
  };

  /// A read, until its bytes are given back.
  struct ReadUnderWay {
    bool used = false;
    std::uint32_t head_length = 0;
    std::uint32_t length = 0;
  };

  RdmaChannel(Endpoint endpoint, std::string peer, std::uint32_t spin_us, UniqueFd poll,
              UniqueFd receiver_wake, UniqueFd sender_wake);

  // Sending.
  class Gather;
  Result<void> send_piece(Gather& message, std::uint32_t length, bool more);
  Result<RingCursor::Place> await_room(std::size_t ring_length);
  void sleep_for_room(std::size_t ring_length);
  void await_completions();
  Result<void> post(ibv_send_wr& work) MIGRATE_REQUIRES(mutex_);
  void post_control(ibv_wr_opcode opcode) MIGRATE_REQUIRES(mutex_);
  std::uint32_t immediate_data(bool more) MIGRATE_REQUIRES(mutex_);
  bool owes_credits() const MIGRATE_REQUIRES(mutex_);
  void give_credits() MIGRATE_REQUIRES(mutex_);
  void keep_alive() MIGRATE_REQUIRES(mutex_);

  // Receiving.
  Result<std::optional<std::span<const std::byte>>> take_arrival() MIGRATE_REQUIRES(mutex_);
  std::span<const std::byte> content(const Arrival& arrival) const MIGRATE_REQUIRES(mutex_);
  Result<void> append_piece(std::span<const std::byte> piece) MIGRATE_REQUIRES(mutex_);
  void give_back(const Arrival& arrival) MIGRATE_REQUIRES(mutex_);
  void queue(const Arrival& arrival) MIGRATE_REQUIRES(mutex_);
  void take_read(std::uint32_t number) MIGRATE_REQUIRES(mutex_);

  // Completions and events.
  void progress() MIGRATE_REQUIRES(mutex_);
  void take_sent(const ibv_wc& completion) MIGRATE_REQUIRES(mutex_);
  void take_received(const ibv_wc& completion) MIGRATE_REQUIRES(mutex_);
  void take_events(bool by_receiver) MIGRATE_REQUIRES(mutex_);
  void take_connection_events() MIGRATE_REQUIRES(mutex_);
  void lose(Error error) MIGRATE_REQUIRES(mutex_);
  Error lost(const char* operation) const MIGRATE_REQUIRES(mutex_);
  bool readable() const MIGRATE_REQUIRES(mutex_) { return arrived_ != 0 || lost_ || shut_; }

  const std::string peer_;
  const std::uint32_t spin_us_;
  const UniqueFd poll_;  // epoll over all that may wake the receiver
  const UniqueFd receiver_wake_;
  const UniqueFd sender_wake_;

  Mutex mutex_;
  Endpoint endpoint_;  // its queues are used under the lock
  SendWindow window_ MIGRATE_GUARDED_BY(mutex_);
  RingCursor landing_ MIGRATE_GUARDED_BY(mutex_);
  std::array<Arrival, kArrivals> arrivals_ MIGRATE_GUARDED_BY(mutex_);
  std::uint32_t first_arrival_ MIGRATE_GUARDED_BY(mutex_) = 0;
  std::uint32_t arrived_ MIGRATE_GUARDED_BY(mutex_) = 0;
  std::optional<Arrival> lent_ MIGRATE_GUARDED_BY(mutex_);
  std::uint32_t held_ MIGRATE_GUARDED_BY(mutex_) = 0;     // messages that came and are in use
  std::uint32_t credits_ MIGRATE_GUARDED_BY(mutex_) = 0;  // not given back yet: messages
  std::size_t credit_bytes_ MIGRATE_GUARDED_BY(mutex_) = 0;
  std::uint32_t controls_ MIGRATE_GUARDED_BY(mutex_) = 0;  // under way
  std::array<ReadUnderWay, kReads> reads_ MIGRATE_GUARDED_BY(mutex_);
  std::uint32_t reads_under_way_ MIGRATE_GUARDED_BY(mutex_) = 0;
  Clock::time_point last_sign_ MIGRATE_GUARDED_BY(mutex_);
  bool receiver_armed_ MIGRATE_GUARDED_BY(mutex_) = false;
  bool sender_waits_ MIGRATE_GUARDED_BY(mutex_) = false;
  bool shut_ MIGRATE_GUARDED_BY(mutex_) = false;
  std::optional<Error> lost_ MIGRATE_GUARDED_BY(mutex_);

  // Receiving thread: a message in pieces.
  Mapping whole_;
  std::size_t whole_length_ = 0;
  bool whole_lent_ = false;

  // Sending thread.
  std::array<std::byte, kSmallBytes> small_{};

  std::atomic<std::uint64_t> sent_{0};
  std::atomic<std::uint64_t> received_{0};
};

}  // namespace migrate::rdma
