#include "libmigrate/inspect/internal/shared_files.h"

#include <fcntl.h>
#include <fmt/core.h>
#include <linux/kcmp.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <map>
#include <set>

#include "base/file.h"
#include "libmigrate/carriers/carriers.h"
#include "libmigrate/inspect/internal/outsiders.h"
#include "libmigrate/proc/proc_text.h"

namespace migrate::inspect {
namespace {

/// An open file of the process, by one of its descriptors.
struct Candidate {
  std::uint32_t number = 0;
  std::string link;
  wire::OpenFile* file = nullptr;
};

bool same_file(pid_t one, std::uint32_t number, pid_t other, std::uint32_t their_number) {
  return ::syscall(SYS_kcmp, one, other, KCMP_FILE, number, their_number) == 0;
}

bool has_state(const wire::OpenFile& file) {
  const auto asked = carriers::carrier_of(file.kind()).has_state;
  return asked != nullptr && asked(file);
}

std::multimap<std::string, Candidate> find_candidates(const ProcessView& view,
                                                      wire::Objects& objects,
                                                      const wire::ProcessImage& image) {
  std::multimap<std::string, Candidate> candidates;
  std::set<std::uint32_t> seen;
  for (const wire::Descriptor& descriptor : image.descriptors()) {
    wire::OpenFile& file = *objects.mutable_files(static_cast<int>(descriptor.file()));
    if (!has_state(file) || !seen.insert(descriptor.file()).second) {
      continue;
    }
    if (auto link = read_link_at(view.descriptors.get(), std::to_string(descriptor.number()))) {
      candidates.emplace(*link, Candidate{descriptor.number(), *link, &file});
    }
  }
  return candidates;
}

std::uint64_t parent_of(std::uint64_t pid) {
  const auto text = read_file("/proc/" + std::to_string(pid) + "/stat");
  const auto fields = text ? stat_fields(*text) : std::vector<std::string_view>();
  return fields.size() > 1 ? parse_number(fields[1]).value_or(0) : 0;
}

// It stays open where the process leaves, and with it a lock would.
void note_shared(Candidate& candidate, std::uint64_t id, Findings& findings, Refusals& refusals) {
  if (candidate.file->locks_size() > 0 && candidate.file->shared_id() == 0) {
    refuse(refusals, "FILE_LOCK",
           fmt::format("descriptor {} -> {}", candidate.number, candidate.link),
           "an ancestor has it open too");
  }
  candidate.file->set_shared_id(id);
  findings.shared_files[shared_file_key(candidate.number, candidate.link)] = id;
}

// Those that an earlier move brought along.
void find_known(const ProcessView& view, std::multimap<std::string, Candidate>& candidates,
                Findings& findings, Refusals& refusals) {
  for (auto& [link, candidate] : candidates) {
    for (const auto& [id, own] : view.known.shared_files) {
      if (same_file(view.pid, candidate.number, ::getpid(), static_cast<std::uint32_t>(own))) {
        note_shared(candidate, id, findings, refusals);
      }
    }
  }
  std::erase_if(candidates, [](const auto& entry) { return entry.second.file->shared_id() != 0; });
}

std::string_view code_of_shared(const wire::OpenFile& file) {
  const bool is_network =
      file.kind() == wire::OpenFile::CONNECTION || file.kind() == wire::OpenFile::LISTENER ||
      file.kind() == wire::OpenFile::OPEN_SOCKET || file.kind() == wire::OpenFile::UNIX_CONNECTION;
  return is_network ? "SOCKET_SHARED" : "SHARED_FILE";
}

void search(const ProcessView& view, pid_t other, bool ancestor,
            std::multimap<std::string, Candidate>& candidates, Findings& findings,
            Refusals& refusals) {
  const auto directory =
      open_file("/proc/" + std::to_string(other) + "/fd", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
  if (!directory) {
    return;
  }
  for (const std::uint32_t number :
       numbered_entries(directory->get(), "fd").value_or(std::vector<std::uint32_t>())) {
    const auto link = read_link_at(directory->get(), std::to_string(number));
    if (!link) {
      continue;
    }
    const auto [first, last] = candidates.equal_range(*link);
    for (auto place = first; place != last;) {
      Candidate& candidate = place->second;
      if (!same_file(view.pid, candidate.number, other, number)) {
        ++place;
        continue;
      }
      if (ancestor && carriers::carrier_of(candidate.file->kind()).position_returns) {
        note_shared(candidate, std::uint64_t{candidate.number} + 1, findings, refusals);
        ++place;  // Somebody else may have it too.
      } else {
        refuse(refusals, code_of_shared(*candidate.file),
               fmt::format("descriptor {} -> {}", candidate.number, candidate.link),
               describe_process(other));
        place = candidates.erase(place);
      }
    }
  }
}

}  // namespace

std::set<pid_t> ancestors_of(pid_t pid) {
  std::set<pid_t> ancestors;
  for (std::uint64_t parent = parent_of(static_cast<std::uint64_t>(pid)); parent != 0;
       parent = parent_of(parent)) {
    if (!ancestors.insert(static_cast<pid_t>(parent)).second) {
      break;
    }
  }
  return ancestors;
}

std::string shared_file_key(std::uint32_t number, const std::string& path) {
  return fmt::format("{} {}", number, path);
}

void check_shared_files(const ProcessView& view, Findings& findings, wire::Objects& objects,
                        const wire::ProcessImage& image, Refusals& refusals) {
  std::multimap<std::string, Candidate> candidates = find_candidates(view, objects, image);
  find_known(view, candidates, findings, refusals);
  if (candidates.empty()) {
    return;
  }
  const std::set<pid_t> ancestors = ancestors_of(view.pid);
  for (const std::string& name : list_directory("/proc").value_or(std::vector<std::string>())) {
    const auto pid = static_cast<pid_t>(parse_number(name).value_or(0));
    if (pid != 0 && pid != view.pid && pid != ::getpid()) {
      search(view, pid, ancestors.contains(pid), candidates, findings, refusals);
    }
  }
}

}  // namespace migrate::inspect
