#include "libmigrate/guest/guest_worker.h"

#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <sys/eventfd.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cctype>
#include <iterator>
#include <limits>
#include <optional>
#include <thread>

#include "base/clock.h"
#include "base/file.h"
#include "base/log.h"
#include "base/realtime_scope.h"
#include "libmigrate/capture/timer_advance.h"
#include "libmigrate/guest/guest.h"
#include "libmigrate/guest/offer_verdict.h"
#include "libmigrate/image/address_space.h"
#include "libmigrate/image/image_form.h"
#include "libmigrate/pages/channel_link.h"
#include "libmigrate/proc/pagemap.h"
#include "libmigrate/restore/descriptors.h"
#include "libmigrate/rules/host_facts.h"
#include "libmigrate/rules/host_memory.h"
#include "transport/proof.h"

namespace migrate {
namespace {

constexpr int kOfferTimeoutMs = 10000;
constexpr int kDataTimeoutMs = 10000;
constexpr int kRdmaTimeoutMs = 25000;  // Two connections that the source waits 10 s for.
// The process waits for this processor, if there is no other; to yield is no help where the kernel
// weighs this session against the process's (autogroup, control groups).
constexpr std::chrono::microseconds kFirstSteps{200};
constexpr int kFinalTimeoutMs = 60000;
constexpr int kRunTimeoutMs = 60000;
constexpr int kHomeConnectMs = 10000;
constexpr int kRefusalReadMs = 1000;

// It is shown on terminals, and someone else chose it.
std::string printable(std::string text) {
  std::replace_if(
      text.begin(), text.end(), [](unsigned char c) { return std::iscntrl(c) != 0; }, ' ');
  return text;
}

// Those that cannot be opened are none that the pager will read.
std::vector<UniqueFd> open_mapped_files(const wire::Image& image, const FileUser& user) {
  std::vector<UniqueFd> files;
  FileUser::Scope as_user(user);
  for (const wire::FileIdentity& file : image.mapped_files()) {
    auto opened = as_user.open(file, O_RDONLY);
    files.push_back(opened ? std::move(*opened) : UniqueFd());
  }
  return files;
}

}  // namespace

GuestWorker::GuestWorker(const WorkerContext& context, PeerTrust::Peer source,
                         const SessionId& session,
                         std::function<void(int connection)> become_worker)
    : context_(context),
      session_(session),
      source_(std::move(source.identity)),
      become_worker_(std::move(become_worker)),
      control_(std::make_unique<ControlChannel>(std::move(source.channel), source_.to_string())) {}

void GuestWorker::run() {
  const auto taken = take_in();
  if (taken && *taken) {
    serve_until_end();
  }
  if (taken) {
    return;
  }
  log::warn("session {}: {}", to_hex(session_), taken.error().message());
  give_up(taken.error());
}

// Says that the process never ran here only when nothing of it is left that could.
void GuestWorker::give_up(const Error& error) {
  if (row_) {
    row_->remove();
  }
  const bool over = !cell_ || cell_->end_and_wait();
  const bool may_have_run = file_ && has_run(phase());
  if (file_ && (!over || may_have_run)) {
    log::error("session {}: the process may have run here, and is lost", to_hex(session_));
    enter(may_have_run ? GuestPhase::kOver : GuestPhase::kNeverRan);
    close_session();
    return;
  }
  if (file_) {
    file_->remove();
  }
  if (control_) {
    wire::ControlMessage message;
    message.mutable_failed()->set_reason(error.message());
    static_cast<void>(control_->send(message));
  }
}

// False: refused, or only asked, and answered.
Result<bool> GuestWorker::take_in() {
  if (!MIGRATE_TRY(receive_offer())) {
    return false;
  }
  mailbox_.emplace(MIGRATE_TRY(Mailbox::create(context_.state_directory, to_hex(session_))));
  row_.emplace(MIGRATE_TRY(
      ProcessRow::open(context_.state_directory, to_hex(process_), ProcessRole::kResident)));
  host_clocks_ = MIGRATE_TRY(clock_offsets(0));
  pager_events_.reset(::eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK));
  file_.emplace(MIGRATE_TRY(
      SessionFile::create(context_.state_directory, cell_session_name(to_hex(session_)))));
  MIGRATE_TRY(prepare());
  enter(GuestPhase::kPrepared);
  context_.stops.reach("destination.prepared");
  wire::ControlMessage ready;
  wire::OfferReply& reply = *ready.mutable_offer_reply();
  reply.set_incarnation(MIGRATE_TRY(SessionFile::incarnation(context_.state_directory)));
  if (offer_.wants_rdma()) {
    rdma_ = listen_for_pages(context_, session_, reply);
  }
  MIGRATE_TRY(control_->send(ready));
  MIGRATE_TRY(accept_data());
  context_.stops.reach("destination.connected");
  wire::ControlMessage connected;
  connected.mutable_connected();
  // Before: the source that this wakes may take the processor.
  std::optional<RealtimeScope> realtime(std::in_place);
  MIGRATE_TRY(control_->send(connected));
  MIGRATE_TRY(restore());
  const wire::Run run = MIGRATE_TRY(run_process());
  realtime.reset();
  std::this_thread::sleep_for(kFirstSteps);
  settle_in(run);
  return true;
}

