#include "libmigrate/move/link_probe.h"

#include <algorithm>
#include <string>

#include "base/clock.h"
#include "libmigrate/proto/control.pb.h"

namespace migrate {
namespace {

constexpr int kEmptyProbes = 4;
constexpr std::size_t kProbeBytes = std::size_t{128} << 10U;
constexpr int kMostProbes = 64;
constexpr int kProbesAhead = 4;  // sent and not answered
constexpr std::int64_t kMostProbeUs = 40'000;
constexpr int kProbeAnswerMs = 1000;
constexpr std::int64_t kAnswerProbesUs = 2'000'000;

Result<void> send_probe(ControlChannel& control, const std::string& data) {
  wire::ControlMessage message;
  message.mutable_probe()->set_data(data);
  return control.send(message);
}

Result<void> await_probe(ControlChannel& control) {
  MIGRATE_TRY(control.expect(wire::ControlMessage::kProbe, 0, kProbeAnswerMs));
  return {};
}

}  // namespace

Result<LinkSpeed> probe_link(ControlChannel& control) {
  LinkSpeed link;
  for (int i = 0; i < kEmptyProbes; ++i) {
    const std::int64_t start_us = now_us();
    MIGRATE_TRY(send_probe(control, {}));
    MIGRATE_TRY(await_probe(control));
    const auto took_us = static_cast<double>(now_us() - start_us);
    link.round_trip_us = i == 0 ? took_us : std::min(link.round_trip_us, took_us);
  }
  const std::string data(kProbeBytes, 'p');
  const std::int64_t start_us = now_us();
  int sent = 0;
  int answered = 0;
  while (answered < sent || sent == 0) {
    for (; sent < answered + kProbesAhead && sent < kMostProbes &&
           (sent == 0 || now_us() - start_us < kMostProbeUs);
         ++sent) {
      MIGRATE_TRY(send_probe(control, data));
    }
    MIGRATE_TRY(await_probe(control));
    ++answered;
  }
  const double took_us =
      std::max(static_cast<double>(now_us() - start_us) - link.round_trip_us, 1.0);
  link.bytes_per_second = static_cast<double>(answered) * kProbeBytes * 1e6 / took_us;
  return link;
}

void answer_probes(ControlChannel& control) {
  const std::int64_t until_us = now_us() + kAnswerProbesUs;
  for (int i = 0; i < kEmptyProbes + kMostProbes && now_us() < until_us; ++i) {
    const auto message = control.receive(0, kProbeAnswerMs);
    if (!message || !message->has_probe() || !send_probe(control, {})) {
      return;
    }
  }
  // The source closes first.
  static_cast<void>(control.receive(0, kProbeAnswerMs));
}

}  // namespace migrate
