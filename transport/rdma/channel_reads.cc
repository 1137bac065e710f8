// How an RdmaChannel reads memory of the peer.
#include <algorithm>

#include "transport/rdma/channel.h"

namespace migrate::rdma {

Result<ExposedPlace> RdmaChannel::expose(Mapping memory) {
  RegisteredMemory registered = MIGRATE_TRY(
      RegisteredMemory::of(endpoint_.domain.get(), std::move(memory), IBV_ACCESS_REMOTE_READ));
  const ExposedPlace place{registered.address(), registered.remote_key()};
  const MutexLock lock(mutex_);
  endpoint_.exposed.push_back(std::move(registered));
  return place;
}

Result<void> RdmaChannel::read(std::span<const std::byte> head, const ExposedPlace& place,
                               std::size_t length_bytes) {
  if (head.size() > kMaxHeadBytes || length_bytes == 0 || length_bytes > kMaxReadBytes) {
    return fail(make_error(ErrorCode::kInvalid, "read from", peer_,
                           std::to_string(length_bytes) + " bytes at a time"));
  }
  const MutexLock lock(mutex_);
  progress();
  if (shut_ || lost_) {
    return fail(lost("read from"));
  }
  MIGRATE_TRY(endpoint_.prepare_reads());
  const auto free = std::find_if(reads_.begin(), reads_.end(),
                                 [](const ReadUnderWay& each) { return !each.used; });
  if (free == reads_.end()) {
    return fail(make_error(ErrorCode::kRetry, "read from", peer_, "too many reads are under way"));
  }
  const auto number = static_cast<std::uint32_t>(free - reads_.begin());
  const std::span<std::byte> content = endpoint_.read_place(number);
  std::copy(head.begin(), head.end(), content.data() - head.size());
  ibv_sge target{};
  target.addr = reinterpret_cast<std::uint64_t>(content.data());
  target.length = static_cast<std::uint32_t>(length_bytes);
  target.lkey = endpoint_.reads.local_key();
  ibv_send_wr work{};
  work.wr_id = kReadWork + number;
  work.sg_list = &target;
  work.num_sge = 1;
  work.opcode = IBV_WR_RDMA_READ;
  work.send_flags = IBV_SEND_SIGNALED;
  work.wr.rdma.remote_addr = place.address;
  work.wr.rdma.rkey = place.key;
  MIGRATE_TRY(post(work));
  *free = {true, static_cast<std::uint32_t>(head.size()), target.length};
  ++reads_under_way_;
  if (receiver_armed_) {
    ::ibv_req_notify_cq(endpoint_.sends.get(), 0);
    progress();
  }
  return {};
}

void RdmaChannel::take_read(std::uint32_t number) {
  --reads_under_way_;
  Arrival arrival;
  arrival.slot = number;
  arrival.length = reads_[number].head_length + reads_[number].length;
  arrival.where = Arrival::Where::kRead;
  queue(arrival);
}

}  // namespace migrate::rdma