// True: from here on this process is a worker, which takes it. False: refused, or only asked.
Result<bool> GuestWorker::receive_offer() {
  constexpr std::size_t kMaxOfferBytes = std::size_t{32} << 20U;
  constexpr std::size_t kMaxImageBytes = std::size_t{512} << 20U;
  control_->set_longest_message(kMaxOfferBytes);
  auto message = MIGRATE_TRY(control_->expect(wire::ControlMessage::kOffer, 0, kOfferTimeoutMs));
  offer_ = std::move(*message.mutable_offer());
  context_.stops.reach("destination.offered");
  plan_ = MIGRATE_TRY(parse_offered_mode(offer_.mode()));
  const bool only_asks = plan_.only_asks;
  if (offer_.process().size() != process_.size() || (offer_.token().empty() && !only_asks)) {
    return fail(make_error(ErrorCode::kCorrupt, "read the id of the process offered"));
  }
  std::copy_n(reinterpret_cast<const std::byte*>(offer_.process().data()), process_.size(),
              process_.begin());
  MIGRATE_TRY(check_form(offer_.draft(), ImageStage::kDraft));
  own_facts_ = MIGRATE_TRY(host_facts());
  const auto verdict = MIGRATE_TRY(judge_offer(context_, source_, offer_, own_facts_));
  if (!verdict.empty() || only_asks) {
    MIGRATE_TRY(answer(verdict));
    return false;
  }
  trusted_ = context_.policy.allows(source_, 0);
  become_worker_(control_->channel().poll_fd());
  control_->set_longest_message(
      std::min<std::size_t>(kMaxImageBytes, MIGRATE_TRY(available_memory_bytes()) / 4));
  return true;
}

Result<void> GuestWorker::answer(const std::vector<wire::Refusal>& verdict) {
  wire::ControlMessage message;
  wire::OfferReply& reply = *message.mutable_offer_reply();
  reply.mutable_refusals()->Assign(verdict.begin(), verdict.end());
  MIGRATE_TRY(control_->send(message));
  // The peer closes first, so that no reset overtakes the answer.
  static_cast<void>(control_->receive(0, kRefusalReadMs));
  return {};
}

