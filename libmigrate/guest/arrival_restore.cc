// How a process that arrives is made here: its cell, its memory, its state.
#include <fcntl.h>
#include <sys/sysmacros.h>
#include <time.h>

#include <algorithm>
#include <iterator>
#include <limits>
#include <utility>

#include "base/clock.h"
#include "base/file.h"
#include "base/printable.h"
#include "libmigrate/capture/timer_advance.h"
#include "libmigrate/guest/arrival.h"
#include "libmigrate/guest/guest_seat.h"
#include "libmigrate/guest/guest_setup.h"
#include "libmigrate/guest/offer_refusals.h"
#include "libmigrate/image/address_space.h"
#include "libmigrate/image/image_form.h"
#include "libmigrate/image/only_process.h"
#include "libmigrate/links/tcp_listener.h"
#include "libmigrate/pages/page_feed.h"
#include "libmigrate/proc/pagemap.h"
#include "libmigrate/relay/stream_buffer.h"
#include "libmigrate/restore/descriptors.h"
#include "libmigrate/rules/host_facts.h"
#include "libmigrate/rules/host_memory.h"

namespace migrate {
namespace {

constexpr std::size_t kLongestHostName = 255;
constexpr int kHomeConnectMs = 10000;

PageSet destinations_of(const std::vector<PagerRegion>& regions) {
  std::vector<PageRange> ranges;
  ranges.reserve(regions.size());
  for (const PagerRegion& region : regions) {
    ranges.push_back(region.destination);
  }
  return page_set(std::move(ranges));
}

// What is left of `regions` when `pages` are unmapped.
std::vector<PagerRegion> regions_without(const std::vector<PagerRegion>& regions,
                                         const PageSet& pages) {
  std::vector<PagerRegion> left;
  for (const PagerRegion& region : regions) {
    for (const PageRange& part : without({region.destination}, pages)) {
      PagerRegion piece = region;
      const std::uint64_t skipped = part.start - region.destination.start;
      piece.destination = part;
      piece.source_address += skipped;
      piece.file_offset += skipped;
      left.push_back(piece);
    }
  }
  return left;
}

// The terminal of the session in which the process is, and which somebody else leads.
const wire::Terminal* terminal_of_other(const wire::Objects& objects) {
  const auto found = std::ranges::find_if(objects.terminals(), [](const wire::Terminal& terminal) {
    return terminal.is_controlling() && !terminal.leads_session();
  });
  return found == objects.terminals().end() ? nullptr : &*found;
}

}  // namespace

Result<void> Arrival::prepare() {
  const wire::Image& draft = offer_.draft();
  Guest& guest = *arrived_.guest;
  note_offer();
  NewCell cell = MIGRATE_TRY(world_.make_cell(MIGRATE_TRY(cell_options())));
  cell_ = cell.control.get();
  gateway_ = std::move(cell.gateway);
  guest.set_cell(std::move(cell.control));
  MIGRATE_TRY(open_mailbox());  // Not before: a cell is made while there is one thread.
  restorer_ = MIGRATE_TRY(cell.make_restorer(trusted_));
  SessionMark& mark = record().file().mark();
  mark.process = cell_->seed();
  mark.process_start = start_time(cell_->seed());
  mark.init = cell.init;
  mark.init_start = start_time(cell.init);
  MIGRATE_TRY(restorer_->prepare(draft));
  MIGRATE_TRY(make_pager(std::move(cell.userfault)));
  MIGRATE_TRY(record().save());
  MIGRATE_TRY(guest.home().connect(kHomeConnectMs));
  return groups_.enter(cell_->seed(), GuestGroups::Step::kEarly);
}

void Arrival::note_offer() {
  wire::CellSession& noted = record().noted();
  note_groups(groups_, offer_, noted);
  noted.set_mode(offer_.mode());
  noted.set_home(offer_.home());
  noted.set_source(offer_.source_address());
  *noted.mutable_network() = offer_.network();
  noted.set_token(offer_.token());
  noted.set_command(printable(offer_.command()));
  noted.set_user(offer_.user());
  *noted.mutable_name() = offer_.name();
  noted.mutable_name()->mutable_origin()->resize(
      std::min(offer_.name().origin().size(), kLongestHostName));
  noted.mutable_name()->set_moves(offer_.name().moves() + 1);
  noted.set_trusted(trusted_);
  *noted.mutable_credentials() = only_process(offer_.draft()).threads(0).credentials();
  noted.set_source_name(source_.common_name);
  for (const std::string& name : source_.alternative_names) {
    noted.add_source_names(name);
  }
}

Result<CellOptions> Arrival::cell_options() {
  CellOptions options;
  options.process_id = only_process(offer_.draft()).process_id();
  MIGRATE_TRY(ask_clocks(options));
  cell_offset_ns_ = options.monotonic_offset_ns;
  if (const auto* const terminal = terminal_of_other(offer_.draft().objects())) {
    options.terminal = gnu_dev_minor(terminal->device());
  }
  if (only_process(offer_.draft()).has_login_user() && keeps_login(offer_, trusted_)) {
    options.login_user = only_process(offer_.draft()).login_user();
  }
  options.highest_descriptor = highest_descriptor(only_process(offer_.draft()));
  if (network_of(offer_) == NetworkOf::kHome) {
    options.network = offer_.network();
  }
  options.socket_path = cell_socket(context_, session_);
  options.session_file = record().file().fd();
  return options;
}

// The process's clocks must not run backwards: of several readings the one that took the least time
// counts, and is taken as of when it was asked for, so that the error, at most one round trip, is a
// step forwards.
Result<void> Arrival::ask_clocks(CellOptions& options) {
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

Result<void> Arrival::open_mailbox() {
  return open_guest_mailbox(*arrived_.mailbox, context_, source_, record().noted());
}

Result<void> Arrival::make_pager(UniqueFd userfault) {
  const wire::Image& draft = offer_.draft();
  userfault_copy_ = MIGRATE_TRY(userfault.duplicate());
  auto pages = std::make_unique<GuestPages>(*cell_, record().noted().command(), session_);
  pages_ = pages.get();
  if (!context_.trace_directory.empty()) {
    pages->trace_into(context_.trace_directory + "/" + to_hex(session_));
  }
  arrived_.guest->set_pages(std::move(pages));
  PagerOptions options = pages_->options(context_.spin_us, plan_, record().file().mark().init);
  options.hurries = options.hurries || offer_.hurries();
  pages_->set_pager(MIGRATE_TRY(
      Pager::create(std::move(options), Userfault::adopt(std::move(userfault)),
                    pager_regions(draft.objects(), only_process(draft)),
                    open_mapped_files(draft.objects().mapped_files(), restorer_->file_user()))));
  MIGRATE_TRY(
      check_untouched(destinations_of(pager_regions(draft.objects(), only_process(draft)))));
  pages_->pager().launch();
  return {};
}

Result<void> Arrival::restore(wire::Final final) {
  context_.stops.reach("destination.image");
  wire::Image& image = *final.mutable_image();
  MIGRATE_TRY(check_form(image, ImageStage::kFinal));
  MIGRATE_TRY(check_final(image));
  MIGRATE_TRY(adapt(image));
  if (pages_->staging() != nullptr) {
    MIGRATE_TRY(
        pages_->end_staging([this](const PageSet& pages) { return restorer_->discard(pages); }));
  }
  MIGRATE_TRY(receive_content(image));
  MIGRATE_TRY(start_pager(image));
  const std::vector<StreamEndpoint> ends = MIGRATE_TRY(make_relay(final.relay(), image));
  std::map<std::uint64_t, int> relays;
  for (const StreamEndpoint& end : ends) {
    relays.emplace(end.id, end.process_end.get());
  }
  advance_timers(*image.mutable_objects(), mutable_only_process(image),
                 clock_ns(CLOCK_MONOTONIC) + cell_offset_ns_);
  MIGRATE_TRY(restorer_->finish(image, relays));
  MIGRATE_TRY(bring_datagrams(image.objects()));
  MIGRATE_TRY(groups_.enter(cell_->seed(), GuestGroups::Step::kLate));
  note_places(cell_->seed(), record().noted());
  GuestObjects& objects = arrived_.guest->objects();
  objects.set_shared_files(restorer_->take_shared_files());
  // Here, and not after Run: until then nothing of the threads changes but the time.
  objects.set_waits(record_waits(only_process(image), restorer_->host_threads()));
  if (plan_.all_before_run) {
    MIGRATE_TRY(pages_->pager().wait_all_present(-1));
  }
  context_.stops.reach("destination.restored");
  wire::ControlMessage restored;
  restored.mutable_restored();
  MIGRATE_TRY(control_->send(restored));
  record().enter(GuestPhase::kAwaitsRun);
  context_.stops.reach("destination.ready");
  return note_image(image);
}

Result<std::vector<StreamEndpoint>> Arrival::make_relay(const wire::RelayState& state,
                                                        const wire::Image& image) {
  Guest& guest = *arrived_.guest;
  const wire::Credentials& owner = only_process(image).threads(0).credentials();
  guest.home().set_relay(MIGRATE_TRY(GuestRelay::create(state, guest.relay_handlers())));
  std::vector<StreamEndpoint> ends = MIGRATE_TRY(guest.home().relay()->create_endpoints(
      owner.uid_filesystem(), owner.gid_filesystem(), MIGRATE_TRY(make_terminals(image.objects())),
      MIGRATE_TRY(make_network(image.objects()))));
  if (gateway_) {
    guest.home().relay()->set_gateway(std::move(*std::exchange(gateway_, std::nullopt)));
  }
  std::map<std::uint64_t, std::uint64_t> inodes;
  std::map<std::uint64_t, std::uint64_t> terminals;
  for (const StreamEndpoint& end : ends) {
    (end.is_terminal ? terminals : inodes).emplace(end.inode, end.id);
  }
  guest.objects().set_relays(std::move(inodes));
  guest.objects().set_terminals(std::move(terminals));
  return ends;
}

// With the numbers that they had, where these are free: programs keep the names of their terminals.
// That of its session is the init's, which leads it, as a shell does at home: it lasts whatever the
// process closes, and the process's group is none that nobody could let go on.
Result<std::vector<TerminalParts>> Arrival::make_terminals(const wire::Objects& objects) {
  constexpr std::uint16_t kMostSize = std::numeric_limits<std::uint16_t>::max();
  const auto small = [](std::uint32_t size) {
    return static_cast<std::uint16_t>(std::min<std::uint32_t>(size, kMostSize));
  };
  const bool leads_session = terminal_of_other(objects) == nullptr;
  if (leads_session != (terminal_of_other(offer_.draft().objects()) == nullptr)) {
    return fail(make_error(ErrorCode::kRetry, "take in", "process " + arrived_.guest->name(),
                           "it took a terminal, or left it, while it was being moved; try again"));
  }
  std::vector<TerminalParts> all;
  for (const wire::Terminal& terminal : objects.terminals()) {
    TerminalParts& parts = all.emplace_back();
    parts.stream = static_cast<std::uint32_t>(terminal.stream());
    if (terminal.is_controlling() && !terminal.leads_session()) {
      parts.pair = MIGRATE_TRY(cell_->take_terminal());
      MIGRATE_TRY(cell_->set_foreground(terminal.in_foreground()));
    } else {
      parts.pair = MIGRATE_TRY(cell_->make_terminal(gnu_dev_minor(terminal.device())));
    }
    parts.modes = MIGRATE_TRY(TerminalModes::from_bytes(terminal.modes()));
    parts.size = {small(terminal.rows()), small(terminal.columns()), small(terminal.width_pixels()),
                  small(terminal.height_pixels())};
    parts.permissions = terminal.permissions();
  }
  return all;
}

// What waited in its sockets where it has been a guest.
Result<void> Arrival::bring_datagrams(const wire::Objects& objects) {
  wire::RelayDatagram brought;
  for (const wire::OpenSocket& socket : objects.open_sockets()) {
    for (const wire::OpenSocket::Datagram& datagram : socket.unread()) {
      brought.set_local(datagram.local());
      brought.set_peer(datagram.peer());
      brought.set_content(datagram.content());
      MIGRATE_TRY(arrived_.guest->home().relay()->bring(brought));
    }
  }
  return {};
}

Result<NetworkParts> Arrival::make_network(const wire::Objects& objects) {
  NetworkParts parts;
  parts.connections = MIGRATE_TRY(make_connections(objects));
  parts.unix_connections = MIGRATE_TRY(make_unix_connections(objects));
  std::vector<TcpListenerNames> names;
  for (const wire::Listener& listener : objects.listeners()) {
    names.push_back({MIGRATE_TRY(SocketName::from_bytes(listener.name())), listener.only_ipv6(),
                     listener.shares_port(), static_cast<int>(listener.backlog())});
  }
  std::vector<LinkListener> made = MIGRATE_TRY(make_tcp_listeners(names));
  for (std::size_t i = 0; i < made.size(); ++i) {
    const wire::Listener& listener = objects.listeners(static_cast<int>(i));
    parts.listeners.push_back({static_cast<std::uint32_t>(listener.stream()), std::move(made[i])});
  }
  return parts;
}

Result<std::vector<UnixConnectionParts>> Arrival::make_unix_connections(
    const wire::Objects& objects) {
  if (objects.unix_connections_size() > kMaxRelayStreams) {
    return fail(make_error(ErrorCode::kCorrupt, "make connections", "too many of them"));
  }
  std::vector<UnixPairNames> names;
  for (const wire::UnixConnection& connection : objects.unix_connections()) {
    names.push_back({.local = connection.local(),
                     .peer = connection.peer(),
                     .peer_user = connection.peer_user(),
                     .peer_group = connection.peer_group()});
  }
  std::vector<UnixPair> pairs = MIGRATE_TRY(make_unix_pairs(names));
  std::vector<UnixConnectionParts> all;
  for (std::size_t i = 0; i < pairs.size(); ++i) {
    const auto stream = objects.unix_connections(static_cast<int>(i)).stream();
    all.push_back({static_cast<std::uint32_t>(stream), std::move(pairs[i])});
  }
  return all;
}

Result<std::vector<ConnectionParts>> Arrival::make_connections(const wire::Objects& objects) {
  if (objects.connections_size() > kMaxRelayStreams) {
    return fail(make_error(ErrorCode::kCorrupt, "make connections", "too many of them"));
  }
  std::vector<TcpPairNames> names;
  for (const wire::Connection& connection : objects.connections()) {
    names.push_back({MIGRATE_TRY(SocketName::from_bytes(connection.local())),
                     MIGRATE_TRY(SocketName::from_bytes(connection.peer())),
                     connection.only_ipv6()});
  }
  std::vector<TcpPair> pairs = MIGRATE_TRY(make_tcp_pairs(names));
  std::vector<ConnectionParts> all;
  for (std::size_t i = 0; i < pairs.size(); ++i) {
    const wire::Connection& connection = objects.connections(static_cast<int>(i));
    all.push_back({static_cast<std::uint32_t>(connection.stream()), std::move(pairs[i]),
                   connection.is_over(), connection.has_error()});
  }
  return all;
}

// A page that somebody made before the pager had the memory, such as a debugger that looked, would
// be taken for one of the process's own.
Result<void> Arrival::check_untouched(const PageSet& pages) const {
  const UniqueFd pagemap = MIGRATE_TRY(
      open_file("/proc/" + std::to_string(cell_->seed()) + "/pagemap", O_RDONLY | O_CLOEXEC));
  for (const PageRange& range : pages) {
    if (MIGRATE_TRY(inspect::has_private_pages(pagemap.get(), range.start, range.end()))) {
      Error error = make_error(ErrorCode::kRetry, "take in", "process " + arrived_.guest->name(),
                               "something on " + context_.host_name +
                                   " read or wrote its memory before it was there; end what looks "
                                   "into other processes (a debugger?), and try again");
      error.address = range.start;
      return fail(std::move(error));
    }
  }
  return {};
}

// What was taken on was the draft: nobody may have become someone else since, or taken a name that
// would be this host's own.
Result<void> Arrival::check_final(const wire::Image& image) const {
  if (!check_bound_sockets(network_of(offer_), image.objects()).empty()) {
    return fail(make_error(ErrorCode::kRetry, "take in", "process " + arrived_.guest->name(),
                           "it has given a socket a name while it was being moved; try again"));
  }
  if (trusted_ || same_rights(offer_.draft(), image)) {
    return {};
  }
  const auto refusals = check_policy(context_.policy, source_, offer_.user(), image);
  if (refusals.empty()) {
    return {};
  }
  return fail(make_error(ErrorCode::kRefused, "take in a process", refusals.front().object(),
                         refusals.front().reason()));
}

// The mappings of the draft become those of the image.
Result<void> Arrival::adapt(const wire::Image& image) {
  const MappingPlan plan = restorer_->plan(image);
  const std::vector<PagerRegion> known =
      pager_regions(offer_.draft().objects(), only_process(offer_.draft()));
  const std::vector<PagerRegion> wanted = pager_regions(image.objects(), only_process(image));
  // What will be unmapped leaves the userfaultfd first: unmapping it would wait for the pager.
  const std::vector<PagerRegion> stay = regions_without(known, plan.unmap);
  if (stay != known) {
    MIGRATE_TRY(pages_->pager().update_regions(stay));
  }
  MIGRATE_TRY(restorer_->adapt(image, plan));
  if (wanted != stay) {
    MIGRATE_TRY(pages_->pager().update_regions(wanted));
    MIGRATE_TRY(check_untouched(without(destinations_of(wanted), destinations_of(stay))));
    pages_->pager().set_local_files(
        open_mapped_files(image.objects().mapped_files(), restorer_->file_user()));
  }
  return {};
}

// What is in memory files follows the image: more than there is room for is not begun with.
Result<void> Arrival::receive_content(const wire::Image& image) {
  std::uint64_t wanted = 0;
  for (const wire::SharedMemory& memory : image.objects().shared_memories()) {
    const std::uint64_t touched = carriers::bytes_touched(memory);
    wanted += std::min(touched, std::numeric_limits<std::uint64_t>::max() - wanted);
  }
  const std::uint64_t available = wanted == 0 ? 0 : MIGRATE_TRY(available_memory_bytes());
  if (wanted > available) {
    return fail(make_error(ErrorCode::kRefused, "take in the memory files of",
                           arrived_.guest->name(),
                           "they take " + std::to_string(wanted) + " bytes, and " +
                               std::to_string(available) + " are available"));
  }
  for (carriers::ContentPlace place(image.objects()); !place.at_end();) {
    const auto message =
        MIGRATE_TRY(control_->expect(wire::ControlMessage::kContent, 0, kFinalTimeoutMs));
    if (message.content().data().empty()) {
      return fail(make_error(ErrorCode::kCorrupt, "read what is in memory files"));
    }
    MIGRATE_TRY(restorer_->fill(place, message.content().data()));
  }
  return {};
}

Result<void> Arrival::start_pager(const wire::Image& image) {
  const std::vector<PagerRegion> regions = pager_regions(image.objects(), only_process(image));
  Pager& pager = pages_->pager();
  pager.advise(access_advice(only_process(image)));
  if (plan_.prefetch) {
    pager.ask_first(pages_touched_first(only_process(image)));
  }
  for (const wire::StarterPage& page : only_process(image).starter_pages()) {
    const bool paged = std::any_of(regions.begin(), regions.end(), [&](const PagerRegion& region) {
      return region.destination.contains(page.address());
    });
    if (paged) {
      MIGRATE_TRY(pager.install_starter(page.address(), std::as_bytes(std::span(page.content()))));
    }
  }
  return pages_->start();
}

// Before the process may run: all that outlives this worker but the userfaultfd, by which the init
// knows that it has to stay.
Result<void> Arrival::note_image(const wire::Image& image) {
  Guest& guest = *arrived_.guest;
  wire::CellSession& noted = record().noted();
  *noted.mutable_mapped_files() = image.objects().mapped_files();
  for (const PagerSpace& space : pages_->pager().spaces()) {
    MIGRATE_TRY(cell_->keep({.kind = Kept::Kind::kLedger, .number = space.number}, space.ledger));
  }
  MIGRATE_TRY(guest.objects().note(noted, *cell_));
  *noted.mutable_relay() = guest.home().relay()->note();
  MIGRATE_TRY(record().keep_ends(*cell_, *guest.home().relay()));
  return record().save();
}

}  // namespace migrate
