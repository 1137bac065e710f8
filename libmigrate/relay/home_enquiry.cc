#include "libmigrate/relay/home_enquiry.h"

#include <utility>

namespace migrate {

HomeEnquiry::HomeEnquiry(std::unique_ptr<Channel> channel, std::uint64_t epoch)
    : link_(std::move(channel)), epoch_(epoch) {
  wire::RelayMessage message;
  message.mutable_resume()->set_epoch(epoch);
  link_.send(message);
}

Result<HomeEnquiry::Answer> HomeEnquiry::answer() {
  const auto message = MIGRATE_TRY(link_.receive());
  if (!message) {
    return Answer::kNone;
  }
  if (message->has_exited_ack()) {
    return Answer::kEnded;
  }
  if (!message->has_resumed() || message->resumed().epoch() <= epoch_) {
    return fail(make_error(ErrorCode::kCorrupt, "read the home's answer", "link to home"));
  }
  return Answer::kLaterPlace;
}

}  // namespace migrate
