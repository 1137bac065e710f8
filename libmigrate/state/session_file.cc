#include "libmigrate/state/session_file.h"

#include <fcntl.h>
#include <signal.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <chrono>
#include <cstring>
#include <new>
#include <span>
#include <thread>

#include "base/file.h"
#include "base/log.h"
#include "libmigrate/trace/tracee.h"
#include "transport/preamble.h"

namespace migrate {
namespace {

// "MIGSSN02". The digits tell the layout of the mark.
constexpr std::uint64_t kMagic = 0x32304e53'5347494dULL;
constexpr std::uint64_t kAnyLayout = 0x0000ffff'ffffffffULL;
constexpr std::uint64_t kFirstText = 4096;
constexpr const char* kSuffix = ".session";
constexpr const char* kDamaged = ".damaged";
constexpr const char* kIdName = "/id";
constexpr std::size_t kIdDigits = 32;
constexpr unsigned kStatusShift = 32;

static_assert(sizeof(SessionMark) <= kFirstText);
static_assert(std::atomic<std::uint64_t>::is_always_lock_free);

// By a descriptor of its own: a lock lives as long as any mapping made by the locked one, and
// children have copies of all mappings.
Result<Mapping> map_words(const std::string& path) {
  const UniqueFd fd = MIGRATE_TRY(open_file(path, O_RDWR));
  return Mapping::of_file(fd.get(), kFirstText);
}

enum class Unread : std::uint8_t { kBroken, kOfEarlierBoot, kOfOtherVersion };

// Why a file could not be opened. All layouts begin with magic and boot id.
Unread reason_unread(const std::string& path) {
  struct stat status {};
  if (::stat(path.c_str(), &status) != 0 || status.st_size < off_t{kFirstText}) {
    return Unread::kBroken;
  }
  const auto words = map_words(path);
  if (!words) {
    return Unread::kBroken;
  }
  const auto& mark = *reinterpret_cast<const SessionMark*>(words->bytes().data());
  const std::string now = boot_id();
  if ((mark.magic & kAnyLayout) != (kMagic & kAnyLayout) ||
      ::strnlen(mark.boot, sizeof(mark.boot)) != now.size()) {
    return Unread::kBroken;
  }
  if (now != mark.boot) {
    return Unread::kOfEarlierBoot;
  }
  return mark.magic == kMagic ? Unread::kBroken : Unread::kOfOtherVersion;
}

Error file_error(const char* operation, const std::string& path) {
  return system_error(operation, path, "check space and permissions of the state directory");
}

}  // namespace

std::uint32_t SessionPhase::number() const {
  return static_cast<std::uint32_t>(word_.load());
}

int SessionPhase::wait_status() const {
  return static_cast<int>(static_cast<std::uint32_t>(word_.load() >> kStatusShift));
}

template <class Phase, class Step>
Phase SessionPhase::take_step(Step step, int wait_status) {
  std::uint64_t word = word_;
  for (;;) {
    const Phase now{static_cast<std::uint32_t>(word)};
    const Phase next = step(now);
    const std::uint64_t status = has_ended(now) || !has_ended(next)
                                     ? word >> kStatusShift
                                     : static_cast<std::uint32_t>(wait_status);
    const std::uint64_t wanted = status << kStatusShift | static_cast<std::uint32_t>(next);
    if (word == wanted || word_.compare_exchange_weak(word, wanted)) {
      return next;
    }
  }
}

GuestPhase SessionPhase::enter(GuestPhase wanted, int wait_status) {
  return take_step<GuestPhase>([&](GuestPhase now) { return next_phase(now, wanted); },
                               wait_status);
}

HomePhase SessionPhase::enter(HomePhase wanted, int wait_status) {
  return take_step<HomePhase>([&](HomePhase now) { return next_phase(now, wanted); }, wait_status);
}

GuestPhase SessionPhase::note_end(int wait_status) {
  return take_step<GuestPhase>(
      [&](GuestPhase now) { return next_phase(now, end_phase(now, wait_status)); }, wait_status);
}

std::string boot_id() {
  std::string id = read_file("/proc/sys/kernel/random/boot_id").value_or(std::string());
  while (!id.empty() && id.back() == '\n') {
    id.pop_back();
  }
  return id;
}

std::string home_session_name(const std::string& process) {
  return std::string(kHomePrefix) + process;
}

std::string cell_session_name(const std::string& session) {
  return std::string(kCellPrefix) + session;
}

std::string SessionFile::directory(const std::string& state_directory) {
  return state_directory + "/sessions";
}

Result<void> SessionFile::prepare(const std::string& state_directory) {
  const std::string path = directory(state_directory);
  if (::mkdir(path.c_str(), 0700) != 0 && errno != EEXIST) {
    return fail(system_error("create the directory", path));
  }
  if (::chmod(path.c_str(), 0700) != 0) {
    return fail(system_error("chmod", path));
  }
  const std::string id_path = path + kIdName;
  if (const auto known = read_file(id_path); known && known->size() == kIdDigits) {
    return {};
  }
  const std::string id = to_hex(MIGRATE_TRY(random_session_id()));
  const std::string draft = id_path + ".new";
  const UniqueFd file = MIGRATE_TRY(open_file(draft, O_WRONLY | O_CREAT | O_TRUNC, 0600));
  MIGRATE_TRY(write_all(file.get(), std::as_bytes(std::span(id))));
  if (::rename(draft.c_str(), id_path.c_str()) != 0) {
    return fail(system_error("rename", draft));
  }
  return {};
}

Result<std::string> SessionFile::incarnation(const std::string& state_directory) {
  const std::string path = directory(state_directory) + kIdName;
  const auto id = read_file(path);
  if (!id || id->size() != kIdDigits) {
    return fail(make_error(ErrorCode::kNotFound, "read", path,
                           "the state directory was emptied; start migrated again"));
  }
  return boot_id() + "/" + *id;
}

Result<SessionFile> SessionFile::lock(UniqueFd fd, std::string path) {
  if (::flock(fd.get(), LOCK_EX | LOCK_NB) != 0) {
    return fail(make_error(ErrorCode::kRefused, "take over", path, "its worker lives"));
  }
  struct stat now {};
  struct stat ours {};
  if (::fstat(fd.get(), &ours) != 0 || ::stat(path.c_str(), &now) != 0 ||
      ours.st_ino != now.st_ino) {
    return fail(make_error(ErrorCode::kNotFound, "take over", path));  // Its worker removed it.
  }
  Mapping words = MIGRATE_TRY(map_words(path));
  return SessionFile(std::move(fd), std::move(words), std::move(path));
}

Result<SessionFile> SessionFile::create(const std::string& state_directory,
                                        const std::string& name) {
  const std::string path = directory(state_directory) + "/" + name + kSuffix;
  const std::string draft = path + ".new";  // Seen under its name only when locked and whole.
  ::unlink(draft.c_str());
  UniqueFd fd(::open(draft.c_str(), O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0600));
  if (!fd.valid()) {
    return fail(file_error("create", draft));
  }
  // Allocated now: a full disk shall be an error here, not a signal later.
  const int error = ::posix_fallocate(fd.get(), 0, kFirstText);
  const bool ready = error == 0 && ::flock(fd.get(), LOCK_EX | LOCK_NB) == 0;
  auto words = ready ? map_words(draft)
                     : Result<Mapping>(fail(system_error_from(
                           error != 0 ? error : errno, "allocate", draft,
                           "check space and permissions of the state directory")));
  if (words) {
    auto& mark = *new (words->bytes().data()) SessionMark;
    const std::string boot = boot_id();
    std::copy_n(boot.data(), std::min(boot.size(), sizeof(mark.boot) - 1), mark.boot);
    mark.worker = ::getpid();
    mark.worker_start = start_time(::getpid());
    if (name.starts_with(kHomePrefix)) {
      mark.phase.become_home();
    }
    mark.magic = kMagic;
  }
  const bool linked = words && ::link(draft.c_str(), path.c_str()) == 0;
  const int reason = errno;
  ::unlink(draft.c_str());
  if (!words) {
    return fail(words.error());
  }
  if (!linked) {
    return fail(reason == EEXIST ? make_error(ErrorCode::kRefused, "begin a session", path)
                                 : system_error_from(reason, "create", path));
  }
  return SessionFile(std::move(fd), std::move(*words), path);
}

Result<SessionFile> SessionFile::open(const std::string& state_directory, const std::string& name) {
  const std::string path = directory(state_directory) + "/" + name + kSuffix;
  SessionFile file = MIGRATE_TRY(lock(MIGRATE_TRY(open_file(path, O_RDWR)), path));
  struct stat status {};
  if (::fstat(file.fd(), &status) != 0 || status.st_size < static_cast<off_t>(kFirstText) ||
      file.mark().magic != kMagic || boot_id() != file.mark().boot ||
      !is_phase(file.mark().phase.number(), name.starts_with(kHomePrefix))) {
    return fail(make_error(ErrorCode::kCorrupt, "read", path));
  }
  return file;
}

// Kept: a cell may live of which it told.
void SessionFile::set_aside(const std::string& path, const char* what) {
  log::error("{} {}; set aside as {}{}: what became of its process has to be looked for", path,
             what, path, kDamaged);
  ::rename(path.c_str(), (path + kDamaged).c_str());
}

void SessionFile::set_aside() const {
  set_aside(path_, "is damaged");
}

bool SessionFile::is_damaged(const std::string& state_directory, const std::string& name) {
  const std::string path = directory(state_directory) + "/" + name + kSuffix + kDamaged;
  return ::access(path.c_str(), F_OK) == 0;
}

std::vector<std::string> SessionFile::list(const std::string& state_directory,
                                           const std::set<std::string>& known) {
  std::vector<std::string> names;
  for (std::string& name :
       list_directory(directory(state_directory)).value_or(std::vector<std::string>())) {
    if (!name.ends_with(kSuffix)) {
      continue;
    }
    name.resize(name.size() - std::strlen(kSuffix));
    if (!known.contains(name)) {
      const auto file = open(state_directory, name);
      if (!file && file.error().code == ErrorCode::kCorrupt) {
        const std::string path = directory(state_directory) + "/" + name + kSuffix;
        const Unread reason = reason_unread(path);
        if (reason == Unread::kOfEarlierBoot) {
          ::unlink(path.c_str());
        } else {
          set_aside(path, reason == Unread::kOfOtherVersion
                              ? "was written by another version of migrated"
                              : "is damaged");
        }
        continue;
      }
    }
    names.push_back(std::move(name));
  }
  return names;
}

bool SessionFile::worker_gone() const {
  return !ProcessIdentity{mark().worker, mark().worker_start}.is_alive();
}

Result<void> SessionFile::await_worker_gone() const {
  constexpr auto kPause = std::chrono::milliseconds(5);
  constexpr int kPauses = 1000;
  for (int i = 0; !worker_gone(); ++i) {
    if (i == kPauses) {
      return fail(make_error(ErrorCode::kRetry, "take over from", "a worker that does not end"));
    }
    std::this_thread::sleep_for(kPause);
  }
  return {};
}

// A process that was still to die with its tracer was killed before that one was gone.
void SessionFile::await_start() const {
  constexpr auto kPause = std::chrono::milliseconds(2);
  while (is_starting(mark().phase.guest()) && is_dying(mark().process)) {
    std::this_thread::sleep_for(kPause);
  }
}

void SessionFile::take() {
  mark().worker = ::getpid();
  mark().worker_start = start_time(::getpid());
}

Result<void> SessionFile::save(std::string_view text) {
  if (text == saved_ && mark().length[mark().slot] == text.size()) {
    return {};
  }
  SessionMark& words = mark();
  const std::uint32_t other = 1 - words.slot;
  if (words.capacity[other] < text.size()) {
    const std::uint64_t before = words.capacity[1 - other];
    const std::uint64_t end = before == 0 ? kFirstText : words.offset[1 - other] + before;
    const std::uint64_t beyond = std::max(end, words.offset[other] + words.capacity[other]);
    words.offset[other] = beyond;
    words.capacity[other] = 2 * text.size();
  }
  const ssize_t count =
      ::pwrite(fd_.get(), text.data(), text.size(), static_cast<off_t>(words.offset[other].load()));
  if (count != static_cast<ssize_t>(text.size())) {
    return fail(file_error("write", path_));
  }
  words.length[other] = text.size();
  words.slot = other;
  ++words.saves;
  saved_ = text;
  return {};
}

Result<std::string> SessionFile::load() const {
  const SessionMark& words = mark();
  struct stat status {};
  const std::uint64_t slot = words.slot;
  const std::uint64_t length = slot < 2 ? words.length[slot].load() : 0;
  if (slot > 1 || ::fstat(fd_.get(), &status) != 0 ||
      length > static_cast<std::uint64_t>(status.st_size)) {
    return fail(make_error(ErrorCode::kCorrupt, "read", path_));
  }
  std::string text(length, '\0');
  const ssize_t count =
      ::pread(fd_.get(), text.data(), text.size(), static_cast<off_t>(words.offset[slot].load()));
  if (count != static_cast<ssize_t>(text.size())) {
    return fail(make_error(ErrorCode::kCorrupt, "read", path_));
  }
  return text;
}

// The text that counts is not written over before another one does.
Result<std::string> SessionFile::peek(const std::string& state_directory, const std::string& name) {
  constexpr int kTries = 1000;
  const std::string path = directory(state_directory) + "/" + name + kSuffix;
  UniqueFd fd = MIGRATE_TRY(open_file(path, O_RDWR));
  struct stat status {};
  if (::fstat(fd.get(), &status) != 0 || status.st_size < static_cast<off_t>(kFirstText)) {
    return fail(make_error(ErrorCode::kCorrupt, "read", path));
  }
  Mapping words = MIGRATE_TRY(map_words(path));
  const SessionFile file(std::move(fd), std::move(words), path);
  if (file.mark().magic != kMagic) {
    return fail(make_error(ErrorCode::kCorrupt, "read", path));
  }
  for (int i = 0; i < kTries; ++i) {
    const std::uint64_t before = file.mark().saves;
    auto text = file.load();
    if (file.mark().saves == before) {
      return text;
    }
  }
  return fail(make_error(ErrorCode::kRetry, "read", path));
}

void SessionFile::remove() const {
  ::unlink(path_.c_str());
}

}  // namespace migrate
