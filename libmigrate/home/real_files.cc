#include "libmigrate/home/real_files.h"

#include <fcntl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <algorithm>
#include <optional>
#include <set>
#include <utility>

#include "base/file.h"
#include "base/log.h"
#include "libmigrate/image/only_process.h"
#include "libmigrate/links/tcp_socket.h"
#include "libmigrate/proc/proc_text.h"
#include "libmigrate/proc/terminal_of_process.h"
#include "libmigrate/relay/guest_relay.h"

namespace migrate {
namespace {

wire::RelayDirection directions_of(std::uint32_t flags) {
  switch (flags & O_ACCMODE) {
    case O_RDONLY:
      return wire::RELAY_IN;
    case O_WRONLY:
      return wire::RELAY_OUT;
    default:
      return wire::RELAY_BOTH;
  }
}

bool is_relayed(const wire::OpenFile& file) {
  return file.kind() == wire::OpenFile::RELAY || file.kind() == wire::OpenFile::TERMINAL ||
         file.kind() == wire::OpenFile::CONNECTION || file.kind() == wire::OpenFile::LISTENER ||
         file.kind() == wire::OpenFile::UNIX_CONNECTION;
}

// To such a socket somebody may be writing. Null: it is none.
const wire::OpenSocket* datagrams_of(const wire::Objects& objects, const wire::OpenFile& file) {
  if (file.kind() != wire::OpenFile::OPEN_SOCKET) {
    return nullptr;
  }
  const wire::OpenSocket& socket = objects.open_sockets(static_cast<int>(file.object()));
  return socket.is_datagram() && !socket.local().empty() ? &socket : nullptr;
}

// A side of the terminal of the session that the process leads: closed, it would hang up the
// deputy, and the deputy's signals are the process's.
bool is_of_own_session(const wire::Objects& objects, const wire::OpenFile& file) {
  return file.kind() == wire::OpenFile::TERMINAL_PAIR &&
         objects.terminal_pairs(static_cast<int>(file.object() / 2)).is_controlling();
}

// A descriptor of a stream, by which it is fetched.
struct Relayed {
  std::uint32_t number = 0;
  const wire::OpenFile* file = nullptr;
  const wire::Terminal* terminal = nullptr;      // null: it is none
  const wire::Connection* connection = nullptr;  // the same
  bool is_readable = false;                      // by some descriptor
};

const wire::Terminal* terminal_of(const wire::Objects& objects, const wire::OpenFile& file) {
  const auto found = std::ranges::find(objects.terminals(), file.object(), &wire::Terminal::stream);
  return file.kind() == wire::OpenFile::TERMINAL && found != objects.terminals().end() ? &*found
                                                                                       : nullptr;
}

const wire::Connection* connection_of(const wire::Objects& objects, const wire::OpenFile& file) {
  const auto found =
      std::ranges::find(objects.connections(), file.object(), &wire::Connection::stream);
  const bool is_one = file.kind() == wire::OpenFile::CONNECTION;
  return is_one && found != objects.connections().end() ? &*found : nullptr;
}

// The process had ended its output when it left home.
bool has_ended_output(const wire::Objects& objects, const Relayed& stream) {
  if (stream.file->kind() != wire::OpenFile::UNIX_CONNECTION) {
    return stream.connection != nullptr && stream.connection->send_ended();
  }
  const auto found = std::ranges::find(objects.unix_connections(), stream.file->object(),
                                       &wire::UnixConnection::stream);
  return found != objects.unix_connections().end() && found->send_ended();
}

// Of a terminal the best: for both directions, and by its own name.
int worth(const wire::OpenFile& file) {
  constexpr std::uint32_t kOthers = 5;  // The major number of /dev/tty.
  return ((file.flags() & O_ACCMODE) == O_RDWR ? 2 : 0) +
         (file.identity().device_major() != kOthers ? 1 : 0);
}

// The relayed descriptors of an image: for each stream one.
std::vector<Relayed> relayed(const wire::Image& image) {
  std::vector<Relayed> found;
  for (const wire::Descriptor& descriptor : only_process(image).descriptors()) {
    const wire::OpenFile& file = image.objects().files(static_cast<int>(descriptor.file()));
    if (!is_relayed(file)) {
      continue;
    }
    const auto known = std::ranges::find(found, file.object(),
                                         [](const Relayed& each) { return each.file->object(); });
    const bool is_readable = (file.flags() & O_ACCMODE) != O_WRONLY;
    if (known == found.end()) {
      found.push_back({descriptor.number(), &file, terminal_of(image.objects(), file),
                       connection_of(image.objects(), file), is_readable});
      continue;
    }
    known->is_readable = known->is_readable || is_readable;
    if (known->terminal != nullptr && worth(file) > worth(*known->file)) {
      known->number = descriptor.number();
      known->file = &file;
    }
  }
  return found;
}

wire::RelayDirection directions_of(const Relayed& stream) {
  return stream.terminal != nullptr ? wire::RELAY_BOTH : directions_of(stream.file->flags());
}

// Whether it is the terminal of some session: whoever is there reads what is typed.
bool is_of_a_session(std::uint64_t device) {
  const auto processes = list_directory("/proc").value_or(std::vector<std::string>());
  return std::ranges::any_of(processes, [&](const std::string& process) {
    const auto terminal = read_terminal_of_process(AT_FDCWD, "/proc/" + process + "/stat");
    return terminal && terminal->device == device;
  });
}

std::optional<HomeTerminal::Found> found_terminal(const Relayed& stream) {
  if (stream.terminal == nullptr) {
    return std::nullopt;
  }
  HomeTerminal::Found found;
  found.modes = TerminalModes::from_bytes(stream.terminal->modes()).value_or(TerminalModes());
  found.is_controlling = stream.terminal->is_controlling();
  found.has_input =
      found.is_controlling || (stream.is_readable && !is_of_a_session(stream.terminal->device()));
  return found;
}

std::optional<ConnectionEnd::Start> start_of(const Relayed& stream) {
  if (stream.connection == nullptr) {
    return std::nullopt;
  }
  return ConnectionEnd::Start{.taken = stream.connection->taken_bytes(),
                              .given = stream.connection->given_bytes()};
}

// What the process lets listen: the ids, by the bytes of the names.
std::map<std::string, std::uint32_t> listeners_of(const wire::Image& image,
                                                  const wire::HomeRelayState& noted) {
  std::map<std::string, std::uint32_t> all;
  for (const wire::Listener& listener : image.objects().listeners()) {
    const auto id = static_cast<std::uint32_t>(listener.stream());
    if (std::ranges::find(noted.closed_listeners(), id) == noted.closed_listeners().end()) {
      all.emplace(listener.name(), id);
    }
  }
  for (const wire::HomeRelayState::Listener& listener : noted.listeners()) {
    if (listener.has_made() && listener.error() == 0) {  // Else it was never had.
      all.emplace(listener.name(), listener.id());
    }
  }
  return all;
}

// That of which a connection has come; 0: none.
std::uint32_t listener_of(const std::map<std::string, std::uint32_t>& listeners, int fd) {
  const auto local = SocketName::of(fd);
  if (!local || !SocketName::of_peer(fd)) {
    return 0;
  }
  std::uint32_t of_any = 0;  // One of the very name comes before that.
  for (const auto& [bytes, id] : listeners) {
    const auto name = SocketName::from_bytes(bytes);
    if (!name || name->family() != local->family() || name->port() != local->port()) {
      continue;
    }
    if (name->address_bytes() == local->address_bytes()) {
      return id;
    }
    of_any = name->is_any() ? id : of_any;
  }
  return of_any;
}

// Whether the descriptor that a stream or a listener has had is not another's by now.
template <class Noted>
bool is_its(pid_t holder, const Noted& noted) {
  const auto fetched = fetch_descriptor(holder, noted.deputy_descriptor());
  return fetched && cookie_of(fetched->get()).value_or(0) == noted.cookie();
}

// The same, of all; `known` are those that it still has.
template <class Noted>
void take_out_closed(pid_t holder, google::protobuf::RepeatedPtrField<Noted>& all,
                     std::set<std::uint32_t>& known) {
  for (Noted& noted : all) {
    if (noted.deputy_descriptor() != 0 && !is_its(holder, noted)) {
      noted.set_deputy_descriptor(0);
    }
    known.insert(noted.deputy_descriptor());
  }
}

// Notes a listener that is wanted, and was made. False: it is none.
bool note_listener(std::uint32_t number, const UniqueFd& found, wire::HomeRelayState& noted) {
  int listens = 0;
  socklen_t size = sizeof(listens);
  if (::getsockopt(found.get(), SOL_SOCKET, SO_ACCEPTCONN, &listens, &size) != 0 || listens == 0) {
    return false;
  }
  const std::string name = SocketName::of(found.get()).value_or(SocketName()).to_bytes();
  for (wire::HomeRelayState::Listener& listener : *noted.mutable_listeners()) {
    if (listener.has_made() && listener.deputy_descriptor() == 0 && listener.name() == name) {
      listener.set_deputy_descriptor(number);
      listener.set_cookie(cookie_of(found.get()).value_or(0));
      listener.set_error(0);
      return true;
    }
  }
  return false;
}

UniqueFd descriptor_of(const UniqueFd& pidfd, std::uint32_t number) {
  return UniqueFd(static_cast<int>(::syscall(SYS_pidfd_getfd, pidfd.get(), number, 0)));
}

const wire::OpenFile& file_of(const wire::Image& image, const wire::Descriptor& descriptor) {
  return image.objects().files(static_cast<int>(descriptor.file()));
}

}  // namespace

wire::RelayState RealFiles::fresh_relay(const wire::Image& image) {
  std::vector<RelayStreamSpec> specs;
  for (const Relayed& stream : relayed(image)) {
    specs.push_back({static_cast<std::uint32_t>(stream.file->object()), directions_of(stream),
                     stream.terminal != nullptr, stream.connection != nullptr,
                     has_ended_output(image.objects(), stream),
                     stream.file->kind() == wire::OpenFile::LISTENER});
  }
  return make_relay_state(specs);
}

Result<void> RealFiles::fetch_streams(pid_t holder, const wire::Image& image) {
  return fetch(holder, image, true);
}

void RealFiles::fetch_streams_left(pid_t holder, const wire::Image& image) {
  static_cast<void>(fetch(holder, image, false));  // Has no errors then.
}

Result<void> RealFiles::fetch(pid_t holder, const wire::Image& image, bool must_be_there) {
  streams_.clear();
  const UniqueFd pidfd(static_cast<int>(::syscall(SYS_pidfd_open, holder, 0)));
  for (const Relayed& stream : relayed(image)) {
    UniqueFd real = descriptor_of(pidfd, stream.number);
    if (!real.valid() && must_be_there) {
      return fail(system_error("fetch", "descriptor " + std::to_string(stream.number)));
    }
    streams_.push_back({static_cast<std::uint32_t>(stream.file->object()), std::move(real),
                        directions_of(stream), found_terminal(stream), start_of(stream),
                        stream.file->kind() == wire::OpenFile::LISTENER});
  }
  fetch_datagrams(pidfd, image);
  return {};
}

// What cannot be had is as closed: another is made for it when it is used.
void RealFiles::fetch_datagrams(const UniqueFd& pidfd, const wire::Image& image) {
  std::map<std::uint32_t, KeptDatagrams> found;  // by the index of the file
  for (const wire::Descriptor& descriptor : only_process(image).descriptors()) {
    const auto* const socket = datagrams_of(image.objects(), file_of(image, descriptor));
    UniqueFd real = socket == nullptr ? UniqueFd() : descriptor_of(pidfd, descriptor.number());
    const auto name =
        socket == nullptr ? SocketName() : SocketName::of(real.get()).value_or(SocketName());
    if (name == SocketName()) {
      continue;
    }
    KeptDatagrams& kept = found[descriptor.file()];
    kept.descriptors.push_back(descriptor.number());
    kept.name = name;
    kept.real = std::move(real);
  }
  datagrams_.clear();
  for (auto& [file, kept] : found) {
    datagrams_.push_back(std::move(kept));
  }
}

void RealFiles::fetch_accepted(pid_t holder, const wire::HomeRelayState& noted) {
  for (const wire::HomeRelayState::Stream& stream : noted.streams()) {
    if (stream.has_accepted()) {
      auto real = fetch_descriptor(holder, stream.deputy_descriptor());
      const bool is_open = stream.deputy_descriptor() != 0 && real;
      streams_.push_back({stream.id(), is_open ? std::move(*real) : UniqueFd(), wire::RELAY_BOTH,
                          std::nullopt, ConnectionEnd::Start{}});
    }
  }
  for (const wire::HomeRelayState::Listener& listener : noted.listeners()) {
    auto real = listener.deputy_descriptor() == 0
                    ? Result<UniqueFd>(UniqueFd())
                    : fetch_descriptor(holder, listener.deputy_descriptor());
    if (real && real->valid()) {
      streams_.push_back(
          {listener.id(), std::move(*real), wire::RELAY_BOTH, std::nullopt, std::nullopt, true});
    }
  }
}

void RealFiles::fetch_journals(pid_t holder, const wire::HomeRelayState& noted) {
  for (const wire::HomeRelayState::Stream& stream : noted.streams()) {
    const auto found = std::ranges::find(streams_, stream.id(), &HomeRelay::Stream::id);
    auto journal = stream.journal_descriptor() == 0
                       ? Result<UniqueFd>(UniqueFd())
                       : fetch_descriptor(holder, stream.journal_descriptor());
    struct stat status {};
    if (found != streams_.end() && journal && ::fstat(journal->get(), &status) == 0 &&
        S_ISFIFO(status.st_mode) && status.st_ino == stream.journal_inode()) {
      found->journal = std::move(*journal);
    }
  }
}

void note_unnoted(pid_t holder, const wire::Image& image, wire::HomeRelayState& noted) {
  std::uint32_t next = std::max<std::uint32_t>(noted.next_accepted(), 1);
  std::set<std::uint32_t> known = descriptors_to_keep(image, true);
  for (const Relayed& stream : relayed(image)) {
    next = std::max(next, static_cast<std::uint32_t>(stream.file->object()) + 1);
  }
  const std::uint32_t first = noted.first_accepted() == 0 ? next : noted.first_accepted();
  take_out_closed(holder, *noted.mutable_streams(), known);
  take_out_closed(holder, *noted.mutable_listeners(), known);
  for (const wire::HomeRelayState::Stream& stream : noted.streams()) {
    known.insert(stream.journal_descriptor());
  }
  const auto listeners = listeners_of(image, noted);
  const std::string folder = "/proc/" + std::to_string(holder) + "/fd";
  for (const std::string& name : list_directory(folder).value_or(std::vector<std::string>())) {
    const auto number = static_cast<std::uint32_t>(parse_number(name).value_or(0));
    auto found =
        known.contains(number) ? UniqueFd() : fetch_descriptor(holder, number).value_or(UniqueFd());
    if (!found.valid() || note_listener(number, found, noted)) {
      continue;
    }
    const std::uint32_t listener = listener_of(listeners, found.get());
    if (listener == 0) {
      continue;
    }
    wire::HomeRelayState::Stream& stream = *noted.add_streams();
    stream.set_id(next++);
    stream.set_directions(wire::RELAY_BOTH);
    stream.set_deputy_descriptor(number);
    stream.set_cookie(cookie_of(found.get()).value_or(0));
    wire::RelayAccepted& accepted = *stream.mutable_accepted();
    accepted.set_stream(stream.id());
    accepted.set_listener(listener);
    accepted.set_local(SocketName::of(found.get()).value_or(SocketName()).to_bytes());
    accepted.set_peer(SocketName::of_peer(found.get()).value_or(SocketName()).to_bytes());
  }
  noted.set_first_accepted(first);
  noted.set_next_accepted(next);
}

Result<UniqueFd> fetch_descriptor(pid_t holder, std::uint32_t number) {
  const UniqueFd pidfd(static_cast<int>(::syscall(SYS_pidfd_open, holder, 0)));
  UniqueFd fetched = descriptor_of(pidfd, number);
  if (!fetched.valid()) {
    return fail(system_error("fetch", "descriptor " + std::to_string(number)));
  }
  return fetched;
}

void RealFiles::note_streams(const wire::HomeRelayState& noted) {
  for (const wire::HomeRelayState::Stream& stream : noted.streams()) {
    streams_.push_back(
        {stream.id(), UniqueFd(), static_cast<wire::RelayDirection>(stream.directions())});
  }
}

void RealFiles::fetch_shared(pid_t holder, const wire::Image& image) {
  const UniqueFd pidfd(static_cast<int>(::syscall(SYS_pidfd_open, holder, 0)));
  for (const wire::Descriptor& descriptor : only_process(image).descriptors()) {
    const wire::OpenFile& file = file_of(image, descriptor);
    if (file.shared_id() != 0 && !shared_.contains(file.shared_id())) {
      shared_.emplace(file.shared_id(), descriptor_of(pidfd, descriptor.number()));
    }
  }
}

void RealFiles::set_positions(const wire::RelayExited& exited, const std::string& name) {
  for (const wire::RelayExited::Position& position : exited.positions()) {
    const auto file = shared_.find(position.shared_id());
    if (file != shared_.end() &&
        ::lseek(file->second.get(), static_cast<off_t>(position.offset()), SEEK_SET) < 0) {
      log::warn("{}", system_error("set the position of a file of", "process " + name).message());
    }
  }
  shared_.clear();
}

std::vector<std::uint32_t> descriptors_of_stream(const wire::Image& image, std::uint32_t id) {
  std::vector<std::uint32_t> numbers;
  for (const wire::Descriptor& descriptor : only_process(image).descriptors()) {
    const wire::OpenFile& file = file_of(image, descriptor);
    if (is_relayed(file) && file.object() == id) {
      numbers.push_back(descriptor.number());
    }
  }
  return numbers;
}

std::set<std::uint32_t> descriptors_to_keep(const wire::Image& image, bool with_shared) {
  std::set<std::uint32_t> kept;
  for (const wire::Descriptor& descriptor : only_process(image).descriptors()) {
    const wire::OpenFile& file = file_of(image, descriptor);
    if (is_relayed(file) || (with_shared && file.shared_id() != 0) ||
        datagrams_of(image.objects(), file) != nullptr ||
        is_of_own_session(image.objects(), file)) {
      kept.insert(descriptor.number());
    }
  }
  return kept;
}

}  // namespace migrate
