#include "transport/rdma/channel.h"

#include <arpa/inet.h>
#include <poll.h>
#include <sched.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>

#include <algorithm>
#include <cstring>
#include <tuple>

#include "base/processors.h"
#include "transport/frame.h"
#include "transport/rdma/completion.h"

namespace migrate::rdma {
namespace {

// Immediate data: how many messages are given back, and whether the message goes on.
constexpr std::uint32_t kCreditMask = 0xffff;
constexpr std::uint32_t kMoreFlag = 1U << 16U;
constexpr std::size_t kImmediateBytes = 4;

// Completions taken at a time.
constexpr int kBatch = 16;

// Where nothing was heard for so long, an empty write tells whether the peer is there.
constexpr std::chrono::seconds kQuiet{2};
constexpr int kQuietMs = 1000;
constexpr std::chrono::seconds kGoodbye{2};
constexpr int kGoodbyeStepMs = 10;

void signal(const UniqueFd& event) {
  std::ignore = ::eventfd_write(event.get(), 1);
}

void clear(const UniqueFd& event) {
  eventfd_t count = 0;
  std::ignore = ::eventfd_read(event.get(), &count);
}

/// What poll_fd() may be readable for.
enum Waker : std::uint32_t {
  kReceiveEvents,
  kSendEvents,
  kConnectionEvents,
  kReceiverWake,
  kWakers
};

void take_event(ibv_comp_channel* channel) {
  ibv_cq* queue = nullptr;
  void* context = nullptr;
  if (::ibv_get_cq_event(channel, &queue, &context) == 0) {
    ::ibv_ack_cq_events(queue, 1);
  }
}

Result<UniqueFd> create_event() {
  UniqueFd event(::eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK));
  if (!event.valid()) {
    return fail(system_error("create eventfd"));
  }
  return event;
}

}  // namespace

/// Reads the parts of a message one after the other.
class RdmaChannel::Gather {
 public:
  explicit Gather(std::span<const std::span<const std::byte>> parts) : parts_(parts) {
    for (const auto& part : parts) {
      left_ += part.size();
    }
  }
  std::size_t left() const { return left_; }
  void copy_to(std::span<std::byte> target) {
    left_ -= target.size();
    while (!target.empty()) {
      const auto part = parts_.front().subspan(used_);
      const std::size_t count = std::min(part.size(), target.size());
      std::copy_n(part.begin(), count, target.begin());
      target = target.subspan(count);
      used_ += count;
      if (count == part.size()) {
        parts_ = parts_.subspan(1);
        used_ = 0;
      }
    }
  }

 private:
  std::span<const std::span<const std::byte>> parts_;
  std::size_t used_ = 0;  // of the first
  std::size_t left_ = 0;
};

Result<std::unique_ptr<RdmaChannel>> RdmaChannel::create(Endpoint endpoint, std::string peer,
                                                         std::uint32_t spin_us) {
  UniqueFd receiver_wake = MIGRATE_TRY(create_event());
  UniqueFd sender_wake = MIGRATE_TRY(create_event());
  UniqueFd poll(::epoll_create1(EPOLL_CLOEXEC));
  if (!poll.valid()) {
    return fail(system_error("create epoll"));
  }
  const std::array<int, kWakers> wakers{endpoint.receive_events->fd, endpoint.send_events->fd,
                                        endpoint.events->fd, receiver_wake.get()};
  for (std::uint32_t waker = 0; waker < kWakers; ++waker) {
    epoll_event event{};
    event.events = EPOLLIN;
    event.data.u32 = waker;
    if (::epoll_ctl(poll.get(), EPOLL_CTL_ADD, wakers[waker], &event) != 0) {
      return fail(system_error("poll", "descriptor " + std::to_string(wakers[waker])));
    }
  }
  return std::unique_ptr<RdmaChannel>(new RdmaChannel(std::move(endpoint), std::move(peer), spin_us,
                                                      std::move(poll), std::move(receiver_wake),
                                                      std::move(sender_wake)));
}

