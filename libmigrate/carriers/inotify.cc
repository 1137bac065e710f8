// Watches of files and folders (inotify(7)), by their paths: the destination watches its own of the
// same name. What changed meanwhile is not told, and no events wait in it.
#include <fcntl.h>
#include <fmt/core.h>
#include <sys/inotify.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/sysmacros.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cstring>
#include <optional>
#include <string>
#include <vector>

#include "base/file.h"
#include "libmigrate/carriers/file_here.h"
#include "libmigrate/carriers/internal/table.h"
#include "libmigrate/carriers/internal/tools.h"
#include "libmigrate/proc/file_identity.h"
#include "libmigrate/proc/proc_text.h"

namespace migrate::carriers {
namespace {

constexpr int kMostWatches = 1024;
constexpr std::uint32_t kHighestWatch = 4096;  // Each number below it costs two calls.
// What inotify_add_watch(2) takes; the kernel shows bits of its own beside them.
constexpr std::uint32_t kMask = IN_ALL_EVENTS | IN_EXCL_UNLINK | IN_ONESHOT;

/// A line of fdinfo: "inotify wd:1 ino:2 sdev:800003 mask:2 ignored_mask:0 fhandle-bytes:8
/// fhandle-type:1 f_handle:7e9e0000640d1b6d", all numbers in hexadecimal but the type's.
struct Watched {
  std::uint32_t number = 0;
  std::uint64_t inode = 0;
  std::uint64_t device = 0;  // as the kernel has it
  std::uint32_t mask = 0;
  int handle_type = 0;
  std::string handle;
};

std::uint64_t hexadecimal(std::string_view line, std::string_view key) {
  const std::size_t at = line.find(key);
  if (at == std::string_view::npos) {
    return 0;
  }
  line.remove_prefix(at + key.size());
  return parse_number(take_word(line), 16).value_or(0);
}

std::string handle_in(std::string_view line) {
  constexpr std::string_view kKey = " f_handle:";
  const std::size_t at = line.find(kKey);
  std::string bytes;
  if (at == std::string_view::npos) {
    return bytes;
  }
  line.remove_prefix(at + kKey.size());
  for (std::string_view digits = take_word(line); digits.size() >= 2; digits.remove_prefix(2)) {
    bytes.push_back(static_cast<char>(parse_number(digits.substr(0, 2), 16).value_or(0)));
  }
  return bytes;
}

std::vector<Watched> watches_in(std::string_view details) {
  std::vector<Watched> watches;
  while (!details.empty()) {
    const std::string_view line = take_line(details);
    if (!line.starts_with("inotify ")) {
      continue;
    }
    Watched& watch = watches.emplace_back();
    watch.number = static_cast<std::uint32_t>(hexadecimal(line, " wd:"));
    watch.inode = hexadecimal(line, " ino:");
    watch.device = hexadecimal(line, " sdev:");
    watch.mask = static_cast<std::uint32_t>(hexadecimal(line, " mask:")) & kMask;
    watch.handle_type = static_cast<int>(hexadecimal(line, " fhandle-type:"));
    watch.handle = handle_in(line);
  }
  return watches;
}

// Opens what a handle means by the mount at `mount`, of any file system there is.
UniqueFd open_handle(const std::string& mount, const Watched& watch) {
  alignas(file_handle) std::array<char, sizeof(file_handle) + MAX_HANDLE_SZ> space{};
  const auto at = open_file(mount, O_RDONLY | O_NONBLOCK);
  if (!at || watch.handle.empty() || watch.handle.size() > MAX_HANDLE_SZ) {
    return UniqueFd();
  }
  auto* handle = reinterpret_cast<file_handle*>(space.data());
  handle->handle_bytes = static_cast<unsigned>(watch.handle.size());
  handle->handle_type = watch.handle_type;
  std::memcpy(space.data() + offsetof(file_handle, f_handle), watch.handle.data(),
              watch.handle.size());
  return UniqueFd(::open_by_handle_at(at->get(), handle, O_PATH | O_CLOEXEC));
}

// Under which path the process sees what it watches: the kernel tells a handle, which some mount of
// that file system can open.
std::optional<wire::FileIdentity> find_watched(const FindContext& context, const Watched& watch) {
  constexpr unsigned kMinorBits = 20;
  const std::string device =
      fmt::format("{}:{}", watch.device >> kMinorBits, watch.device & ((1U << kMinorBits) - 1));
  const std::string process = "/proc/" + std::to_string(context.process());
  const std::string mounts = read_file(process + "/mountinfo").value_or("");
  std::string_view left = mounts;
  while (!left.empty()) {
    std::string_view line = take_line(left);
    take_word(line);
    take_word(line);
    const std::string_view where_from = take_word(line);
    take_word(line);
    if (where_from != device) {
      continue;
    }
    const UniqueFd fd = open_handle(process + "/root" + std::string(take_word(line)), watch);
    const std::string link = fd.valid() ? "/proc/self/fd/" + std::to_string(fd.get()) : "";
    const auto path = fd.valid() ? read_link(link) : Result<std::string>(std::string());
    auto identity = fd.valid() && path ? identify_at(fd.get(), "", *path)
                                       : Result<wire::FileIdentity>(wire::FileIdentity());
    if (identity && identity->inode() == watch.inode && context.leads_to(*path, *identity)) {
      return std::move(*identity);
    }
  }
  return std::nullopt;
}

// As it was found before, if it is the same.
std::optional<wire::FileIdentity> known_before(const FindContext& context, const Watched& watch) {
  if (context.draft() == nullptr) {
    return std::nullopt;
  }
  for (const wire::OpenFile& file : context.draft()->files()) {
    for (const wire::FileWatch& before : file.file_watches()) {
      if (before.number() == watch.number && before.file().inode() == watch.inode &&
          context.leads_to(before.file().path(), before.file())) {
        return before.file();
      }
    }
  }
  return std::nullopt;
}

bool find_inotify(FindContext& context, const Sighting& seen, wire::OpenFile& file) {
  int waiting = 0;
  const UniqueFd fd = context.fetch(seen.number);
  if (!fd.valid() || ::ioctl(fd.get(), FIONREAD, &waiting) != 0 || waiting != 0) {
    return context.refuse("INOTIFY_EVENTS", seen);
  }
  for (const Watched& watch : watches_in(seen.details)) {
    auto identity = known_before(context, watch);
    if (!identity) {
      identity = find_watched(context, watch);
    }
    if (!identity || watch.number == 0 || watch.number > kHighestWatch ||
        file.file_watches_size() >= kMostWatches ||
        filesystem_class(identity->filesystem_type()) == FilesystemClass::kKernel) {
      return context.refuse(
          "INOTIFY", seen, fmt::format("watch {} has no path, or they are too many", watch.number));
    }
    wire::FileWatch& one = *file.add_file_watches();
    one.set_number(watch.number);
    one.set_mask(watch.mask);
    *one.mutable_file() = std::move(*identity);
  }
  std::ranges::sort(*file.mutable_file_watches(), {}, &wire::FileWatch::number);
  return true;
}

const char* flaw_of_inotify(const wire::Objects& /*objects*/, const wire::OpenFile& file) {
  std::uint32_t before = 0;
  for (const wire::FileWatch& watch : file.file_watches()) {
    if (watch.number() <= before || watch.number() > kHighestWatch ||
        (watch.mask() & ~kMask) != 0 || !is_path(watch.file().path())) {
      return "file_watches";
    }
    before = watch.number();
  }
  return file.file_watches_size() <= kMostWatches ? nullptr : "file_watches";
}

void compare_inotify(CompareContext& context, const wire::OpenFile& file) {
  for (const wire::FileWatch& watch : file.file_watches()) {
    if (context.same_kernel() || !S_ISDIR(watch.file().mode())) {
      require_same_file(context, watch.file());
    } else {
      static_cast<void>(find_here(context, watch.file()));
    }
  }
}

Result<int> add_watch(int fd, int watched, std::uint32_t mask) {
  const int number =
      ::inotify_add_watch(fd, ("/proc/self/fd/" + std::to_string(watched)).c_str(), mask);
  if (number < 0) {
    return fail(system_error("watch a file"));
  }
  return number;
}

// Numbers are given in ascending order, and never again: those between are used up.
Result<void> add_numbered(int fd, int watched, const wire::FileWatch& watch) {
  for (;;) {
    const int number = MIGRATE_TRY(add_watch(fd, watched, watch.mask()));
    if (number == static_cast<int>(watch.number())) {
      return {};
    }
    if (number > static_cast<int>(watch.number()) || ::inotify_rm_watch(fd, number) != 0) {
      return fail(make_error(ErrorCode::kSystem, "watch", watch.file().path(),
                             "the kernel gives its watches other numbers"));
    }
  }
}

// Of what was told while it was made, the program is to know nothing.
void forget_events(int fd) {
  std::array<char, 4096> events{};
  while (::read(fd, events.data(), events.size()) > 0) {
  }
}

Result<UniqueFd> make_inotify(MakeContext& context, const wire::OpenFile& file) {
  UniqueFd made = context.created();
  for (const wire::FileWatch& watch : file.file_watches()) {
    const UniqueFd watched = MIGRATE_TRY(context.open(watch.file(), O_PATH));
    MIGRATE_TRY(add_numbered(made.get(), watched.get(), watch));
  }
  forget_events(made.get());
  MIGRATE_TRY(set_flags(made.get(), file.flags()));
  return made;
}

constexpr std::array kInotifyLines = std::to_array<ShownLine>({
    {.name = "inotify wd",
     .how = "by the paths; INOTIFY if one has none, INOTIFY_EVENTS if events wait"},
});

}  // namespace

constinit const Carrier kInotify{
    .kind = wire::OpenFile::INOTIFY,
    .name = "inotify",
    .lines = kInotifyLines,
    .claims_link =
        [](const FindContext& /*context*/, const Sighting& seen) {
          return seen.link == "anon_inode:inotify" || seen.link == "anon_inode:[inotify]";
        },
    .find = find_inotify,
    .has_state = [](const wire::OpenFile& /*file*/) { return true; },
    .flaw = flaw_of_inotify,
    .compare = compare_inotify,
    .create =
        [](Script& script, const wire::Objects& /*objects*/, const wire::OpenFile& /*file*/) {
          return script.must("make an inotify descriptor", SYS_inotify_init1,
                             {IN_CLOEXEC | IN_NONBLOCK});
        },
    .make = make_inotify,
    .opened_as_user = true,
};

}  // namespace migrate::carriers
