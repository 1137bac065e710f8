#include "libmigrate/host/mailbox.h"

#include <poll.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <atomic>
#include <deque>
#include <list>

#include "base/log.h"
#include "base/log_quota.h"
#include "base/mutex.h"
#include "base/thread.h"
#include "libmigrate/host/letter_request.h"
#include "libmigrate/host/mailbox_path.h"
#include "transport/peer_origin.h"
#include "transport/proof.h"
#include "transport/wait.h"

namespace migrate {
namespace {

constexpr int kLetterTimeoutMs = 1000;
constexpr int kProofTimeoutMs = 5000;
/// At the door at once, so that strangers cost little: for one more, that one goes which has been
/// there longest in the largest group.
constexpr std::size_t kMaxVisitors = 16;
/// With those that were sent away and whose threads have not ended yet.
constexpr std::size_t kMaxThreads = 2 * kMaxVisitors;
/// Let in and not yet taken by the worker. Whoever comes when so many wait is refused.
constexpr std::size_t kMaxLetters = 64;

Result<UniqueFd> make_event(unsigned flags) {
  UniqueFd event(::eventfd(0, static_cast<int>(EFD_CLOEXEC | EFD_NONBLOCK | flags)));
  if (!event.valid()) {
    return fail(system_error("make an eventfd"));
  }
  return event;
}

std::optional<Preamble> preamble_of(const std::vector<std::byte>& bytes) {
  if (bytes.size() != kPreambleBytes || bytes.front() != std::byte{'L'}) {
    return std::nullopt;
  }
  std::array<std::byte, kPreambleBytes> copy{};
  std::copy(bytes.begin(), bytes.end(), copy.begin());
  auto preamble = decode_preamble(copy);
  return preamble ? std::optional(*preamble) : std::nullopt;
}

}  // namespace

/// Where letters come in. One thread accepts; each peer at the door has a thread while it proves
/// who it is.
class Mailbox::Door {
 public:
  /// What may be logged of strangers, one quota for each kind of line.
  struct Quotas {
    LogQuota turned_away;
    LogQuota refused;
  };

  Door(UnixListener listener, std::string name, UniqueFd news, UniqueFd end, PeerOrigins origins,
       Quotas quotas)
      : listener_(std::move(listener)),
        name_(std::move(name)),
        news_(std::move(news)),
        end_(std::move(end)),
        origins_(std::move(origins)),
        quotas_(std::move(quotas)) {}
  Door(const Door&) = delete;
  Door& operator=(const Door&) = delete;

  ~Door() {
    close();
    while (auto letter = take()) {
      refuse_letter(std::move(*letter), MIGRATE_FAILED,
                    make_error(ErrorCode::kRetry, "carry out a request", "mailbox " + name_,
                               "its worker has ended; try again"));
    }
  }

  Result<void> open(Admission admission) {
    admission_ = std::move(admission);
    keeper_ = MIGRATE_TRY(start_thread([this] { keep(); }));
    return {};
  }

  void close();
  int news() const { return news_.get(); }

  std::optional<Letter> take() {
    std::uint64_t ignored = 0;
    if (::read(news_.get(), &ignored, sizeof(ignored)) < 0) {
      return std::nullopt;  // A semaphore: as many reads as letters.
    }
    const MutexLock lock(mutex_);
    Letter letter = std::move(letters_.front());
    letters_.pop_front();
    return letter;
  }

 private:
  struct Visitor {
    std::string group;           // see PeerOrigin
    bool was_sent_away = false;  // the keeper's
    UniqueFd socket;             // a duplicate, by which it can be turned away; under mutex_
    std::thread thread;
    std::atomic<bool> left = false;
  };

  void keep();
  void let_in();
  void receive(const UniqueFd& connection);
  void show_in(UniqueFd connection, const Preamble& preamble);
  void examine(Visitor& visitor, UniqueFd connection, const Preamble& preamble);
  Result<Letter> admit(UniqueFd connection, const Preamble& preamble) const;
  void put(Letter letter);
  void forget_visitors();
  void make_room();
  void send_away(Visitor& visitor);

  UnixListener listener_;
  const std::string name_;
  const UniqueFd news_;
  const UniqueFd end_;
  const PeerOrigins origins_;  // the keeper's
  const Quotas quotas_;
  Admission admission_;
  std::thread keeper_;