Result<void> GuestWorker::prepare() {
  const wire::Image& draft = offer_.draft();
  noted_.set_process(offer_.process());
  noted_.set_mode(offer_.mode());
  noted_.set_home(offer_.home());
  noted_.set_source(offer_.source_address());
  noted_.set_token(offer_.token());
  noted_.set_command(printable(offer_.command()));
  noted_.set_user(offer_.user());
  noted_.set_trusted(trusted_);
  *noted_.mutable_credentials() = draft.threads(0).credentials();
  noted_.set_source_name(source_.common_name);
  for (const std::string& name : source_.alternative_names) {
    noted_.add_source_names(name);
  }
  CellOptions options;
  options.process_id = draft.process_id();
  MIGRATE_TRY(ask_clocks(options));
  cell_offset_ns_ = options.monotonic_offset_ns;
  options.highest_descriptor = highest_descriptor(draft);
  options.socket_path = cell_socket();
  options.session_file = file_->fd();
  cell_.emplace(MIGRATE_TRY(Cell::create(options)));
  MIGRATE_TRY(open_mailbox());  // Not before: a cell is made while there is one thread.
  restorer_.emplace(MIGRATE_TRY(Restorer::create(*cell_, trusted_)));
  file_->mark().process = cell_->seed();
  file_->mark().process_start = start_time(cell_->seed());
  file_->mark().init = cell_->init();
  file_->mark().init_start = start_time(cell_->init());
  MIGRATE_TRY(restorer_->prepare(draft));
  UniqueFd userfault = cell_->take_userfault();
  userfault_copy_ = MIGRATE_TRY(userfault.duplicate());
  pager_ = MIGRATE_TRY(Pager::create(pager_options(), Userfault::adopt(std::move(userfault)),
                                     pager_regions(draft),
                                     open_mapped_files(draft, restorer_->file_user())));
  MIGRATE_TRY(check_untouched(pager_regions(draft)));
  pager_->launch();
  MIGRATE_TRY(file_->save(noted_.SerializeAsString()));
  return connect_home(kHomeConnectMs);
}

PagerOptions GuestWorker::pager_options() {
  PagerOptions options;
  options.spin_us = context_.spin_us;
  options.fault_around_pages = plan_.prefetch ? options.fault_around_pages : 0;
  options.process = cell_->seed();
  options.process_tree = cell_->init();
  options.on_fork = [this](const PagerSpace& space) {
    Kept what{.kind = Kept::Kind::kUserfault, .number = space.number, .parent = space.parent};
    int fd = space.userfault;
    if (space.ledger >= 0) {
      what.kind = Kept::Kind::kLedger;
      fd = space.ledger;
    }
    if (auto kept = cell_->keep(what, fd); !kept) {
      log::error(
          "the cell of process {} does not keep the memory of a child: {}; if this worker "
          "dies, that is lost",
          noted_.command(), kept.error().message());
    }
  };
  options.on_done = [this] {
    pager_done_ = true;
    static_cast<void>(::eventfd_write(pager_events_.get(), 1));
  };
  options.on_faults = [this] { static_cast<void>(::eventfd_write(pager_events_.get(), 1)); };
  options.on_link_lost = [this](const Error& error) {
    log::debug("pages of session {}: {}", to_hex(session_), error.message());
    link_lost_ = true;
    static_cast<void>(::eventfd_write(pager_events_.get(), 1));
  };
  return options;
}

// The process's clocks must not run backwards: of several readings the one that took the least time
// counts, and is taken as of when it was asked for, so that the error, at most one round trip, is a
// step forwards.
Result<void> GuestWorker::ask_clocks(CellOptions& options) {
  constexpr int kReadings = 5;
  constexpr int kTimeoutMs = 5000;
  if (offer_.source().boot_id() == own_facts_.boot_id()) {
    options.monotonic_offset_ns = offer_.monotonic_offset_ns();
    options.boottime_offset_ns = offer_.boottime_offset_ns();
    return {};
  }
  std::int64_t shortest_ns = std::numeric_limits<std::int64_t>::max();
  for (int reading = 0; reading < kReadings; ++reading) {
    const std::int64_t monotonic_ns = clock_ns(CLOCK_MONOTONIC);
    const std::int64_t boottime_ns = clock_ns(CLOCK_BOOTTIME);
    wire::ControlMessage request;
    request.mutable_clock_request();
    MIGRATE_TRY(control_->send(request));
    const auto answer =
        MIGRATE_TRY(control_->expect(wire::ControlMessage::kClocks, kFreezeSpinUs, kTimeoutMs));
    const std::int64_t took_ns = clock_ns(CLOCK_MONOTONIC) - monotonic_ns;
    if (took_ns < shortest_ns) {
      shortest_ns = took_ns;
      options.monotonic_offset_ns = answer.clocks().monotonic_ns() - monotonic_ns;
      options.boottime_offset_ns = answer.clocks().boottime_ns() - boottime_ns;
    }
  }
  return {};
}

