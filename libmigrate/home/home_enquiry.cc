#include "libmigrate/home/home_enquiry.h"

#include <utility>

namespace migrate {

HomeEnquiry::HomeEnquiry(std::unique_ptr<Channel> channel, std::uint64_t epoch)
    : link_(std::move(channel)), epoch_(epoch) {
  wire::RelayMessage message;
  message.mutable_resume()->set_epoch(epoch);
  link_.send(message);
}

Result<bool> HomeEnquiry::is_superseded() {
  const auto message = MIGRATE_TRY(link_.receive());
  if (!message) {
    return false;
  }
  if (!message->has_resumed() || message->resumed().epoch() <= epoch_) {
    return fail(make_error(ErrorCode::kCorrupt, "read the home's answer", "link to home"));
  }
  return true;
}

}  // namespace migrate
