#include "tools/migrated/link_keeper.h"

#include <fcntl.h>
#include <sys/file.h>
#include <sys/prctl.h>
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <map>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "base/log.h"
#include "libmigrate/migrate.h"
#include "libmigrate/requests/json_member.h"
#include "libmigrate/state/name_book.h"
#include "tools/migrated/ask_home.h"
#include "tools/migrated/home_answers.h"

namespace migrate {
namespace {

using Clock = std::chrono::steady_clock;

constexpr std::chrono::milliseconds kLookPause{500};
constexpr std::chrono::milliseconds kShortestPause{1'000};
constexpr std::chrono::milliseconds kLongestPause{30'000};
/// In each turn no user's links take longer than this, and one question.
constexpr std::chrono::seconds kTimeOfUser{3};

/// Whether nothing is to be done about it any more.
bool follow(const LocalService& service, const EndLink& link) {
  const auto asker = asker_from(parse_object(link.asker));
  if (!asker) {
    log::error("the link of {} is dropped: {}", link.process, asker.error().message());
    return true;
  }
  const auto answer =
      ask_home(service, {.asker = *asker,
                         .identity = link.other,
                         .wanted = KillRequest{static_cast<std::uint32_t>(link.signal)}});
  const bool is_told =
      answer && (answer->exit_code == MIGRATE_DONE || answer->exit_code == MIGRATE_REFUSED ||
                 answer->exit_code == MIGRATE_USAGE ||
                 answer->error_code() == to_string(ErrorCode::kNotFound));
  const std::string came_to =
      !answer ? answer.error().message()
      : answer->exit_code == MIGRATE_DONE
          ? "signal " + std::to_string(link.signal) + " sent"
          : text_member(answer->result.value("error", nlohmann::json::object()), "message");
  log::info("{} has ended, and {} is linked to it: {}{}", link.process, link.other, came_to,
            is_told ? "" : "; tried again");
  return is_told;
}

class LinkKeeper {
 public:
  LinkKeeper(const LocalService& service, NameBook book)
      : service_(service), book_(std::move(book)) {}

  /// One turn. False: there are none.
  Result<bool> look() {
    const std::vector<EndLink> links = MIGRATE_TRY(book_.links());
    std::erase_if(attempts_, [&](const auto& attempt) {
      return std::ranges::none_of(links,
                                  [&](const EndLink& link) { return of(link) == attempt.first; });
    });
    std::map<uid_t, Clock::duration> spent;
    for (const EndLink& link : links) {
      if (is_over(link.process) && spent[link.user] < kTimeOfUser) {
        MIGRATE_TRY(attempt(link, spent[link.user]));
      }
    }
    return !links.empty();
  }
  /// Whether there are none still, once the mark is away: what came between set it too early.
  bool is_done(const std::string& mark) {
    ::unlink(mark.c_str());
    const auto links = book_.links();
    if (links && links->empty()) {
      return true;
    }
    static_cast<void>(book_.mark_links());
    return false;
  }

 private:
  using Ends = std::pair<std::string, std::string>;
  struct Attempt {
    Clock::time_point next;
    std::chrono::milliseconds pause{kShortestPause};
  };
  static Ends of(const EndLink& link) { return {link.process, link.other}; }

  Result<void> attempt(const EndLink& link, Clock::duration& spent) {
    const auto begun = Clock::now();
    Attempt& last = attempts_[of(link)];
    if (begun < last.next) {
      return {};
    }
    if (follow(service_, link)) {
      MIGRATE_TRY(book_.unlink(link.process, link.other));
    }
    last.next = Clock::now() + last.pause;
    last.pause = std::min(2 * last.pause, kLongestPause);
    spent += Clock::now() - begun;
    return {};
  }

  const LocalService& service_;
  NameBook book_;
  std::map<Ends, Attempt> attempts_;
};

}  // namespace

std::optional<UniqueFd> take_links(const std::string& state_directory) {
  if (::access(NameBook::links_mark(state_directory).c_str(), F_OK) != 0) {
    return std::nullopt;
  }
  const std::string path = state_directory + "/links.lock";
  UniqueFd lock(::open(path.c_str(), O_RDWR | O_CREAT | O_CLOEXEC, 0600));
  return lock.valid() && ::flock(lock.get(), LOCK_EX | LOCK_NB) == 0
             ? std::optional(std::move(lock))
             : std::nullopt;
}

void keep_links(const LocalService& service, UniqueFd taken) {
  ::prctl(PR_SET_NAME, "migrated-links");
  const pid_t daemon = ::getppid();
  auto book = NameBook::open(service.context.state_directory);
  if (!book) {
    log::error("links of processes are not followed: {}", book.error().message());
    std::this_thread::sleep_for(kLongestPause);  // The next one would meet the same.
    return;
  }
  LinkKeeper keeper(service, std::move(*book));
  const std::string mark = NameBook::links_mark(service.context.state_directory);
  while (::getppid() == daemon) {
    const auto has_some = keeper.look();
    if (!has_some) {
      log::warn("{}", has_some.error().message());
    } else if (!*has_some && keeper.is_done(mark)) {
      break;
    }
    std::this_thread::sleep_for(kLookPause);
  }
  taken.reset();
}

}  // namespace migrate