// Pages come from who offered the process, commands from its home.
Result<void> GuestWorker::open_mailbox() {
  const auto from_source = [source = source_](const PeerIdentity& peer) {
    return peer.same_host(source) ? std::string()
                                  : "the process was offered by " + source.to_string();
  };
  const auto from_home = [home = MIGRATE_TRY(Address::parse(noted_.home())),
                          authenticates =
                              context_.trust.authenticates()](const PeerIdentity& peer) {
    return !authenticates || peer.is_host(home.host) ? std::string()
                                                     : "the process's home is " + home.host;
  };
  return mailbox_->open({.trust = context_.trust,
                         .token = noted_.token(),
                         .rules = {{Purpose::kUrgent, from_source},
                                   {Purpose::kBulk, from_source},
                                   {Purpose::kResume, from_source},
                                   {Purpose::kCommand, from_home}}});
}

Result<void> GuestWorker::connect_home(int timeout_ms) {
  const Address home = MIGRATE_TRY(Address::parse(noted_.home()));
  const Preamble preamble{.purpose = Purpose::kHome, .session = process_};
  auto peer = MIGRATE_TRY(context_.trust.connect(home, preamble, timeout_ms));
  MIGRATE_TRY(give_proof(*peer.channel, noted_.token(), preamble, timeout_ms));
  home_channel_ = std::move(peer.channel);
  return {};
}

// Waits for the urgent and the bulk connection.
Result<void> GuestWorker::accept_data() {
  const int timeout_ms = rdma_ ? kRdmaTimeoutMs : kDataTimeoutMs;
  const std::int64_t deadline = now_us() + timeout_ms * 1000LL;
  while (!urgent_ || !bulk_) {
    const auto left_ms = std::max(static_cast<int>((deadline - now_us()) / 1000), 0);
    if (MIGRATE_TRY(await_connection(left_ms))) {
      accept_rdma();
    } else if (auto letter = mailbox_->receive(0)) {
      take_early_letter(std::move(*letter));
    } else if (letter.error().code != ErrorCode::kRetry) {
      return fail(std::move(letter).error());
    }
  }
  return {};
}

// True: somebody knocks over RDMA. False: a letter is there, or nothing yet. Errors: kRetry
// (neither in time), kPeerLost (the source gave up), kCorrupt, kSystem.
Result<bool> GuestWorker::await_connection(int timeout_ms) {
  constexpr const char* kOperation = "await the source's connections";
  std::array<pollfd, 3> polled{{{mailbox_->fd(), POLLIN, 0},
                                {rdma_ ? rdma_->fd() : -1, POLLIN, 0},
                                {control_->channel().poll_fd(), POLLIN, 0}}};
  const int ready = ::poll(polled.data(), polled.size(), timeout_ms);
  if (ready <= 0) {
    return fail(ready < 0
                    ? system_error(kOperation)
                    : make_error(ErrorCode::kRetry, kOperation, {}, "they did not come in time"));
  }
  // The source says nothing meanwhile, unless it closes the connection.
  if (polled[2].revents != 0 && MIGRATE_TRY(control_->try_receive())) {
    return fail(make_error(ErrorCode::kCorrupt, kOperation, {}, "it sent a message instead"));
  }
  return polled[1].revents != 0;
}

// Who may not connect was told so, and is no failure of the session.
void GuestWorker::accept_rdma() {
  constexpr int kRefusalsTold = 10;
  auto accepted = rdma_->accept(0);
  if (!accepted) {
    const Error& error = accepted.error();
    const bool refused = error.code == ErrorCode::kRefused;
    rdma_refusals_ += refused ? 1 : 0;
    if (error.code != ErrorCode::kRetry && (!refused || rdma_refusals_ <= kRefusalsTold)) {
      log::warn("session {}: {}{}", to_hex(session_), error.message(),
                refused && rdma_refusals_ == kRefusalsTold ? "; no more of these are told" : "");
    }
    if (error.code == ErrorCode::kUnsupported) {
      rdma_.reset();  // The device waits for it to go.
    }
    return;
  }
  (accepted->purpose == Purpose::kBulk ? bulk_ : urgent_) = std::move(accepted->channel);
}

