#include "libmigrate/guest/clear_session.h"

#include <poll.h>
#include <signal.h>
#include <unistd.h>

#include "libmigrate/guest/guest_seat.h"
#include "libmigrate/proto/session.pb.h"
#include "libmigrate/state/registry.h"

namespace migrate {

void clear_session(const WorkerContext& context, SessionFile& file, const SessionId& session) {
  const auto init = file.mark().init_identity().open();
  if (init) {
    send_signal(init->get(), SIGKILL);
  }
  const std::string name = cell_session_name(to_hex(session));
  ::unlink((SessionFile::directory(context.state_directory) + "/" + name + ".socket").c_str());
  wire::CellSession noted;
  const auto text = file.load();
  SessionId process{};
  auto registry = Registry::open(context.state_directory);
  if (registry && text && noted.ParseFromString(*text) &&
      noted.process().size() == process.size()) {
    noted.process().copy(reinterpret_cast<char*>(process.data()), process.size());
    const auto rows = registry->find_process(to_hex(process));
    for (const ProcessRecord& row : rows.value_or(std::vector<ProcessRecord>())) {
      // Unless it has come again by another session.
      if (row.role == ProcessRole::kGuest && row.session == to_hex(session)) {
        static_cast<void>(registry->remove(row.process, row.role, row.worker));
      }
    }
  }
  if (init && noted.groups_size() > 0) {  // Nobody may be in them.
    constexpr int kEndMs = 2000;
    pollfd polled{init->get(), POLLIN, 0};
    ::poll(&polled, 1, kEndMs);
  }
  remove_noted_groups(noted);
  file.remove();
}

}  // namespace migrate
