#include "libmigrate/inspect/internal/descriptors.h"

#include <fcntl.h>
#include <fmt/core.h>
#include <linux/kcmp.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/sysmacros.h>
#include <sys/timerfd.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <utility>

#include "base/clock.h"
#include "base/file.h"
#include "libmigrate/inspect/internal/mappings.h"
#include "libmigrate/inspect/internal/shared_files.h"
#include "libmigrate/proc/file_identity.h"
#include "libmigrate/proc/proc_text.h"

namespace migrate::inspect {
namespace {

constexpr std::uint32_t kTemporaryFile = 020000000;  // the bit of O_TMPFILE that is not O_DIRECTORY
constexpr std::uint64_t kMessageQueues = 0x19800202;  // f_type of mqueue

struct RefusedLink {
  std::string_view prefix;
  std::string_view code;
};
constexpr std::array kRefusedLinks = std::to_array<RefusedLink>({
    {"socket:[", "SOCKET"},
    {"pidfd:", "PIDFD"},
    {"anon_inode:[pidfd]", "PIDFD"},
    {"anon_inode:inotify", "INOTIFY"},
    {"anon_inode:[inotify]", "INOTIFY"},
    {"anon_inode:[fanotify]", "FANOTIFY"},
    {"anon_inode:[userfaultfd]", "USERFAULTFD"},
    {"anon_inode:[perf_event]", "PERF"},
    {"anon_inode:[io_uring]", "IO_URING"},
    {"anon_inode:bpf", "BPF"},
    {"anon_inode:[bpf", "BPF"},
    {"anon_inode:btf", "BPF"},
    {"anon_inode:kvm", "KVM"},
    {"anon_inode:[kvm", "KVM"},
});

bool is_terminal(unsigned major_number, unsigned minor_number) {
  constexpr unsigned kConsoles = 4;
  constexpr unsigned kTerminals = 5;
  constexpr unsigned kMasterMinor = 2;  // /dev/ptmx is the other side
  constexpr unsigned kFirstPty = 136;
  constexpr unsigned kLastPty = 143;
  return major_number == kConsoles ||
         (major_number == kTerminals && minor_number != kMasterMinor) ||
         (major_number >= kFirstPty && major_number <= kLastPty);
}

bool is_kvm(unsigned major_number, unsigned minor_number) {
  constexpr unsigned kMiscellaneous = 10;
  constexpr unsigned kKvm = 232;  // KVM_MINOR
  return major_number == kMiscellaneous && minor_number == kKvm;
}

bool is_harmless(unsigned major_number, unsigned minor_number) {
  constexpr std::array<unsigned, 5> kMinors{3, 5, 7, 8, 9};  // null zero full random urandom
  return major_number == 1 && std::ranges::find(kMinors, minor_number) != kMinors.end();
}

std::uint64_t inode_in(std::string_view link) {
  const std::size_t bracket = link.find('[');
  if (bracket == std::string_view::npos || !link.ends_with(']')) {
    return 0;
  }
  return parse_number(link.substr(bracket + 1, link.size() - bracket - 2)).value_or(0);
}

// "(seconds, nanoseconds)"
std::uint64_t parenthesised_time(std::string_view text, std::string_view key) {
  const auto field = find_field(text, key);
  if (!field) {
    return 0;
  }
  const std::size_t comma = field->find(',');
  if (!field->starts_with('(') || !field->ends_with(')') || comma == std::string_view::npos) {
    return 0;
  }
  std::string_view nanoseconds = field->substr(comma + 1, field->size() - comma - 2);
  return parse_number(field->substr(1, comma - 1)).value_or(0) * 1'000'000'000 +
         parse_number(take_word(nanoseconds)).value_or(0);
}

}  // namespace

bool DescriptorReader::refuse_descriptor(std::string_view code, const Entry& entry,
                                         std::string_view detail) {
  refuse(verdict_, code, fmt::format("descriptor {} -> {}", entry.number, entry.link), detail);
  return false;
}

UniqueFd DescriptorReader::fetch(std::uint32_t number) const {
  return UniqueFd(
      static_cast<int>(::syscall(SYS_pidfd_getfd, view_.pidfd.get(), static_cast<int>(number), 0)));
}

Result<void> DescriptorReader::read(const wire::Image* draft) {
  draft_ = draft;
  for (const std::uint32_t number :
       MIGRATE_TRY(numbered_entries(view_.descriptors.get(), "/proc/PID/fd"))) {
    Entry entry;
    entry.number = number;
    auto link = read_link_at(view_.descriptors.get(), std::to_string(number));
    auto details = read_file_at(view_.details.get(), std::to_string(number));
    if (!link || !details) {
      continue;  // Closed meanwhile.
    }
    entry.link = std::move(*link);
    entry.details = std::move(*details);
    entry.flags = static_cast<std::uint32_t>(number_field(entry.details, "flags:", 8));
    group(entry);
  }
  resolve_pipes();
  check_watches();
  std::uint64_t next_stream = 1;
  for (const auto& [inode, stream] : view_.known.relays) {
    next_stream = std::max(next_stream, stream + 1);
  }
  for (const auto& [object, stream] : findings_.streams) {
    next_stream = std::max(next_stream, stream + 1);
  }
  std::vector<bool> seen(static_cast<std::size_t>(image_.files_size()));
  for (const wire::Descriptor& descriptor : image_.descriptors()) {
    wire::OpenFile& file = *image_.mutable_files(static_cast<int>(descriptor.file()));
    if (file.kind() == wire::OpenFile::RELAY && !seen[descriptor.file()] && file.object() == 0) {
      const auto [stream, added] = findings_.streams.emplace(
          fmt::format("{} {}", descriptor.number(), file.identity().path()), next_stream);
      next_stream += added ? 1 : 0;
      file.set_object(stream->second);
    }
    seen[descriptor.file()] = true;
  }
  return {};
}

// Adds the descriptor, and its open file unless another descriptor has it already.
bool DescriptorReader::group(const Entry& entry) {
  std::vector<Representative>& candidates = representatives_[entry.link];
  int file = -1;
  bool known = false;
  const auto place = std::partition_point(
      candidates.begin(), candidates.end(), [&](const Representative& candidate) {
        // 0 equal, 1 before, 2 after, 3 different
        const long order =
            ::syscall(SYS_kcmp, view_.pid, view_.pid, KCMP_FILE, candidate.number, entry.number);
        if (order == 0) {
          known = true;
          file = candidate.file;
        }
        return order == 1;
      });
  if (!known) {
    wire::OpenFile opened;
    opened.set_flags(entry.flags & ~static_cast<std::uint32_t>(O_CLOEXEC));
    opened.set_position(number_field(entry.details, "pos:"));
    if (classify(entry, opened)) {
      file = image_.files_size();
      if (opened.kind() == wire::OpenFile::PIPE) {
        pipes_[opened.object()].files.push_back(file);
      } else if (opened.kind() == wire::OpenFile::EPOLL) {
        epolls_.emplace_back(entry, file);
      }
      *image_.add_files() = std::move(opened);
    }
    candidates.insert(place, Representative{entry.number, file});
  }
  if (file < 0) {
    return false;
  }
  wire::Descriptor& descriptor = *image_.add_descriptors();
  descriptor.set_number(entry.number);
  descriptor.set_file(static_cast<std::uint32_t>(file));
  descriptor.set_close_on_exec((entry.flags & O_CLOEXEC) != 0);
  return true;
}

bool DescriptorReader::classify(const Entry& entry, wire::OpenFile& file) {
  if ((entry.flags & O_PATH) != 0) {
    return refuse_descriptor("PATH_DESCRIPTOR", entry);
  }
  bool accepted = true;
  if ((entry.flags & O_ASYNC) != 0) {
    accepted = refuse_descriptor("ASYNC_IO", entry);
  }
  if (const auto lock = find_field(entry.details, "lock:")) {
    accepted = refuse_descriptor("FILE_LOCK", entry, *lock);
  }
  if (entry.link.starts_with("pipe:[")) {
    return classify_pipe(entry, file) && accepted;
  }
  if (const auto known = view_.known.relays.find(inode_in(entry.link));
      entry.link.starts_with("socket:[") && known != view_.known.relays.end()) {
    file.set_kind(wire::OpenFile::RELAY);
    file.set_object(known->second);
    return accepted;
  }
  for (const RefusedLink& refused : kRefusedLinks) {
    if (entry.link.starts_with(refused.prefix)) {
      return refuse_descriptor(refused.code, entry);
    }
  }
  if (entry.link.starts_with("anon_inode:")) {
    return classify_kernel_object(entry, file) && accepted;
  }
  if (entry.link.starts_with('/')) {
    return classify_path(entry, file) && accepted;
  }
  return refuse_descriptor("UNKNOWN_DESCRIPTOR", entry);
}

bool DescriptorReader::classify_pipe(const Entry& entry, wire::OpenFile& file) {
  const std::uint64_t inode = inode_in(entry.link);
  if (const auto known = view_.known.relays.find(inode); known != view_.known.relays.end()) {
    file.set_kind(wire::OpenFile::RELAY);
    file.set_object(known->second);
    return true;
  }
  if ((entry.flags & O_DIRECT) != 0) {
    return refuse_descriptor("UNKNOWN_DESCRIPTOR", entry, "a pipe in packet mode (O_DIRECT)");
  }
  const std::uint32_t access = entry.flags & O_ACCMODE;
  PipeEnds& ends = pipes_[inode];
  ends.readable |= access != O_WRONLY;
  ends.writable |= access != O_RDONLY;
  ends.number = entry.number;
  file.set_kind(wire::OpenFile::PIPE);
  file.set_object(inode);  // until resolve_pipes()
  return true;
}

// Both ends inside: carried with what is in it; one: forwarded by the deputy.
void DescriptorReader::resolve_pipes() {
  for (const auto& [inode, ends] : pipes_) {
    if (ends.files.empty()) {
      continue;
    }
    const bool inside = ends.readable && ends.writable;
    const auto index = static_cast<std::uint64_t>(image_.pipes_size());
    for (const int number : ends.files) {
      wire::OpenFile& file = *image_.mutable_files(number);
      file.set_kind(inside ? wire::OpenFile::PIPE : wire::OpenFile::RELAY);
      file.set_object(inside ? index : 0);
      if (!inside) {
        file.mutable_identity()->set_path(fmt::format("pipe:[{}]", inode));
      }
    }
    if (!inside) {
      continue;
    }
    wire::Pipe& pipe = *image_.add_pipes();
    pipe.set_inode(inode);
    const UniqueFd end = fetch(ends.number);
    if (const int capacity = end.valid() ? ::fcntl(end.get(), F_GETPIPE_SZ) : -1; capacity > 0) {
      pipe.set_capacity_bytes(static_cast<std::uint32_t>(capacity));
    }
    shared_.pipes.emplace(inode, fmt::format("descriptor {} -> pipe:[{}]", ends.number, inode));
  }
}

bool DescriptorReader::classify_path(const Entry& entry, wire::OpenFile& file) {
  if (entry.link.starts_with("/memfd:") && entry.link.ends_with(" (deleted)")) {
    return classify_memfd(entry, file);
  }
  auto identity = identify_at(view_.descriptors.get(), std::to_string(entry.number), entry.link);
  if (!identity) {
    return refuse_descriptor("UNKNOWN_DESCRIPTOR", entry, identity.error().message());
  }
  *file.mutable_identity() = std::move(*identity);
  const std::uint32_t mode = file.identity().mode();
  if (file.identity().filesystem_type() == kMessageQueues) {
    return refuse_descriptor("MQUEUE", entry);
  }
  if (S_ISREG(mode) || S_ISDIR(mode)) {
    return classify_regular(entry, file);
  }
  return classify_special(entry, file);
}

bool DescriptorReader::classify_regular(const Entry& entry, wire::OpenFile& file) {
  wire::FileIdentity& identity = *file.mutable_identity();
  switch (filesystem_class(identity.filesystem_type())) {
    case FilesystemClass::kKernel:
      return refuse_descriptor("PROC_FILE", entry);
    case FilesystemClass::kHugePages:
      return refuse_descriptor("HUGETLB", entry);
    case FilesystemClass::kUnknown:
      return refuse_descriptor("UNKNOWN_DESCRIPTOR", entry,
                               fmt::format("file system type {:#x}", identity.filesystem_type()));
    case FilesystemClass::kLocal:
    case FilesystemClass::kNetwork:
      break;
  }
  if ((entry.flags & kTemporaryFile) != 0 || !path_leads_to(view_, entry.link, identity)) {
    return refuse_descriptor("DELETED_FILE", entry);
  }
  file.set_kind(S_ISDIR(identity.mode()) ? wire::OpenFile::DIRECTORY : wire::OpenFile::REGULAR);
  if (const auto shared = findings_.shared_files.find(shared_file_key(entry.number, entry.link));
      draft_ != nullptr && shared != findings_.shared_files.end()) {
    file.set_shared_id(shared->second);
  }
  if (!S_ISREG(identity.mode()) || (entry.flags & O_ACCMODE) != O_RDONLY ||
      identity.size_bytes() > view_.known.open_file_hash_limit_bytes ||
      find_field(entry.details, "lock:")) {
    return true;
  }
  if (draft_ != nullptr) {
    for (const wire::OpenFile& before : draft_->files()) {
      if (before.kind() == wire::OpenFile::REGULAR && unchanged(before.identity(), identity)) {
        identity.set_build_id(before.identity().build_id());
        identity.set_sha256(before.identity().sha256());
        return true;
      }
    }
  }
  const UniqueFd opened(::openat(view_.descriptors.get(), std::to_string(entry.number).c_str(),
                                 O_RDONLY | O_CLOEXEC));
  if (opened.valid()) {
    (void)add_content_identity(opened.get(), view_.known.open_file_hash_limit_bytes, identity);
  }
  return true;
}

bool DescriptorReader::classify_special(const Entry& entry, wire::OpenFile& file) {
  const wire::FileIdentity& identity = file.identity();
  const std::uint32_t mode = identity.mode();
  if (S_ISFIFO(mode)) {
    file.set_kind(wire::OpenFile::RELAY);
    return true;
  }
  if (!S_ISCHR(mode)) {
    return refuse_descriptor(S_ISBLK(mode) ? "DEVICE" : "UNKNOWN_DESCRIPTOR", entry);
  }
  if (is_terminal(identity.device_major(), identity.device_minor())) {
    file.set_kind(wire::OpenFile::RELAY);
    return true;
  }
  if (is_harmless(identity.device_major(), identity.device_minor())) {
    file.set_kind(wire::OpenFile::DEVICE);
    return true;
  }
  const bool kvm = is_kvm(identity.device_major(), identity.device_minor());
  return refuse_descriptor(kvm ? "KVM" : "DEVICE", entry);
}

bool DescriptorReader::classify_memfd(const Entry& entry, wire::OpenFile& file) {
  const UniqueFd opened = fetch(entry.number);
  const auto index = add_memory(view_.descriptors.get(), std::to_string(entry.number), entry.link,
                                opened.get(), findings_, shared_, image_);
  if (!index) {
    const bool huge = index.error().code == ErrorCode::kUnsupported;
    return refuse_descriptor(huge ? "HUGETLB" : "UNKNOWN_DESCRIPTOR", entry,
                             huge ? std::string() : index.error().message());
  }
  image_.mutable_shared_memories(static_cast<int>(*index))->set_open_descriptor(true);
  file.set_kind(wire::OpenFile::MEMFD);
  file.set_object(*index);
  return true;
}

bool DescriptorReader::classify_kernel_object(const Entry& entry, wire::OpenFile& file) {
  const std::string_view details = entry.details;
  if (entry.link == "anon_inode:[eventfd]") {
    if (!find_field(details, "eventfd-count:") || !find_field(details, "eventfd-semaphore:")) {
      return refuse_descriptor("UNKNOWN_DESCRIPTOR", entry, "the kernel does not show its state");
    }
    file.set_kind(wire::OpenFile::EVENTFD);
    file.set_event_count(number_field(details, "eventfd-count:", 16));
    file.set_event_semaphore(number_field(details, "eventfd-semaphore:") != 0);
    return true;
  }
  if (entry.link == "anon_inode:[timerfd]") {
    return read_timer(entry, file);
  }
  if (entry.link == "anon_inode:[signalfd]") {
    if (!find_field(details, "sigmask:")) {
      return refuse_descriptor("UNKNOWN_DESCRIPTOR", entry, "the kernel does not show its state");
    }
    file.set_kind(wire::OpenFile::SIGNALFD);
    file.set_signal_mask(number_field(details, "sigmask:", 16));
    return true;
  }
  if (entry.link == "anon_inode:[eventpoll]") {
    file.set_kind(wire::OpenFile::EPOLL);
    read_watches(entry, file);
    return true;
  }
  return refuse_descriptor("UNKNOWN_DESCRIPTOR", entry);
}

bool DescriptorReader::read_timer(const Entry& entry, wire::OpenFile& file) {
  const std::string_view details = entry.details;
  if (!find_field(details, "clockid:") || !find_field(details, "it_value:")) {
    return refuse_descriptor("UNKNOWN_DESCRIPTOR", entry, "the kernel does not show its state");
  }
  file.set_kind(wire::OpenFile::TIMERFD);
  file.set_clock(static_cast<std::uint32_t>(number_field(details, "clockid:")));
  file.set_ticks(number_field(details, "ticks:"));
  file.set_settime_flags(static_cast<std::uint32_t>(number_field(details, "settime flags:", 8)));
  file.set_value_ns(parenthesised_time(details, "it_value:"));
  file.set_interval_ns(parenthesised_time(details, "it_interval:"));
  if (file.ticks() != 0 && file.interval_ns() != 0) {
    count_ticks(entry, file);
  }
  file.set_read_ns(static_cast<std::uint64_t>(clock_ns(CLOCK_MONOTONIC)));
  return true;
}

// A periodic timer that has expired and was not looked at since stands still; the kernel adds what
// it missed, and starts it again, when somebody asks for its time. The process would find the same.
void DescriptorReader::count_ticks(const Entry& entry, wire::OpenFile& file) const {
  const UniqueFd timer = fetch(entry.number);
  itimerspec now{};
  if (!timer.valid() || ::timerfd_gettime(timer.get(), &now) != 0) {
    return;
  }
  if (const auto details = read_file("/proc/self/fdinfo/" + std::to_string(timer.get()))) {
    file.set_ticks(number_field(*details, "ticks:"));
    file.set_value_ns(parenthesised_time(*details, "it_value:"));
  }
}

// Lines "tfd: 4 events: 19 data: 4d pos:0 ino:40e sdev:10", in the kernel's order.
void DescriptorReader::read_watches(const Entry& entry, wire::OpenFile& file) {
  std::string_view text = entry.details;
  while (!text.empty()) {
    std::string_view line = take_line(text);
    if (!line.starts_with("tfd:")) {
      continue;
    }
    take_word(line);
    const auto descriptor = parse_number(take_word(line));
    take_word(line);
    const auto events = parse_number(take_word(line), 16);
    take_word(line);
    const auto data = parse_number(take_word(line), 16);
    wire::EpollWatch& watch = *file.add_watches();
    watch.set_target(static_cast<std::uint32_t>(descriptor.value_or(0)));
    watch.set_events(static_cast<std::uint32_t>(events.value_or(0)));
    watch.set_data(data.value_or(0));
  }
}

// A watch belongs to an open file, not to the number it was made with, which may have been closed
// or used again since.
void DescriptorReader::check_watches() {
  for (const auto& [entry, index] : epolls_) {
    std::map<std::uint32_t, std::uint32_t> same_number;
    for (const wire::EpollWatch& watch : image_.files(index).watches()) {
      const std::uint32_t target = watch.target();
      kcmp_epoll_slot slot{entry.number, target, same_number[target]++};
      if (::syscall(SYS_kcmp, view_.pid, view_.pid, KCMP_EPOLL_TFD, target, &slot) != 0) {
        refuse_descriptor("EPOLL_STALE", entry, fmt::format("number {}", target));
      }
    }
  }
}

}  // namespace migrate::inspect