Result<void> GuestWorker::restore() {
  auto message = MIGRATE_TRY(control_->expect(wire::ControlMessage::kFinal, 0, kFinalTimeoutMs));
  context_.stops.reach("destination.image");
  wire::Image& image = *message.mutable_final()->mutable_image();
  MIGRATE_TRY(check_form(image, ImageStage::kFinal));
  MIGRATE_TRY(check_final(image));
  const MappingPlan plan = restorer_->plan(image);
  MIGRATE_TRY(start_pager(image, plan));
  GuestRelay::Handlers handlers;
  handlers.on_signal = [this](std::span<const std::byte> siginfo) { deliver(siginfo); };
  handlers.on_command = [](std::uint64_t, const std::string&) {};
  handlers.on_change = [this] { note_change(); };
  relay_ = MIGRATE_TRY(GuestRelay::create(message.final().relay(), std::move(handlers)));
  std::vector<StreamEndpoint> ends = MIGRATE_TRY(relay_->create_endpoints());
  std::map<std::uint64_t, int> relays;
  for (const StreamEndpoint& end : ends) {
    relays.emplace(end.id, end.process_end.get());
    relay_inodes_.emplace(end.inode, end.id);
  }
  advance_timers(image, clock_ns(CLOCK_MONOTONIC) + cell_offset_ns_);
  MIGRATE_TRY(restorer_->finish(image, relays));
  shared_files_ = restorer_->take_shared_files();
  // Here, and not after Run: until then nothing of the threads changes but the time.
  waits_ = record_waits(image, restorer_->host_threads());
  if (plan_.all_before_run) {
    MIGRATE_TRY(pager_->wait_all_present(-1));
  }
  context_.stops.reach("destination.restored");
  wire::ControlMessage restored;
  restored.mutable_restored();
  MIGRATE_TRY(control_->send(restored));
  enter(GuestPhase::kAwaitsRun);
  context_.stops.reach("destination.ready");
  return note_image(image);
}

// A page that somebody made before the pager had the memory, such as a debugger that looked, would
// be taken for one of the process's own.
Result<void> GuestWorker::check_untouched(const std::vector<PagerRegion>& regions) const {
  const UniqueFd pagemap = MIGRATE_TRY(
      open_file("/proc/" + std::to_string(cell_->seed()) + "/pagemap", O_RDONLY | O_CLOEXEC));
  for (const PagerRegion& region : regions) {
    const PageRange& range = region.destination;
    if (MIGRATE_TRY(inspect::has_private_pages(pagemap.get(), range.start, range.end()))) {
      Error error = make_error(ErrorCode::kRetry, "take in", "process " + noted_.command(),
                               "something on " + context_.host_name +
                                   " read or wrote its memory before it was there; end what looks "
                                   "into other processes (a debugger?), and try again");
      error.address = range.start;
      return fail(std::move(error));
    }
  }
  return {};
}

// What was taken on was the draft: nobody may have become someone else since.
Result<void> GuestWorker::check_final(const wire::Image& image) {
  if (trusted_ || same_rights(offer_.draft(), image)) {
    return {};
  }
  const auto verdict = check_policy(context_.policy, source_, offer_.user(), image);
  if (verdict.empty()) {
    return {};
  }
  return fail(make_error(ErrorCode::kRefused, "take in a process", verdict.front().object(),
                         verdict.front().reason()));
}

