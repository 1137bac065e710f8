#include "tests/libmigrate/move/stand_ins.h"

namespace migrate::handover_testing {

wire::ControlMessage offer_reply() {
  wire::ControlMessage message;
  message.mutable_offer_reply()->set_incarnation("first");
  return message;
}

wire::ControlMessage connected() {
  wire::ControlMessage message;
  message.mutable_connected();
  return message;
}

wire::ControlMessage restored() {
  wire::ControlMessage message;
  message.mutable_restored();
  return message;
}

wire::ControlMessage running() {
  wire::ControlMessage message;
  message.mutable_running();
  return message;
}

wire::ControlMessage failed() {
  wire::ControlMessage message;
  message.mutable_failed()->set_reason("no room");
  return message;
}

wire::ControlMessage progress(std::uint64_t owed_pages, bool done) {
  wire::ControlMessage message;
  message.mutable_progress()->set_owed_pages(owed_pages);
  message.mutable_progress()->set_done(done);
  return message;
}

wire::ControlMessage verdict(wire::Verdict::Fate fate, const std::string& incarnation) {
  wire::ControlMessage message;
  message.mutable_verdict()->set_fate(fate);
  message.mutable_verdict()->set_incarnation(incarnation);
  message.mutable_verdict()->set_reason("it says so");
  return message;
}

}  // namespace migrate::handover_testing
