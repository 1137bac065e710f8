#include "libmigrate/guest/guest_pages.h"

#include <fcntl.h>
#include <fmt/core.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include <span>
#include <utility>

#include "base/file.h"
#include "base/log.h"
#include "libmigrate/pages/channel_link.h"
#include "libmigrate/pages/one_sided_link.h"

namespace migrate {
namespace {

constexpr std::size_t kTraceRuns = std::size_t{1} << 18U;  // 10 MiB

}  // namespace

GuestPages::GuestPages(CellControl& cell, std::string name, const SessionId& session)
    : cell_(cell),
      name_(std::move(name)),
      session_(session),
      events_(::eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK)) {}

GuestPages::~GuestPages() = default;

void GuestPages::wake() const {
  static_cast<void>(::eventfd_write(events_.get(), 1));
}

PagerOptions GuestPages::options(std::uint32_t spin_us, const MovePlan& plan, pid_t init) {
  PagerOptions options;
  options.spin_us = spin_us;
  options.prefetch_pages = plan.prefetch ? options.prefetch_pages : 0;
  options.hurries = plan.all_before_run;
  options.trace_runs = trace_path_.empty() ? 0 : kTraceRuns;
  options.process = cell_.seed();
  options.process_tree = init;
  options.on_fork = [this](const PagerSpace& space) { keep_space(space); };
  options.on_done = [this] {
    done_ = true;
    wake();
  };
  options.on_faults = [this] { wake(); };
  options.on_link_lost = [this](const Error& error) {
    log::debug("pages of session {}: {}", to_hex(session_), error.message());
    link_lost_ = true;
    wake();
  };
  return options;
}

// By a thread of the pager: before the child runs far, a new worker would find it.
void GuestPages::keep_space(const PagerSpace& space) {
  Kept what{.kind = Kept::Kind::kUserfault, .number = space.number, .parent = space.parent};
  int fd = space.userfault;
  if (space.ledger >= 0) {
    what.kind = Kept::Kind::kLedger;
    fd = space.ledger;
  }
  const auto kept = cell_.keep(what, fd);
  if (kept) {
    return;
  }
  log::error(
      "the cell of process {} does not keep the memory of a child: {}; until it does, that is lost "
      "if this worker dies",
      name_, kept.error().message());
  const MutexLock lock(mutex_);
  unkept_.push_back({what, UniqueFd(::fcntl(fd, F_DUPFD_CLOEXEC, 0))});
  wake();
}

// A duplicate of a userfaultfd that nobody serves any more would make the process wait for ever:
// what is not needed any more is not kept.
void GuestPages::keep_again() {
  const MutexLock lock(mutex_);
  if (done_) {
    unkept_.clear();
  }
  std::erase_if(unkept_, [this](const Unkept& unkept) {
    return !unkept.fd.valid() || cell_.keep(unkept.what, unkept.fd.get()).has_value();
  });
}

// Who may not connect was told so, and is no failure of the session.
void GuestPages::accept() {
  constexpr int kRefusalsTold = 10;
  auto accepted = listener_->accept(0);
  if (!accepted) {
    const Error& error = accepted.error();
    const bool refused = error.code == ErrorCode::kRefused;
    refusals_ += refused ? 1 : 0;
    if (error.code != ErrorCode::kRetry && (!refused || refusals_ <= kRefusalsTold)) {
      log::warn("session {}: {}{}", to_hex(session_), error.message(),
                refused && refusals_ == kRefusalsTold ? "; no more of these are told" : "");
    }
    if (error.code == ErrorCode::kUnsupported) {
      listener_.reset();  // The device waits for it to go.
    }
    return;
  }
  take(accepted->purpose, std::move(accepted->channel));
}

Result<void> GuestPages::stage(std::uint64_t most_pages, std::function<void()> on_round) {
  UniqueFd memory =
      MIGRATE_TRY(open_file("/proc/" + std::to_string(cell_.seed()) + "/mem", O_RDWR | O_CLOEXEC));
  staging_ = std::make_unique<StagedPages>(std::move(bulk_), *pager_, std::move(memory), most_pages,
                                           std::move(on_round));
  return {};
}