RdmaChannel::RdmaChannel(Endpoint endpoint, std::string peer, std::uint32_t spin_us, UniqueFd poll,
                         UniqueFd receiver_wake, UniqueFd sender_wake)
    : peer_(std::move(peer)),
      spin_us_(spin_us),
      poll_(std::move(poll)),
      receiver_wake_(std::move(receiver_wake)),
      sender_wake_(std::move(sender_wake)),
      endpoint_(std::move(endpoint)),
      window_(endpoint_.staging.bytes().size()),
      landing_(endpoint_.landing.bytes().size()),
      last_sign_(Clock::now()) {}

RdmaChannel::~RdmaChannel() {
  await_completions();
  ::rdma_disconnect(endpoint_.id.get());
}

void RdmaChannel::await_completions() {
  const auto until = Clock::now() + kGoodbye;
  for (;;) {
    {
      const MutexLock lock(mutex_);
      progress();
      if (shut_ || lost_ || window_.incomplete() == 0 || Clock::now() > until) {
        return;
      }
      take_event(endpoint_.send_events.get());
      ::ibv_req_notify_cq(endpoint_.sends.get(), 0);
    }
    pollfd entry{endpoint_.send_events->fd, POLLIN, 0};
    ::poll(&entry, 1, kGoodbyeStepMs);
  }
}

void RdmaChannel::shutdown() {
  const MutexLock lock(mutex_);
  if (!shut_) {
    shut_ = true;
    ::rdma_disconnect(endpoint_.id.get());
  }
  signal(receiver_wake_);
  signal(sender_wake_);
}

Error RdmaChannel::lost(const char* operation) const {
  Error error = lost_ && !shut_ ? *lost_ : make_error(ErrorCode::kPeerLost, operation, peer_);
  // Whatever broke it: to the caller the channel is gone.
  error.code = ErrorCode::kPeerLost;
  return error;
}

void RdmaChannel::lose(Error error) {
  if (!lost_) {
    lost_ = std::move(error);
    ::rdma_disconnect(endpoint_.id.get());
  }
}

// --- Sending ---

Result<void> RdmaChannel::send(std::span<const std::span<const std::byte>> parts) {
  MIGRATE_TRY(frame_header(parts));  // for its checks
  const std::size_t longest = endpoint_.staging.bytes().size() / kLongestShare;
  Gather message(parts);
  while (message.left() > 0) {
    const std::size_t length = std::min(message.left(), longest);
    MIGRATE_TRY(send_piece(message, static_cast<std::uint32_t>(length), length < message.left()));
  }
  return {};
}

Result<void> RdmaChannel::send_piece(Gather& message, std::uint32_t length, bool more) {
  const bool small = length <= endpoint_.inline_bytes;
  const RingCursor::Place place = MIGRATE_TRY(await_room(small ? 0 : length));
  const std::span<std::byte> bytes = small
                                         ? std::span(small_).first(length)
                                         : endpoint_.staging.bytes().subspan(place.offset, length);
  message.copy_to(bytes);
  ibv_sge source{};
  source.addr = reinterpret_cast<std::uint64_t>(bytes.data());
  source.length = length;
  source.lkey = small ? 0 : endpoint_.staging.local_key();
  ibv_send_wr work{};
  work.wr_id = kMessageWork;
  work.sg_list = &source;
  work.num_sge = 1;
  work.opcode = small ? IBV_WR_SEND_WITH_IMM : IBV_WR_RDMA_WRITE_WITH_IMM;
  work.send_flags = IBV_SEND_SIGNALED;
  if (small) {
    work.send_flags |= IBV_SEND_INLINE;
  }
  work.wr.rdma.remote_addr = endpoint_.peer.address + place.offset;
  work.wr.rdma.rkey = endpoint_.peer.key;
  const MutexLock lock(mutex_);
  work.imm_data = ::htonl(immediate_data(more));
  MIGRATE_TRY(post(work));
  sent_.fetch_add(length + kImmediateBytes, std::memory_order_relaxed);
  return {};
}