  Mutex mutex_;
  std::deque<Letter> letters_ MIGRATE_GUARDED_BY(mutex_);
  std::list<Visitor> visitors_;  // the keeper's; its owner's when that has ended
};

void Mailbox::Door::keep() {
  for (;;) {
    std::array<pollfd, 2> polled{pollfd{listener_.fd(), POLLIN, 0}, pollfd{end_.get(), POLLIN, 0}};
    ::poll(polled.data(), polled.size(), -1);
    if (polled[1].revents != 0) {
      return;
    }
    forget_visitors();
    if (polled[0].revents != 0) {
      let_in();
    }
  }
}

void Mailbox::Door::close() {
  static_cast<void>(::eventfd_write(end_.get(), 1));
  if (keeper_.joinable()) {
    keeper_.join();
  }
  listener_.close_door();
  for (auto last = listener_.accept(0); last; last = listener_.accept(0)) {
    receive(*last);
  }
  for (Visitor& visitor : visitors_) {
    send_away(visitor);
  }
  for (Visitor& visitor : visitors_) {
    visitor.thread.join();
  }
  visitors_.clear();
}

void Mailbox::Door::let_in() {
  if (const auto connection = listener_.accept(0)) {
    receive(*connection);
  } else if (connection.error().code != ErrorCode::kRetry) {
    log::warn("mailbox {}: {}", name_, connection.error().message());
    // What would come again at once, such as no descriptors left, is not tried at full speed.
    constexpr int kPauseMs = 50;
    ::poll(nullptr, 0, kPauseMs);
  }
}

void Mailbox::Door::receive(const UniqueFd& connection) {
  auto handoff = receive_descriptor(connection.get(), kLetterTimeoutMs);
  if (!handoff) {
    log::warn("mailbox {}: {}", name_, handoff.error().message());
    return;
  }
  if (const auto preamble = preamble_of(handoff->bytes)) {
    show_in(std::move(handoff->fd), *preamble);
    return;
  }
  Letter letter;
  letter.fd = std::move(handoff->fd);
  letter.request.assign(reinterpret_cast<const char*>(handoff->bytes.data()),
                        handoff->bytes.size());
  put(std::move(letter));
}

void Mailbox::Door::show_in(UniqueFd connection, const Preamble& preamble) {
  make_room();
  auto duplicate = connection.duplicate();
  if (visitors_.size() >= kMaxThreads || !duplicate) {
    log::warn(quotas_.turned_away, "mailbox {}: turned away a connection: {}", name_,
              duplicate ? std::to_string(visitors_.size()) + " wait at the door"
                        : duplicate.error().message());
    refuse_for_now(connection.get());
    return;
  }
  Visitor& visitor = visitors_.emplace_back();
  visitor.group = origins_.of(connection.get()).group;
  visitor.socket = std::move(*duplicate);
  auto thread = start_thread([this, &visitor, preamble, fd = std::move(connection)]() mutable {
    examine(visitor, std::move(fd), preamble);
    visitor.left = true;
  });
  if (!thread) {
    log::warn(quotas_.turned_away, "mailbox {}: turned away a connection: {}", name_,
              thread.error().message());
    refuse_for_now(visitor.socket.get());
    visitors_.pop_back();
    return;
  }
  visitor.thread = std::move(*thread);
}

void Mailbox::Door::make_room() {
  std::map<std::string_view, std::size_t> groups;
  std::size_t waiting = 0;
  for (const Visitor& visitor : visitors_) {
    if (!visitor.was_sent_away && !visitor.left) {
      ++groups[visitor.group];
      ++waiting;
    }
  }
  if (waiting < kMaxVisitors) {
    return;
  }
  const auto largest =
      std::max_element(groups.begin(), groups.end(),
                       [](const auto& a, const auto& b) { return a.second < b.second; });
  const auto oldest = std::find_if(visitors_.begin(), visitors_.end(), [&](const Visitor& visitor) {
    return !visitor.was_sent_away && !visitor.left && visitor.group == largest->first;
  });
  if (oldest == visitors_.end()) {
    return;  // It has just left by itself.
  }
  log::warn(quotas_.turned_away, "mailbox {}: sent one of {} away, of which {} wait at the door",
            name_, largest->first, largest->second);
  send_away(*oldest);
}

void Mailbox::Door::send_away(Visitor& visitor) {
  visitor.was_sent_away = true;
  const MutexLock lock(mutex_);
  if (visitor.socket.valid()) {
    ::shutdown(visitor.socket.get(), SHUT_RDWR);
  }
}

void Mailbox::Door::forget_visitors() {
  std::erase_if(visitors_, [](Visitor& visitor) {
    if (visitor.left) {
      visitor.thread.join();
      return true;
    }
    return false;
  });
}

void Mailbox::Door::examine(Visitor& visitor, UniqueFd connection, const Preamble& preamble) {
  const std::string from = peer_name(connection.get());
  auto letter = admit(std::move(connection), preamble);
  {
    // From here on the connection is the worker's, and ends when that closes it.
    const MutexLock lock(mutex_);
    visitor.socket.reset();
  }
  if (letter) {
    put(std::move(*letter));
  } else {
    log::warn(quotas_.refused, "refused a connection from {} to {} (purpose {}): {}", from, name_,
              static_cast<int>(preamble.purpose), letter.error().message());
  }
}

Result<Letter> Mailbox::Door::admit(UniqueFd connection, const Preamble& preamble) const {
  const auto rule = admission_.rules.find(preamble.purpose);
  if (rule == admission_.rules.end()) {
    return fail(make_error(ErrorCode::kRefused, "let in a connection", {},
                           "this worker takes none of its purpose"));
  }
  auto peer =
      MIGRATE_TRY(admission_.trust.accept(std::move(connection), preamble, kProofTimeoutMs));
  if (const std::string reason = rule->second(peer.identity); !reason.empty()) {
    return fail(make_error(ErrorCode::kRefused, "let in", peer.identity.to_string(), reason));
  }
  MIGRATE_TRY(ask_proof(*peer.channel, admission_.token, preamble, kProofTimeoutMs));
  Letter letter;
  letter.preamble = preamble;
  letter.channel = std::move(peer.channel);
  letter.peer = std::move(peer.identity);
  return letter;
}

void Mailbox::Door::put(Letter letter) {
  {
    const MutexLock lock(mutex_);
    if (letters_.size() < kMaxLetters) {
      letters_.push_back(std::move(letter));
      static_cast<void>(::eventfd_write(news_.get(), 1));
      return;
    }
  }
  log::warn(quotas_.refused, "mailbox {}: refused a letter, as {} wait to be read", name_,
            kMaxLetters);
  pollfd client{letter.fd.get(), POLLOUT, 0};
  if (client.fd >= 0 && ::poll(&client, 1, 0) != 1) {
    return;  // Whoever has filled his own socket hears nothing, and does not stop the door.
  }
  refuse_letter(std::move(letter), MIGRATE_FAILED,
                make_error(ErrorCode::kRetry, "carry out a request", "mailbox " + name_,
                           "its worker is busy, and too many others wait; try again"));
}

Mailbox::Mailbox(std::unique_ptr<Door> door) : door_(std::move(door)) {}
Mailbox::Mailbox(Mailbox&&) noexcept = default;
Mailbox& Mailbox::operator=(Mailbox&&) noexcept = default;
Mailbox::~Mailbox() = default;

Result<Mailbox> Mailbox::create(const std::string& state_directory, const std::string& name) {
  UnixListener listener =
      MIGRATE_TRY(UnixListener::create(mailbox_path(state_directory, name), 0600));
  UniqueFd news = MIGRATE_TRY(make_event(EFD_SEMAPHORE));
  UniqueFd end = MIGRATE_TRY(make_event(0));
  PeerOrigins origins = MIGRATE_TRY(PeerOrigins::create());
  Door::Quotas quotas{MIGRATE_TRY(LogQuota::create()), MIGRATE_TRY(LogQuota::create())};
  return Mailbox(std::make_unique<Door>(std::move(listener), name, std::move(news), std::move(end),
                                        std::move(origins), std::move(quotas)));
}

Result<void> Mailbox::open(Admission admission) {
  return door_->open(std::move(admission));
}

void Mailbox::close() {
  door_->close();
}

int Mailbox::fd() const {
  return door_->news();
}

Result<Letter> Mailbox::receive(int timeout_ms) {
  const Deadline deadline(timeout_ms);
  for (;;) {
    if (auto letter = door_->take()) {
      return std::move(*letter);
    }
    if (MIGRATE_TRY(wait_for(door_->news(), POLLIN, deadline)) == 0) {
      return fail(make_error(ErrorCode::kRetry, "wait for a letter"));
    }
  }
}

}  // namespace migrate
