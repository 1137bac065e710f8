#include "tools/migrated/daemon.h"

#include <fcntl.h>
#include <poll.h>
#include <sys/file.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/signalfd.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <chrono>
#include <csignal>
#include <cstdio>
#include <cstring>
#include <filesystem>
#include <thread>

#include "base/clock.h"
#include "base/crash_report.h"
#include "base/file.h"
#include "base/log.h"
#include "libmigrate/groups/guest_groups.h"
#include "libmigrate/host/mailbox_path.h"
#include "libmigrate/inspect/process_inspector.h"
#include "libmigrate/links/gateway.h"
#include "libmigrate/state/name_book.h"
#include "libmigrate/state/registry.h"
#include "libmigrate/state/session_file.h"
#include "tools/migrated/link_keeper.h"
#include "tools/migrated/local_request.h"
#include "tools/migrated/peer_request.h"
#include "tools/migrated/privileges.h"

namespace migrate {
namespace {

constexpr const char* kWorkerName = "migrated-work";
constexpr const char* kBusyReply =
    "{\"event\":\"result\",\"exit\":1,\"error\":{\"code\":\"retry\",\"message\":"
    "\"the daemon serves as many requests as it may, of your user or of all; end some that wait "
    "(migratectl wait, move --at-point), or try again\"}}\n";
constexpr const char* kNoDescriptorsReply =
    "{\"event\":\"result\",\"exit\":1,\"error\":{\"code\":\"retry\",\"message\":"
    "\"the daemon has no descriptor left; raise its limit of open files, or try again\"}}\n";
/// Waited after a failure that would come again at once (no memory).
constexpr std::chrono::milliseconds kPause{50};
constexpr int kLookForOrphansMs = 500;
/// Between attempts to take over a session: begins with Adoption::pause and doubles up to this.
constexpr std::chrono::milliseconds kLongestAdoptionPause{5'000};

Result<void> make_directory(const std::string& path, mode_t mode, bool enforce) {
  std::error_code error;
  std::filesystem::create_directories(path, error);
  if (error) {
    return fail(system_error_from(error.value(), "create the directory", path));
  }
  if (enforce && chmod(path.c_str(), mode) != 0) {
    return fail(system_error("chmod", path));
  }
  return {};
}

std::string system_host_name() {
  std::array<char, 256> name = {};
  return gethostname(name.data(), name.size() - 1) == 0 ? name.data() : "localhost";
}

Error would_mislead(const PageTransport& transport, const std::string& host,
                    const std::string& own) {
  const std::string scheme = std::string(transport.word) + "://";
  return make_error(ErrorCode::kInvalid, "listen on", scheme + host,
                    "other hosts would be told to connect to " + own +
                        "; give the address of the " + transport.name + " port (" + scheme +
                        "ADDRESS), or --advertise one that leads to it");
}

/// Signals as a program expects them that was not started by this daemon; but SIGPIPE stays
/// ignored, so that a connection lost is an error and not the end.
void reset_signals() {
  sigset_t none;
  sigemptyset(&none);
  sigprocmask(SIG_SETMASK, &none, nullptr);
}

}  // namespace

Result<Daemon> Daemon::create(const DaemonOptions& options) {
  if (geteuid() != 0) {
    return fail(make_error(ErrorCode::kRefused, "start migrated",
                           "as user " + std::to_string(geteuid()),
                           "run it as root: it traces and restores processes of every user"));
  }
  MIGRATE_TRY(protect_memory());
  ask_to_be_spared();
  Daemon daemon;
  daemon.max_connections_ = std::max<std::size_t>(options.max_connections, 1);
  daemon.peers_ = options.peers;
  daemon.context_.socket_path = options.socket_path;
  daemon.context_.host_name = options.host_name.empty() ? system_host_name() : options.host_name;
  daemon.context_.spin_us = options.spin_us;
  daemon.context_.policy = MIGRATE_TRY(HostPolicy::parse(options.allow));
  daemon.context_.groups = {.rules = MIGRATE_TRY(GroupRules::parse(options.group_rules)),
                            .keep_limits = options.keep_limits};
  daemon.context_.travel = options.rules.travel;
  daemon.context_.links = options.rules.links;
  daemon.context_.max_sessions = options.max_sessions;
  daemon.context_.reserve_bytes = std::uint64_t{options.reserve_mib} << 20U;
  daemon.context_.overcommits = options.overcommit;
  daemon.context_.only_home_network = options.only_home_network;
  daemon.context_.push_bytes_per_second = std::uint64_t{options.bandwidth_mib} << 20U;
  daemon.context_.trust = MIGRATE_TRY(peer_trust(options, daemon.context_.host_name));
  daemon.context_.end_waiting_s = options.end_waiting_s;
  MIGRATE_TRY(daemon.take_addresses(options));
  MIGRATE_TRY(daemon.take_state(options));
  MIGRATE_TRY(daemon.take_socket());
  MIGRATE_TRY(daemon.open_queue());
  prepare_groups(daemon.context_.groups.rules);
  // root's processes may have any capability, and only who has it can give it to them.
  if (!daemon.context_.policy.names_root()) {
    MIGRATE_TRY(drop_capabilities());
  }
  const auto tried = Gateway::try_out();
  daemon.context_.gives_home_network = tried.has_value();
  if (!tried) {
    log::warn("processes that are to connect from their home are refused: {}",
              tried.error().message());
  }

  (void)std::signal(SIGPIPE, SIG_IGN);
  (void)std::signal(SIGHUP, SIG_IGN);
  sigset_t set;
  sigemptyset(&set);
  for (const int number : {SIGTERM, SIGINT, SIGCHLD}) {
    sigaddset(&set, number);
  }
  sigprocmask(SIG_BLOCK, &set, nullptr);
  daemon.signals_.reset(signalfd(-1, &set, SFD_CLOEXEC | SFD_NONBLOCK));
  std::array<int, 2> ends = {};
  if (!daemon.signals_.valid() || pipe2(ends.data(), O_CLOEXEC | O_NONBLOCK) != 0) {
    return fail(system_error("start the daemon"));
  }
  daemon.promoted_read_.reset(ends[0]);
  daemon.promoted_write_.reset(ends[1]);
  return daemon;
}

Result<void> Daemon::take_state(const DaemonOptions& options) {
  const std::string& state = options.state_directory;
  MIGRATE_TRY(make_directory(state, 0700, true));
  struct stat status = {};
  if (lstat(state.c_str(), &status) != 0 || !S_ISDIR(status.st_mode) || status.st_uid != 0) {
    return fail(make_error(ErrorCode::kRefused, "take the state directory", state,
                           "it must be a directory of root's, and no symbolic link"));
  }
  std::error_code error;
  context_.state_directory = std::filesystem::absolute(state, error).lexically_normal().string();
  MIGRATE_TRY(make_directory(mailbox_directory(context_.state_directory), 0700, true));
  if (options.debug_stops) {
    const std::string stops = context_.state_directory + "/stops";
    MIGRATE_TRY(make_directory(stops, 0700, true));
    context_.stops = StopPoints(stops);
  }
  if (options.trace_arrivals) {
    context_.trace_directory = context_.state_directory + "/arrivals";
    MIGRATE_TRY(make_directory(context_.trace_directory, 0700, true));
  }

  MIGRATE_TRY(SessionFile::prepare(context_.state_directory));
  const std::string path = context_.state_directory + "/lock";
  lock_ = MIGRATE_TRY(open_file(path, O_RDWR | O_CREAT, 0600));
  if (flock(lock_.get(), LOCK_EX | LOCK_NB) != 0) {
    std::string holder = read_file(path).value_or("");
    holder.erase(std::find(holder.begin(), holder.end(), '\n'), holder.end());
    return fail(make_error(ErrorCode::kRefused, "take the state directory",
                           context_.state_directory + ", in use by migrated with pid " + holder,
                           "stop that one first, or give another --state and --socket"));
  }
  const std::string pid = std::to_string(getpid()) + "\n";
  if (ftruncate(lock_.get(), 0) != 0) {
    return fail(system_error("truncate", path));
  }
  MIGRATE_TRY(write_all(lock_.get(), std::as_bytes(std::span(pid))));
  // Opened only to repair it: children open it for themselves.
  MIGRATE_TRY(Registry::open_or_repair(context_.state_directory));
  MIGRATE_TRY(Database::move_aside_if_damaged(NameBook::path(context_.state_directory)));
  return {};
}

Result<void> Daemon::take_socket() {
  const std::string& path = context_.socket_path;
  MIGRATE_TRY(make_directory(std::filesystem::path(path).parent_path().string(), 0755, false));
  local_ = MIGRATE_TRY(UnixListener::create(path, 0666, UnixKind::kStream));
  return {};
}

Result<void> Daemon::open_queue() {
  constexpr rlim_t kMostWaiting = 512;
  constexpr rlim_t kFewestWaiting = 16;
  rlimit files{};
  ::getrlimit(RLIMIT_NOFILE, &files);
  const rlim_t waiting = std::clamp(files.rlim_cur / 2, kFewestWaiting, kMostWaiting);
  peer_log_ = std::make_shared<const PeerLog>(MIGRATE_TRY(PeerLog::create()));
  full_log_ = MIGRATE_TRY(LogQuota::create());
  origins_ = MIGRATE_TRY(PeerOrigins::create());
  queue_.emplace(PeerQueue::Limits{.waiting = waiting, .served = max_connections_}, peer_log_,
                 [directory = context_.state_directory](const SessionId& session) {
                   return ::access(mailbox_path(directory, to_hex(session)).c_str(), F_OK) == 0;
                 });
  return {};
}

Result<void> Daemon::take_addresses(const DaemonOptions& options) {
  for (const Address& address : MIGRATE_TRY(listen_addresses(options, context_.trust))) {
    // Not opened here: what a transport of pages needs does not outlive a fork. The workers listen
    // there.
    if (const PageTransport* const transport = find_page_transport(address.scheme)) {
      context_.page_addresses.push_back({transport, address.host});
      continue;
    }
    listeners_.push_back(MIGRATE_TRY(TcpListener::create(address)));
    if (listeners_.size() == 1) {
      context_.own_address = address;
      context_.own_address.port = listeners_.front().port();
      if (address.host == "0.0.0.0" || address.host == "::" || address.host.empty()) {
        context_.own_address.host = context_.host_name;
      }
    }
  }
  std::ranges::sort(context_.page_addresses, {}, [](const PageAddress& own) {
    return std::ranges::find(page_transports(), own.transport) - page_transports().begin();
  });
  if (!options.advertise.empty()) {
    context_.own_address = MIGRATE_TRY(Address::parse(options.advertise));
  }
  if (context_.trust.encrypts()) {
    context_.own_address.scheme = "tls";
  }
  MIGRATE_TRY(check_page_addresses());
  return check_certificate();
}

/// Workers that listen on all addresses tell the sources the daemon's own one.
Result<void> Daemon::check_page_addresses() const {
  const std::string& own = context_.own_address.host;
  for (const auto& [transport, host] : context_.page_addresses) {
    const Address address{.scheme = transport->word, .host = host};
    MIGRATE_TRY(transport->check(address));
    if (address.is_any() && own != context_.host_name &&
        MIGRATE_TRY(context_.own_address.is_loopback())) {
      return fail(would_mislead(*transport, host, own));
    }
  }
  return {};
}

/// Peers will expect the certificate to be for the address by which they reach this host.
Result<void> Daemon::check_certificate() const {
  const auto own = context_.trust.own_identity();
  const std::string& host = context_.own_address.host;
  if (!own || own->is_host(host)) {
    return {};
  }
  return fail(make_error(ErrorCode::kRefused, "use the certificate of", own->to_string(),
                         "other hosts reach this one as " + host +
                             ", which it is not for; make "
                             "one with migratectl keys add-host --also " +
                             host + ", or give a name that it is for with --advertise"));
}

Result<void> Daemon::run() {
  for (const TcpListener& listener : listeners_) {
    log::info("listening on port {} for other hosts, which reach this one as {}", listener.port(),
              context_.own_address.to_string());
  }
  for (const auto& [transport, host] : context_.page_addresses) {
    log::info("workers take pages over {} on {}{}", transport->name, host,
              context_.trust.encrypts() ? "; these are not encrypted" : "");
    if (const std::string problem = transport->problem(host); !problem.empty()) {
      log::warn("until this is mended, pages go over TCP: {}", problem);
    }
  }
  if (context_.trust.authenticates()) {
    log::info("other hosts prove who they are by {}{}", context_.trust.name(),
              context_.trust.encrypts() ? "" : "; nothing is encrypted");
  } else {
    log::warn("other hosts do not prove who they are, and nothing is encrypted");
  }
  log::info("listening on {}, state in {}", context_.socket_path, context_.state_directory);
  open_spare();
  prepare_to_inspect();
  std::vector<pollfd> waits;
  bool more = false;
  for (;;) {
    adopt_orphans();
    start_link_keeper();
    waits = {
        {signals_.get(), POLLIN, 0}, {promoted_read_.get(), POLLIN, 0}, {local_->fd(), POLLIN, 0}};
    for (const TcpListener& listener : listeners_) {
      waits.push_back({listener.fd(), POLLIN, 0});
    }
    const std::size_t own = waits.size();
    queue_->append_polls(waits);
    if (poll(waits.data(), waits.size(), more ? 0 : kLookForOrphansMs) < 0 && errno != EINTR) {
      return fail(system_error("poll"));
    }
    note_promoted();  // before reaping, so that no old pid is entered anew
    if (waits[0].revents != 0 && !handle_signals()) {
      break;
    }
    if (waits[2].revents != 0) {
      accept_local();
    }
    queue_->read(std::span(waits).subspan(own));
    for (std::size_t i = 0; i < listeners_.size(); ++i) {
      if (waits[3 + i].revents != 0) {
        accept_peers(listeners_[i]);
      }
    }
    more = serve_peers();
  }
  log::info("ends; workers and moved processes go on");
  local_.reset();  // removes the socket
  return {};
}

bool Daemon::handle_signals() {
  signalfd_siginfo info = {};
  while (read(signals_.get(), &info, sizeof info) == static_cast<ssize_t>(sizeof info)) {
    if (info.ssi_signo == SIGTERM || info.ssi_signo == SIGINT) {
      return false;
    }
  }
  reap();
  return true;
}

void Daemon::reap() {
  int status = 0;
  pid_t pid = 0;
  while ((pid = waitpid(-1, &status, WNOHANG)) > 0) {
    release(pid, WIFEXITED(status) && WEXITSTATUS(status) == 0);
    if (WIFSIGNALED(status)) {
      log::error("child {} was ended by signal {} ({})", pid, WTERMSIG(status),
                 strsignal(WTERMSIG(status)));
    }
  }
}

// What dead workers left, our own and those of a daemon before us, is looked for by their files,
// not by their ends, of which no one may have told us.
void Daemon::adopt_orphans() {
  const auto now = std::chrono::steady_clock::now();
  if (now < next_look_) {
    return;
  }
  next_look_ = now + std::chrono::milliseconds(kLookForOrphansMs);
  const auto orphans = orphaned_sessions(context_.state_directory, closed_sessions_);
  std::erase_if(adoptions_, [&](const auto& adoption) {
    return std::find(orphans.begin(), orphans.end(), adoption.first) == orphans.end();
  });
  for (const std::string& name : orphans) {
    Adoption& adoption = adoptions_[name];
    if (now < adoption.next) {
      continue;  // The last one failed, or has not taken over yet.
    }
    adoption.next = now + adoption.pause;
    adoption.pause = std::min(2 * adoption.pause, kLongestAdoptionPause);
    log::info("the worker of {} has died; starting another", name);
    fork_child({}, [&] {
      become_worker({});
      run_adopted_worker(context_, name);
      return 0;
    });
  }
}

// One child for all of them, so that they are followed by one and hold up nobody.
void Daemon::start_link_keeper() {
  const auto now = std::chrono::steady_clock::now();
  if (now < next_links_) {
    return;
  }
  next_links_ = now + std::chrono::milliseconds(kLookForOrphansMs);
  if (auto taken = take_links(context_.state_directory)) {
    fork_child({}, [&] {
      keep_links({context_, peers_, {}}, std::move(*taken));
      return 0;
    });
  }
}

void Daemon::note_promoted() {
  pid_t pid = 0;
  while (::read(promoted_read_.get(), &pid, sizeof pid) == static_cast<ssize_t>(sizeof pid)) {
    release(pid, true);
  }
}

void Daemon::release(pid_t child, bool has_proved) {
  const auto found = connecting_.find(child);
  if (found == connecting_.end()) {
    return;
  }
  if (found->second.place) {
    queue_->leave(*found->second.place, has_proved);
  }
  connecting_.erase(found);
}

// Without a descriptor a connection cannot even be taken to be refused, and would wait for ever:
// the spare one lets go for a moment.
void Daemon::turn_away(int listener, const Error& error, std::string_view reply) {
  if (error.code == ErrorCode::kRetry) {
    return;  // It went away by itself.
  }
  log::error("{}", error.message());
  if (error.sys_errno != EMFILE && error.sys_errno != ENFILE) {
    std::this_thread::sleep_for(kPause);
    return;
  }
  spare_.reset();
  if (const UniqueFd client(::accept4(listener, nullptr, nullptr, SOCK_CLOEXEC)); client.valid()) {
    (void)!::send(client.get(), reply.data(), reply.size(), MSG_DONTWAIT | MSG_NOSIGNAL);
  } else {
    std::this_thread::sleep_for(kPause);
  }
  open_spare();
}

void Daemon::open_spare() {
  spare_.reset(::open("/dev/null", O_RDONLY | O_CLOEXEC));
}

void Daemon::accept_local() {
  Result<UniqueFd> client = local_->accept(0);
  if (!client) {
    turn_away(local_->fd(), client.error(), kNoDescriptorsReply);
    return;
  }
  const std::int64_t taken_ns = clock_ns(CLOCK_BOOTTIME);
  const Result<ucred> asker = peer_credentials(client->get());
  const uid_t user = asker ? asker->uid : 0;
  if (is_full(user)) {
    log::warn(*full_log_, "refused a local request of user {}: {} connections are being served",
              user, connecting_.size());
    (void)!::send(client->get(), kBusyReply, std::strlen(kBusyReply), MSG_DONTWAIT | MSG_NOSIGNAL);
    return;
  }
  fork_child({.user = user, .place = {}}, [&] {
    serve_local(
        {context_, peers_,
         [this](const std::vector<int>& descriptors) { become_worker(descriptors); }, taken_ns},
        std::move(*client));
    return 0;
  });
}

void Daemon::accept_peers(TcpListener& listener) {
  // All that wait in the kernel: who comes last there would wait for all the others, in whatever
  // order they are served here.
  constexpr int kAtOnce = 4096;
  for (int i = 0; i < kAtOnce; ++i) {
    Result<TcpListener::Accepted> accepted = listener.accept(0);
    if (!accepted) {
      turn_away(listener.fd(), accepted.error(), "");
      return;
    }
    PeerOrigin origin = origins_->of(accepted->fd.get());
    queue_->admit(std::move(accepted->fd), std::move(accepted->peer), std::move(origin));
  }
}

bool Daemon::serve_peers() {
  constexpr int kAtOnce = 4;  // A child takes milliseconds, in which others come.
  queue_->expire();
  for (int i = 0; i < kAtOnce; ++i) {
    std::optional<PeerQueue::Newcomer> newcomer = queue_->next();
    if (!newcomer) {
      return false;
    }
    const PeerQueue::Place place = newcomer->place;
    fork_child({.user = {}, .place = place}, [&] {
      const PeerService service{context_, *peer_log_,
                                [this](int connection) { become_worker({connection}); }};
      return serve_peer(service, std::move(*newcomer)) ? 0 : 1;
    });
  }
  return true;
}

bool Daemon::is_full(uid_t user) const {
  constexpr std::size_t kParts = 4;  // One user gets no more than one, all users all but one.
  std::size_t local = 0;
  std::size_t of_users = 0;
  std::size_t of_user = 0;
  for (const auto& [pid, other] : connecting_) {
    local += other.user ? 1 : 0;
    of_users += other.user && *other.user != 0 ? 1 : 0;
    of_user += other.user == user ? 1 : 0;
  }
  const auto at_most = [this](std::size_t parts) {
    return std::max<std::size_t>(max_connections_ * parts / kParts, 1);
  };
  return local >= max_connections_ ||
         (user != 0 && (of_users >= at_most(kParts - 1) || of_user >= at_most(1)));
}

void Daemon::fork_child(const Client& client, const std::function<int()>& serve) {
  const pid_t pid = fork();
  if (pid < 0) {
    log::error(
        "{}",
        system_error("fork a child for", client.user ? "a local request" : "a peer").message());
    if (client.place) {
      queue_->leave(*client.place, false);
    }
    std::this_thread::sleep_for(kPause);
  } else if (pid > 0) {
    connecting_.emplace(pid, client);
  } else {
    listeners_.clear();
    local_.reset();
    queue_.reset();
    origins_.reset();
    for (UniqueFd* fd : {&lock_, &signals_, &promoted_read_, &spare_}) {
      fd->reset();
    }
    reset_signals();
    const int status = serve();
    (void)std::fflush(nullptr);
    _exit(status);
  }
}

void Daemon::become_worker(std::vector<int> descriptors) {
  (void)setsid();
  // Where the kernel weighs sessions against each other (CONFIG_SCHED_AUTOGROUP, as long as nobody
  // has put them into control groups), nice values count within one only: without this the pushes
  // of a worker (nice -5) would be weighed like any other program's work.
  (void)write_file("/proc/self/autogroup", "-5");
  (void)prctl(PR_SET_NAME, kWorkerName);
  start_logging(kWorkerName);
  report_crashes(kWorkerName);
  const pid_t pid = getpid();
  (void)!write(promoted_write_.get(), &pid, sizeof pid);
  promoted_write_.reset();
  // What the daemon itself inherited, if anything: only the standard streams and what was given are
  // the worker's.
  std::sort(descriptors.begin(), descriptors.end());
  unsigned first = STDERR_FILENO + 1;
  for (const int descriptor : descriptors) {
    const auto kept = static_cast<unsigned>(descriptor);
    if (descriptor > STDERR_FILENO && kept > first) {
      (void)close_range(first, kept - 1, 0);
    }
    first = descriptor > STDERR_FILENO ? kept + 1 : first;
  }
  (void)close_range(first, ~0U, 0);
}

}  // namespace migrate
