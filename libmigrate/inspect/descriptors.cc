#include "libmigrate/inspect/internal/descriptors.h"

#include <fcntl.h>
#include <fmt/core.h>
#include <linux/kcmp.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <algorithm>
#include <utility>

#include "libmigrate/inspect/internal/mappings.h"
#include "libmigrate/inspect/internal/shared_files.h"
#include "libmigrate/links/stream_ids.h"
#include "libmigrate/proc/proc_text.h"

namespace migrate::inspect {

Result<void> DescriptorReader::read(const wire::Objects* draft) {
  draft_ = draft;
  for (const std::uint32_t number :
       MIGRATE_TRY(numbered_entries(view_.descriptors.get(), "/proc/PID/fd"))) {
    read_one(number);
  }
  settle();
  return {};
}

// While it runs the process may close a descriptor that is being looked at, and open another file
// under its number: what is refused then is neither.
void DescriptorReader::read_one(std::uint32_t number) {
  constexpr int kLooks = 10;
  for (int looked = 1;; ++looked) {
    const auto seen = look_at(number);
    if (!seen) {
      return;
    }
    const std::size_t refused_before = refusals_.size();
    group(*seen);
    const bool is_refused = refusals_.size() != refused_before;
    if (!is_refused || draft_ != nullptr || looked == kLooks || is_still(*seen)) {
      return;
    }
    refusals_.resize(refused_before);
    std::erase_if(representatives_[seen->link],
                  [number](const Representative& candidate) { return candidate.number == number; });
  }
}

// Whether the descriptor leads where it did.
bool DescriptorReader::is_still(const Sighting& seen) const {
  const auto now = look_at(seen.number);
  return now && now->link == seen.link && now->flags == seen.flags;
}

// Nothing if it was closed meanwhile.
std::optional<carriers::Sighting> DescriptorReader::look_at(std::uint32_t number) const {
  auto link = read_link_at(view_.descriptors.get(), std::to_string(number));
  auto details = read_file_at(view_.details.get(), std::to_string(number));
  if (!link || !details) {
    return std::nullopt;
  }
  Sighting seen;
  seen.number = number;
  seen.link = std::move(*link);
  seen.details = std::move(*details);
  seen.flags = static_cast<std::uint32_t>(number_field(seen.details, "flags:", 8));
  return seen;
}

// Adds the descriptor, unless its open file is refused.
void DescriptorReader::group(const Sighting& seen) {
  const int file = file_of(seen);
  if (file < 0) {
    return;
  }
  wire::Descriptor& descriptor = *image_.add_descriptors();
  descriptor.set_number(seen.number);
  descriptor.set_file(static_cast<std::uint32_t>(file));
  descriptor.set_close_on_exec((seen.flags & O_CLOEXEC) != 0);
}

// The index of the open file, which is added unless another descriptor has it already; negative if
// it is refused.
int DescriptorReader::file_of(const Sighting& seen) {
  std::vector<Representative>& candidates = representatives_[seen.link];
  std::optional<int> known;
  const auto place = std::partition_point(
      candidates.begin(), candidates.end(), [&](const Representative& candidate) {
        // 0 equal, 1 before, 2 after, 3 different
        const long order =
            ::syscall(SYS_kcmp, view_.pid, view_.pid, KCMP_FILE, candidate.number, seen.number);
        if (order == 0) {
          known = candidate.file;
        }
        return order == 1;
      });
  if (known) {
    return *known;
  }
  int file = -1;
  wire::OpenFile opened;
  opened.set_flags(seen.flags & ~static_cast<std::uint32_t>(O_CLOEXEC));
  opened.set_position(number_field(seen.details, "pos:"));
  if (find(seen, opened)) {
    file = objects_.files_size();
    *objects_.add_files() = std::move(opened);
  }
  candidates.insert(place, Representative{seen.number, file});
  return file;
}

// What is refused whatever the descriptor leads to; the rest is its carrier's. All that is wrong
// with it is said at once.
bool DescriptorReader::find(const Sighting& seen, wire::OpenFile& file) {
  bool accepted = true;
  if ((seen.flags & O_ASYNC) != 0) {
    accepted = refuse("ASYNC_IO", seen);
  }
  return carriers::find_object(*this, seen, file) && accepted;
}

void DescriptorReader::settle() {
  if (is_guest()) {  // Home has not heard of it.
    next_stream_ = kFirstOfNoStream;
  }
  for (const auto* known : {&view_.known.relays, &view_.known.terminals}) {
    for (const auto& [key, stream] : *known) {
      next_stream_ = std::max(next_stream_, stream + 1);
    }
  }
  for (const auto& [object, stream] : findings_.streams) {
    next_stream_ = std::max(next_stream_, stream + 1);
  }
  for (const auto& [link, candidates] : representatives_) {
    for (const Representative& candidate : candidates) {
      if (candidate.file >= 0) {
        const wire::OpenFile& file = objects_.files(candidate.file);
        const auto has_state = carriers::carrier_of(file.kind()).has_state;
        if (has_state != nullptr && has_state(file)) {
          shared_.stateful.push_back({candidate.number, link});
        }
      }
    }
  }
  std::vector<bool> settled(static_cast<std::size_t>(objects_.files_size()));
  for (const wire::Descriptor& descriptor : image_.descriptors()) {
    if (settled[descriptor.file()]) {
      continue;
    }
    settled[descriptor.file()] = true;
    wire::OpenFile& file = *objects_.mutable_files(static_cast<int>(descriptor.file()));
    if (const auto settle_one = carriers::carrier_of(file.kind()).settle; settle_one != nullptr) {
      settle_one(*this, descriptor.number(), file);
    }
  }
}

UniqueFd DescriptorReader::fetch(std::uint32_t number) const {
  return UniqueFd(
      static_cast<int>(::syscall(SYS_pidfd_getfd, view_.pidfd.get(), static_cast<int>(number), 0)));
}

bool DescriptorReader::refuse(std::string_view code, const Sighting& seen,
                              std::string_view detail) {
  inspect::refuse(refusals_, code, fmt::format("descriptor {} -> {}", seen.number, seen.link),
                  detail);
  return false;
}

bool DescriptorReader::leads_to(const std::string& path, const wire::FileIdentity& identity) const {
  return path_leads_to(view_, path, identity);
}

// Who else has a file open is looked for when the draft is complete, and found out by then for the
// frozen process.
std::uint64_t DescriptorReader::shared_id(const Sighting& seen) const {
  if (draft_ == nullptr) {
    return 0;
  }
  const auto shared = findings_.shared_files.find(shared_file_key(seen.number, seen.link));
  return shared == findings_.shared_files.end() ? 0 : shared->second;
}

Result<std::uint32_t> DescriptorReader::add_memory(const Sighting& seen, int fd) {
  return inspect::add_memory(view_.descriptors.get(), std::to_string(seen.number), seen.link, fd,
                             findings_, shared_, objects_);
}

// Read once: of a process that runs, what it makes meanwhile is seen in the freeze.
bool DescriptorReader::has_socket(std::uint64_t inode) const {
  if (!sockets_) {
    sockets_.emplace();
    for (const std::uint32_t number : numbered_entries(view_.descriptors.get(), "/proc/PID/fd")
                                          .value_or(std::vector<std::uint32_t>())) {
      auto link = read_link_at(view_.descriptors.get(), std::to_string(number));
      if (link && link->starts_with("socket:[")) {
        sockets_->insert(std::move(*link));
      }
    }
  }
  return sockets_->contains(fmt::format("socket:[{}]", inode));
}

void DescriptorReader::expect_private_pipe(std::uint64_t inode, std::string object) {
  shared_.pipes.emplace(inode, std::move(object));
}

void DescriptorReader::expect_private_terminal(std::uint64_t instance, std::uint64_t device,
                                               bool is_of_session, std::string object) {
  shared_.terminals.emplace(StatKey(instance, device),
                            SharedObjects::Terminal{is_of_session, std::move(object)});
}

std::optional<std::uint64_t> DescriptorReader::known_stream(std::uint64_t inode) const {
  const auto known = view_.known.relays.find(inode);
  if (known == view_.known.relays.end()) {
    return view_.known.accepted_stream ? view_.known.accepted_stream(inode) : std::nullopt;
  }
  return known->second;
}

std::optional<std::uint64_t> DescriptorReader::known_terminal(std::uint64_t device) const {
  const auto known = view_.known.terminals.find(device);
  return known == view_.known.terminals.end() ? std::nullopt : std::optional(known->second);
}

std::uint64_t DescriptorReader::stream_to(std::uint32_t number, const std::string& object) {
  const auto [stream, added] =
      findings_.streams.emplace(fmt::format("{} {}", number, object), next_stream_);
  next_stream_ += added ? 1 : 0;
  return stream->second;
}

}  // namespace migrate::inspect
