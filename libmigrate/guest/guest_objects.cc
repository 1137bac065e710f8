#include "libmigrate/guest/guest_objects.h"

#include <unistd.h>

#include <algorithm>
#include <string>

#include "base/file.h"

namespace migrate {

Result<void> GuestObjects::note(wire::CellSession& noted, CellControl& cell) const {
  for (const auto& [inode, id] : relays_) {
    (*noted.mutable_relay_inodes())[inode] = id;
  }
  for (const auto& [device, id] : terminals_) {
    (*noted.mutable_terminal_devices())[device] = id;
  }
  for (const auto& [id, file] : files_) {
    const auto number = static_cast<std::uint32_t>(id);
    MIGRATE_TRY(cell.keep({.kind = Kept::Kind::kSharedFile, .number = number}, file.get()));
  }
  for (const WaitRecord& wait : waits_) {
    wire::TimedWait& each = *noted.add_waits();
    each.set_thread(wait.thread);
    each.set_number(wait.number);
    each.mutable_arguments()->Assign(wait.arguments.begin(), wait.arguments.end());
    each.set_deadline_ns(wait.deadline_ns);
    each.set_let_go_ns(wait.let_go_ns);
    each.set_switches(wait.switches);
  }
  return {};
}

void GuestObjects::adopt(const wire::CellSession& noted) {
  for (const auto& [inode, id] : noted.relay_inodes()) {
    relays_.emplace(inode, id);
  }
  for (const auto& [device, id] : noted.terminal_devices()) {
    terminals_.emplace(device, id);
  }
  for (const wire::TimedWait& each : noted.waits()) {
    WaitRecord wait{.thread = each.thread(),
                    .number = each.number(),
                    .deadline_ns = each.deadline_ns(),
                    .let_go_ns = each.let_go_ns(),
                    .switches = each.switches()};
    std::copy_n(each.arguments().begin(),
                std::min<std::size_t>(each.arguments().size(), wait.arguments.size()),
                wait.arguments.begin());
    waits_.push_back(wait);
  }
}

KnownObjects GuestObjects::known(pid_t seed) const {
  KnownObjects known;
  known.relays = relays_;
  known.terminals = terminals_;
  for (const auto& [id, file] : files_) {
    known.shared_files.emplace(id, file.get());
  }
  // The pager has let go of them all, but the kernel may not have seen its last descriptor close
  // yet.
  known.own_userfaultfd = true;
  for (const char* kind : {"pid", "pid_for_children", "mnt", "net", "time", "time_for_children"}) {
    auto link = read_link("/proc/" + std::to_string(seed) + "/ns/" + kind);
    if (link) {
      known.own_namespaces.insert(*link);
    }
  }
  return known;
}

std::map<std::uint64_t, std::uint64_t> GuestObjects::positions() const {
  std::map<std::uint64_t, std::uint64_t> positions;
  for (const auto& [id, file] : files_) {
    if (const off_t position = ::lseek(file.get(), 0, SEEK_CUR); position >= 0) {
      positions.emplace(id, static_cast<std::uint64_t>(position));
    }
  }
  return positions;
}

}  // namespace migrate