Result<void> GuestPages::end_staging(const DiscardPages& discard) {
  const PageSet kept = MIGRATE_TRY(staging_->finish());
  bulk_ = staging_->take_back();
  staging_.reset();
  return pager_->keep_staged(kept, discard);
}

Result<void> GuestPages::start() {
  return pager_->start(make_urgent_link(std::move(urgent_), pages_read_),
                       std::make_unique<ChannelLink>(std::move(bulk_)));
}

void GuestPages::take(Purpose purpose, std::unique_ptr<Channel> channel) {
  (purpose == Purpose::kBulk ? bulk_ : urgent_) = std::move(channel);
}

void GuestPages::collect_poll_fds(std::vector<pollfd>& polled) {
  polled.push_back({events_.get(), POLLIN, 0});
  polled.push_back({listener_fd(), POLLIN, 0});
}

void GuestPages::follow(bool independent) {
  std::uint64_t ignored = 0;
  static_cast<void>(::read(events_.get(), &ignored, sizeof(ignored)));
  if (listener_ && independent) {
    listener_.reset();
  } else if (listener_) {
    accept();
  }
  keep_again();
  if (done()) {
    write_trace();
  }
  if (!independent && linked()) {
    resume();
  }
}

void GuestPages::resume() {
  link_lost_ = false;
  auto urgent = make_urgent_link(std::move(urgent_), pages_read_);
  auto bulk = std::make_unique<ChannelLink>(std::move(bulk_));
  auto resumed = pager_->started() ? pager_->resume(std::move(urgent), std::move(bulk))
                                   : pager_->start(std::move(urgent), std::move(bulk));
  if (resumed) {
    log::info("session {} goes on over new connections", to_hex(session_));
  } else {
    log::warn("session {}: {}", to_hex(session_), resumed.error().message());
    link_lost_ = true;
  }
}

void GuestPages::stop() {
  if (pager_) {
    pager_->stop();
    write_trace();
  }
}

// A line for each run: microseconds (CLOCK_REALTIME), way, address, pages.
void GuestPages::write_trace() {
  const std::string path = std::exchange(trace_path_, {});
  if (path.empty()) {
    return;
  }
  const ArrivalTrace trace = pager_->arrivals();
  std::string text;
  for (const PageArrival& one : trace.all()) {
    text += fmt::format("{} {} {:#x} {}\n", one.at_us, to_string(one.way), one.pages.start,
                        one.pages.page_count);
  }
  const auto file = open_file(path, O_WRONLY | O_CREAT | O_TRUNC);
  const auto written = file ? write_all(file->get(), std::as_bytes(std::span(text)))
                            : Result<void>(fail(file.error()));
  if (!written) {
    log::warn("session {}: {}", to_hex(session_), written.error().message());
  }
  if (trace.left_out() > 0) {
    log::warn("session {}: the trace has no room for {} pages", to_hex(session_), trace.left_out());
  }
}

std::uint64_t GuestPages::owed_to_first() const {
  return pager_ ? pager_->statistics().first_owed_pages : 0;
}

wire::Progress GuestPages::progress() const {
  wire::Progress progress;
  if (!pager_) {
    progress.set_done(true);
    return progress;
  }
  const PagerStatistics statistics = pager_->statistics();
  progress.set_owed_pages(pager_->owed_pages());
  for (const PageCounter& counter : kPageCounters) {
    (*progress.mutable_pages())[std::string(counter.name)] = statistics.*counter.pages;
  }
  progress.set_one_sided_pages(pages_read_);
  progress.set_stalled_ns(statistics.stalled_ns);
  progress.set_faults(statistics.remote_faults);
  progress.set_fault_p50_us(statistics.fault_p50_us);
  progress.set_fault_p99_us(statistics.fault_p99_us);
  progress.set_fault_max_us(statistics.fault_max_us);
  return progress;
}

}  // namespace migrate