Result<RingCursor::Place> RdmaChannel::await_room(std::size_t ring_length) {
  const auto spin_until =
      Clock::now() + std::chrono::microseconds(has_several_processors() ? spin_us_ : 0);
  for (;;) {
    {
      const MutexLock lock(mutex_);
      progress();
      if (shut_ || lost_) {
        return fail(lost("send to"));
      }
      if (const auto place = window_.begin(ring_length)) {
        return *place;
      }
    }
    if (Clock::now() < spin_until) {
      ::sched_yield();
    } else {
      sleep_for_room(ring_length);
    }
  }
}

void RdmaChannel::sleep_for_room(std::size_t ring_length) {
  {
    const MutexLock lock(mutex_);
    sender_waits_ = true;
    ::ibv_req_notify_cq(endpoint_.sends.get(), 0);
    ::ibv_req_notify_cq(endpoint_.receives.get(), 0);
    keep_alive();
    progress();
    if (shut_ || lost_ || window_.has_room(ring_length)) {
      sender_waits_ = false;
      return;
    }
  }
  std::array<pollfd, 4> entries{{{endpoint_.send_events->fd, POLLIN, 0},
                                 {endpoint_.receive_events->fd, POLLIN, 0},
                                 {endpoint_.events->fd, POLLIN, 0},
                                 {sender_wake_.get(), POLLIN, 0}}};
  ::poll(entries.data(), entries.size(), kQuietMs);
  const MutexLock lock(mutex_);
  sender_waits_ = false;
  clear(sender_wake_);
  take_events(false);
}

Result<void> RdmaChannel::post(ibv_send_wr& work) {
  ibv_send_wr* bad = nullptr;
  if (const int status = ::ibv_post_send(endpoint_.id->qp, &work, &bad); status != 0) {
    lose(system_error_from(status, "send to", peer_));
    return fail(lost("send to"));
  }
  return {};
}

// Carries no message: credits, or nothing at all.
void RdmaChannel::post_control(ibv_wr_opcode opcode) {
  ibv_send_wr work{};
  work.wr_id = kControlWork;
  work.opcode = opcode;
  work.send_flags = IBV_SEND_SIGNALED;
  work.wr.rdma.remote_addr = endpoint_.peer.address;
  work.wr.rdma.rkey = endpoint_.peer.key;
  if (opcode == IBV_WR_SEND_WITH_IMM) {
    work.imm_data = ::htonl(immediate_data(false));
  }
  if (post(work)) {
    ++controls_;
  }
}

std::uint32_t RdmaChannel::immediate_data(bool more) {
  credit_bytes_ = 0;
  return std::exchange(credits_, 0U) | (more ? kMoreFlag : 0U);
}

bool RdmaChannel::owes_credits() const {
  return !shut_ && !lost_ &&
         (credits_ >= kWindow / 2 || credit_bytes_ >= landing_.ring_bytes() / kLongestShare);
}

void RdmaChannel::give_credits() {
  if (owes_credits() && controls_ < kControls) {
    post_control(IBV_WR_SEND_WITH_IMM);
  }
}

void RdmaChannel::keep_alive() {
  const auto now = Clock::now();
  if (!shut_ && !lost_ && controls_ == 0 && now - last_sign_ > kQuiet) {
    last_sign_ = now;
    post_control(IBV_WR_RDMA_WRITE);
  }
}

// --- Receiving ---

Result<std::optional<std::span<const std::byte>>> RdmaChannel::try_receive() {
  const MutexLock lock(mutex_);
  if (whole_lent_) {
    whole_lent_ = false;
    whole_length_ = 0;
  }
  if (lent_) {
    give_back(*lent_);
    lent_.reset();
  }
  if (receiver_armed_) {
    receiver_armed_ = false;
    take_events(true);
  } else {
    progress();
  }
  if (shut_) {
    signal(receiver_wake_);  // poll_fd() stays readable
    return fail(lost("receive from"));
  }
  return take_arrival();
}