Result<void> GuestWorker::start_pager(const wire::Image& image, const MappingPlan& plan) {
  const std::vector<PagerRegion> wanted = pager_regions(image);
  if (!plan.unmap.empty() || !plan.map.empty()) {
    // What will be unmapped leaves the userfaultfd first: unmapping it would wait for the pager.
    std::vector<PagerRegion> stay;
    for (const PagerRegion& region : pager_regions(offer_.draft())) {
      const bool leaves = std::any_of(
          plan.unmap.begin(), plan.unmap.end(),
          [&](const PageRange& range) { return !range.intersect(region.destination).empty(); });
      if (!leaves) {
        stay.push_back(region);
      }
    }
    MIGRATE_TRY(pager_->update_regions(std::move(stay)));
  }
  MIGRATE_TRY(restorer_->adapt(image, plan));
  if (const auto known = pager_regions(offer_.draft()); wanted != known) {
    MIGRATE_TRY(pager_->update_regions(wanted));
    std::vector<PagerRegion> changed;
    std::copy_if(
        wanted.begin(), wanted.end(), std::back_inserter(changed),
        [&](const auto& region) { return std::ranges::find(known, region) == known.end(); });
    MIGRATE_TRY(check_untouched(changed));
    pager_->set_local_files(open_mapped_files(image, restorer_->file_user()));
  }
  if (plan_.prefetch) {
    pager_->ask_first(pages_touched_first(image));
  }
  for (const wire::StarterPage& page : image.starter_pages()) {
    const bool paged = std::any_of(wanted.begin(), wanted.end(), [&](const PagerRegion& region) {
      return region.destination.contains(page.address());
    });
    if (paged) {
      MIGRATE_TRY(
          pager_->install_starter(page.address(), std::as_bytes(std::span(page.content()))));
    }
  }
  return pager_->start(make_urgent_link(std::move(urgent_), pages_read_),
                       std::make_unique<ChannelLink>(std::move(bulk_)));
}

// A source that comes again before Run was read has lost the connection on which Run would come.
Result<wire::Run> GuestWorker::await_run() {
  constexpr int kLookEveryMs = 200;
  const std::int64_t deadline = now_us() + kRunTimeoutMs * 1000LL;
  for (;;) {
    auto message = control_->expect(wire::ControlMessage::kRun, 0, kLookEveryMs);
    if (message) {
      return message->run();
    }
    if (message.error().code != ErrorCode::kRetry || now_us() > deadline) {
      return fail(message.error());
    }
    auto letter = mailbox_->receive(0);
    if (letter && letter->preamble && letter->preamble->purpose == Purpose::kResume) {
      return fail(make_error(ErrorCode::kPeerLost, "wait to be told to run",
                             "process " + noted_.command()));
    }
    if (letter) {
      take_early_letter(std::move(*letter));
    }
  }
}

// Until the source has been told that it runs.
Result<wire::Run> GuestWorker::run_process() {
  wire::Run run = MIGRATE_TRY(await_run());
  enter(GuestPhase::kTold);
  context_.stops.reach("destination.run");
  enter(GuestPhase::kMarked);
  MIGRATE_TRY(cell_->keep({.kind = Kept::Kind::kUserfault, .number = 1}, userfault_copy_.get()));
  cell_kept_ = true;
  enter(GuestPhase::kKept);
  context_.stops.reach("destination.kept");
  MIGRATE_TRY(restorer_->release());
  enter(GuestPhase::kRan);
  MIGRATE_TRY(restorer_->run());
  context_.stops.reach("destination.released");
  userfault_copy_.reset();
  wire::ControlMessage running;
  running.mutable_running()->set_pid(static_cast<std::uint32_t>(cell_->seed()));
  if (auto sent = control_->send(running); !sent) {
    log::warn("session {}: {}", to_hex(session_), sent.error().message());
  }
  last_heard_us_ = now_us();
  context_.stops.reach("destination.running");
  return run;
}

void GuestWorker::settle_in(const wire::Run& run) {
  for (const std::string& signal : run.signals()) {
    deliver(std::as_bytes(std::span(signal)));
  }
  relay_->attach(std::move(home_channel_));
  relay_->activate();
  relay_->report_location(context_.own_address.to_string(), to_hex(session_));
  enter(GuestPhase::kServing);
  for (Letter& letter : early_.take()) {
    take_letter(std::move(letter));
  }
}

// Before the process runs here only its source's connections are of use; what others ask for is
// done once it runs, or refused if it never does.
void GuestWorker::take_early_letter(Letter letter) {
  if (is_request(letter)) {
    early_.add(std::move(letter));
  } else {
    take_letter(std::move(letter));
  }
}

void run_destination_worker(const WorkerContext& context, PeerTrust::Peer peer,
                            const Preamble& preamble,
                            const std::function<void(int connection)>& become_worker) {
  GuestWorker(context, std::move(peer), preamble.session, become_worker).run();
}

}  // namespace migrate
