#include "libmigrate/host/worker_loop.h"

#include "base/log.h"

namespace migrate {
namespace {

void read_letters(Mailbox& mailbox, WorkerPhase& phase) {
  for (;;) {
    auto letter = mailbox.receive(0);
    if (!letter) {
      if (letter.error().code != ErrorCode::kRetry) {
        log::warn("mailbox: {}", letter.error().message());
      }
      return;
    }
    phase.on_letter(std::move(*letter));
  }
}

}  // namespace

void run_phase(Mailbox& mailbox, WorkerPhase& phase) {
  if (phase.is_last()) {
    mailbox.close();
  }
  for (;;) {
    read_letters(mailbox, phase);
    if (!phase.step()) {
      return;
    }
    std::vector<pollfd> polled{{mailbox.fd(), POLLIN, 0}};
    const int timeout_ms = phase.collect_poll_fds(polled);
    ::poll(polled.data(), polled.size(), timeout_ms);
  }
}

}  // namespace migrate