Result<std::optional<std::span<const std::byte>>> RdmaChannel::take_arrival() {
  while (arrived_ > 0) {
    const Arrival arrival = arrivals_[first_arrival_];
    first_arrival_ = (first_arrival_ + 1) % kArrivals;
    --arrived_;
    received_.fetch_add(arrival.length + kImmediateBytes, std::memory_order_relaxed);
    if (arrival.where == Arrival::Where::kRead || (!arrival.more && whole_length_ == 0)) {
      lent_ = arrival;
      return content(arrival);
    }
    auto appended = append_piece(content(arrival));
    give_back(arrival);
    if (!appended) {
      lose(appended.error());
      return fail(std::move(appended).error());
    }
    if (!arrival.more) {
      whole_lent_ = true;
      return whole_.bytes().first(whole_length_);
    }
  }
  give_credits();  // of pieces
  if (lost_) {
    return fail(lost("receive from"));
  }
  return std::nullopt;
}

std::span<const std::byte> RdmaChannel::content(const Arrival& arrival) const {
  switch (arrival.where) {
    case Arrival::Where::kRing:
      return endpoint_.landing.bytes().subspan(arrival.place.offset, arrival.length);
    case Arrival::Where::kRead:
      return {endpoint_.read_place(arrival.slot).data() - reads_[arrival.slot].head_length,
              arrival.length};
    default:
      return endpoint_.slots.bytes().subspan(std::size_t{arrival.slot} * kSmallBytes,
                                             arrival.length);
  }
}

Result<void> RdmaChannel::append_piece(std::span<const std::byte> piece) {
  if (whole_.bytes().empty()) {
    whole_ = MIGRATE_TRY(Mapping::create(kMaxMessageBytes));
  }
  if (piece.size() > kMaxMessageBytes - whole_length_) {
    return fail(make_error(ErrorCode::kCorrupt, "receive from", peer_, "a message is too long"));
  }
  std::copy(piece.begin(), piece.end(), whole_.bytes().subspan(whole_length_).begin());
  whole_length_ += piece.size();
  return {};
}

void RdmaChannel::give_back(const Arrival& arrival) {
  if (arrival.where == Arrival::Where::kRead) {
    reads_[arrival.slot].used = false;
    return;
  }
  --held_;
  if (auto posted = endpoint_.post_receive(arrival.slot); !posted) {
    lose(std::move(posted).error());
    return;
  }
  ++credits_;
  credit_bytes_ += arrival.place.used;
}

Result<std::span<const std::byte>> RdmaChannel::receive(std::uint32_t spin_us, int timeout_ms) {
  // In steps, so that signs of life are exchanged while nothing comes.
  const Deadline deadline(timeout_ms);
  for (;;) {
    const int left_ms = deadline.remaining_ms();
    const bool last = left_ms >= 0 && left_ms <= kQuietMs;
    auto message = receive_by_polling(*this, spin_us, last ? left_ms : kQuietMs);
    if (message || last || message.error().code != ErrorCode::kRetry) {
      return message;
    }
    spin_us = 0;
  }
}

Result<bool> RdmaChannel::arm() {
  const MutexLock lock(mutex_);
  receiver_armed_ = true;
  ::ibv_req_notify_cq(endpoint_.receives.get(), 0);
  if (reads_under_way_ > 0) {
    ::ibv_req_notify_cq(endpoint_.sends.get(), 0);
  }
  keep_alive();
  progress();
  // Credits that could not be given would be waited for by the peer.
  return readable() || owes_credits();
}

// --- Completions and events ---

void RdmaChannel::progress() {
  std::array<ibv_wc, kBatch> completions;
  bool any = false;
  for (ibv_cq* const queue : {endpoint_.sends.get(), endpoint_.receives.get()}) {
    int count = 0;
    while ((count = ::ibv_poll_cq(queue, kBatch, completions.data())) > 0) {
      any = true;
      for (int i = 0; i < count; ++i) {
        const ibv_wc& completion = completions[static_cast<std::size_t>(i)];
        if (queue == endpoint_.sends.get()) {
          take_sent(completion);
        } else {
          take_received(completion);
        }
      }
    }
    if (count < 0) {
      lose(make_error(ErrorCode::kSystem, "poll the completions of", peer_,
                      "the completion queue has failed; see the kernel's log"));
    }
  }
  give_credits();
  if (any && sender_waits_) {
    signal(sender_wake_);
  }
  if (any && receiver_armed_ && readable()) {
    signal(receiver_wake_);
  }
}

