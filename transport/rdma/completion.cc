#include "transport/rdma/completion.h"

namespace migrate::rdma {
namespace {

struct Meaning {
  ErrorCode code;
  const char* what;
};

Meaning meaning_of(ibv_wc_status status) {
  switch (status) {
    case IBV_WC_WR_FLUSH_ERR:
      return {ErrorCode::kPeerLost, "the connection was closed"};
    case IBV_WC_RETRY_EXC_ERR:
      return {ErrorCode::kPeerLost,
              "the peer does not answer any more; check the link, and that the peer's device is up "
              "(rdma link)"};
    case IBV_WC_RNR_RETRY_EXC_ERR:
      return {ErrorCode::kPeerLost, "the peer does not take messages any more"};
    case IBV_WC_RESP_TIMEOUT_ERR:
      return {ErrorCode::kPeerLost, "the peer's answer did not come in time"};
    case IBV_WC_REM_ABORT_ERR:
      return {ErrorCode::kPeerLost, "the peer ended the operation"};
    case IBV_WC_REM_ACCESS_ERR:
      return {ErrorCode::kPeerLost,
              "the peer does not let its memory be used any more, as after the end of a session"};
    case IBV_WC_REM_OP_ERR:
      return {ErrorCode::kPeerLost, "the peer's device could not carry it out"};
    case IBV_WC_REM_INV_REQ_ERR:
    case IBV_WC_REM_INV_RD_REQ_ERR:
      return {ErrorCode::kCorrupt,
              "the peer's device calls the request invalid; iWARP devices "
              "without RDMA WRITE with immediate data cannot be used"};
    case IBV_WC_LOC_LEN_ERR:
      return {ErrorCode::kCorrupt, "the peer sent more than there was room for"};
    case IBV_WC_BAD_RESP_ERR:
      return {ErrorCode::kCorrupt, "the peer's device answered with something unexpected"};
    case IBV_WC_LOC_PROT_ERR:
    case IBV_WC_LOC_ACCESS_ERR:
    case IBV_WC_MW_BIND_ERR:
      return {ErrorCode::kSystem, "memory was not registered as it was used"};
    case IBV_WC_LOC_QP_OP_ERR:
    case IBV_WC_LOC_EEC_OP_ERR:
    case IBV_WC_LOC_RDD_VIOL_ERR:
    case IBV_WC_INV_EECN_ERR:
    case IBV_WC_INV_EEC_STATE_ERR:
      return {ErrorCode::kSystem, "the queue pair does not take the operation"};
    case IBV_WC_FATAL_ERR:
      return {ErrorCode::kSystem, "the device has failed; see the kernel's log"};
    default:
      return {ErrorCode::kSystem, "the device reports an error"};
  }
}

}  // namespace

Error completion_error(ibv_wc_status status, bool sent, const std::string& peer) {
  const Meaning meaning = meaning_of(status);
  std::string text = meaning.what;
  if (status != IBV_WC_WR_FLUSH_ERR) {
    text += " (" + std::string(::ibv_wc_status_str(status)) + ")";
  }
  return make_error(meaning.code, sent ? "send to" : "receive from", peer, std::move(text));
}

}  // namespace migrate::rdma