void RdmaChannel::take_sent(const ibv_wc& completion) {
  if (completion.status != IBV_WC_SUCCESS) {
    lose(completion_error(completion.status, completion.wr_id < kReadWork, peer_));
    return;
  }
  last_sign_ = Clock::now();
  if (completion.wr_id == kMessageWork) {
    window_.completed();
  } else if (completion.wr_id == kControlWork) {
    --controls_;
  } else {
    take_read(static_cast<std::uint32_t>(completion.wr_id - kReadWork));
  }
}

void RdmaChannel::take_received(const ibv_wc& completion) {
  if (completion.status != IBV_WC_SUCCESS) {
    lose(completion_error(completion.status, false, peer_));
    return;
  }
  last_sign_ = Clock::now();
  const std::uint32_t immediate = ::ntohl(completion.imm_data);
  Arrival arrival;
  arrival.slot = static_cast<std::uint32_t>(completion.wr_id);
  arrival.length = completion.byte_len;
  const bool in_ring = completion.opcode == IBV_WC_RECV_RDMA_WITH_IMM;
  arrival.where = in_ring ? Arrival::Where::kRing : Arrival::Where::kSlot;
  arrival.more = (immediate & kMoreFlag) != 0;
  const std::size_t longest =
      in_ring ? landing_.ring_bytes() / kLongestShare : std::size_t{kSmallBytes};
  const bool only_credits = arrival.length == 0 && !in_ring;
  if ((completion.wc_flags & IBV_WC_WITH_IMM) == 0 || arrival.length > longest ||
      (arrival.length == 0 && in_ring) || (!only_credits && held_ + credits_ >= kWindow) ||
      !window_.credited(immediate & kCreditMask)) {
    lose(make_error(ErrorCode::kCorrupt, "receive from", peer_,
                    "the peer is not a libmigrate of this version"));
    return;
  }
  if (only_credits) {
    if (auto posted = endpoint_.post_receive(arrival.slot); !posted) {
      lose(std::move(posted).error());
    }
    return;
  }
  if (in_ring) {
    arrival.place = landing_.next(arrival.length);
    landing_.pass(arrival.place, arrival.length);
  }
  ++held_;
  queue(arrival);
}

void RdmaChannel::queue(const Arrival& arrival) {
  arrivals_[(first_arrival_ + arrived_++) % kArrivals] = arrival;
}

// Whoever takes the events away sees to it that the other sleeper is still woken.
// Of all that is ready one event each; what is left wakes again. The other side, if it sleeps, was
// to be woken by them, too.
void RdmaChannel::take_events(bool by_receiver) {
  std::array<epoll_event, kWakers> ready{};
  const int count = ::epoll_wait(poll_.get(), ready.data(), kWakers, 0);
  for (int i = 0; i < count; ++i) {
    switch (ready[static_cast<std::size_t>(i)].data.u32) {
      case kReceiveEvents:
        take_event(endpoint_.receive_events.get());
        break;
      case kSendEvents:
        take_event(endpoint_.send_events.get());
        break;
      case kConnectionEvents:
        take_connection_events();
        break;
      default:
        if (by_receiver) {
          clear(receiver_wake_);
        }
        break;
    }
  }
  if (receiver_armed_ || sender_waits_) {
    ::ibv_req_notify_cq(endpoint_.receives.get(), 0);
  }
  if (sender_waits_ || (receiver_armed_ && reads_under_way_ > 0)) {
    ::ibv_req_notify_cq(endpoint_.sends.get(), 0);
  }
  progress();
}

void RdmaChannel::take_connection_events() {
  for (;;) {
    const auto event = next_event(endpoint_.events.get(), Deadline(0));
    if (!event) {
      return;
    }
    if (event->type == RDMA_CM_EVENT_DISCONNECTED) {
      // What came before the end is delivered; then all posted receives fail.
      ::rdma_disconnect(endpoint_.id.get());
    } else if (event->type == RDMA_CM_EVENT_DEVICE_REMOVAL) {
      lose(make_error(ErrorCode::kPeerLost, "use the RDMA device of", peer_,
                      "the device was removed"));
    }
  }
}

}  // namespace migrate::rdma
