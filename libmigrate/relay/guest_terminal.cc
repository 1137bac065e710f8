#include "libmigrate/relay/guest_terminal.h"

#include <sys/ioctl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstring>
#include <vector>

#include "base/log.h"

namespace migrate {
namespace {

/// So little is in the pseudo-terminal that the process has not read, that it fits into the line
/// discipline, which tells how much that is; the rest waits with us.
constexpr std::size_t kMostUnread = 2048;
constexpr std::size_t kMostAtOnce = 1024;

void add_input(std::string& frames, const std::vector<TerminalInput>& input) {
  for (const TerminalInput& piece : input) {
    add_frame(frames, piece.is_complete ? TerminalFrame::kLine : TerminalFrame::kPart, piece.bytes);
  }
}

TerminalInput input_of(const TerminalUnit& unit) {
  return {std::string(unit.content), unit.kind == TerminalFrame::kLine};
}

}  // namespace

Result<void> GuestTerminal::open(TerminalParts parts, uid_t owner, gid_t group) {
  constexpr mode_t kOwners = 0600;
  constexpr mode_t kGroupWrites = 0020;
  const int slave = parts.pair.slave.get();
  if (::fchown(slave, owner, group) != 0 ||
      ::fchmod(slave, kOwners | (parts.permissions & kGroupWrites)) != 0) {
    return fail(system_error("give away", "a pseudo-terminal"));
  }
  parts.modes.line = 0;
  MIGRATE_TRY(write_modes(slave, parts.modes));
  MIGRATE_TRY(write_size(slave, parts.size));
  told_modes_ = MIGRATE_TRY(read_modes(slave));
  told_size_ = parts.size;
  master_ = std::move(parts.pair.master);
  slave_ = std::move(parts.pair.slave);
  put_back();  // Before the process can change its modes.
  return {};
}

void GuestTerminal::adopt(UniqueFd master, UniqueFd slave) {
  master_ = std::move(master);
  slave_ = std::move(slave);
}

wire::RelayTerminalState GuestTerminal::state() const {
  wire::RelayTerminalState state;
  state.set_unread(unread_);
  state.set_discards(discards_);
  return state;
}

Result<void> GuestTerminal::take(StreamBuffer& in) {
  put_back();
  std::size_t room = this->room();
  while (master_.valid()) {
    const std::optional<TerminalUnit> unit =
        MIGRATE_TRY(first_unit(in.view(in.first(), kMostTerminalFrame + kMostAtOnce)));
    if (!unit) {
      return {};
    }
    std::size_t taken = unit->bytes;
    if (unit->kind == TerminalFrame::kPlain && !discards_) {
      const std::string_view plain = unit->content.substr(0, room);
      const ssize_t count = plain.empty() ? 0 : ::write(master_.get(), plain.data(), plain.size());
      if (count <= 0) {
        return {};
      }
      const auto written = static_cast<std::size_t>(count);
      room -= written;
      taken = written == unit->content.size() ? unit->bytes : written;
    } else {
      MIGRATE_TRY(apply(*unit));
    }
    in.drop_to(in.first() + taken);
  }
  in.drop_to(in.end());
  return {};
}

Result<void> GuestTerminal::apply(const TerminalUnit& unit) {
  if (unit.kind == TerminalFrame::kGoOn) {
    discards_ = false;
    return {};
  }
  if (discards_) {
    return {};
  }
  switch (unit.kind) {
    case TerminalFrame::kLine:
    case TerminalFrame::kPart:
      put(input_of(unit));
      return {};
    case TerminalFrame::kSettings: {
      TerminalModes modes = MIGRATE_TRY(TerminalModes::from_bytes(unit.content));
      modes.line = 0;
      if (write_modes(master_.get(), modes)) {
        if (const auto set = read_modes(master_.get())) {  // No pseudo-terminal has all modes.
          told_modes_ = *set;
        }
      }
      return {};
    }
    case TerminalFrame::kSize: {
      TerminalSize size;
      std::memcpy(&size, unit.content.data(), sizeof(size));
      told_size_ = size;
      static_cast<void>(write_size(master_.get(), size));
      return {};
    }
    case TerminalFrame::kForeground:
      foreground_ = unit.content.front() != 0;
      return {};
    default:
      return fail(make_error(ErrorCode::kCorrupt, "accept a frame that home does not send",
                             "relayed terminal"));
  }
}

// As it stands in the line discipline, or, where the kernel does not allow that, as if it were
// typed again.
void GuestTerminal::put(const TerminalInput& input) {
  const auto modes = read_modes(master_.get());
  const Result<void> done = modes ? put_input(slave_.get(), {input}, *modes) : fail(modes.error());
  if (!done) {
    log::debug("{}", done.error().message());
    static_cast<void>(::write(master_.get(), input.bytes.data(), input.bytes.size()));
  }
}

void GuestTerminal::put_back() {
  if (!master_.valid()) {
    return;
  }
  std::string_view left(unread_);
  while (!left.empty()) {
    const auto unit = first_unit(left);
    if (!unit || !*unit) {
      break;  // A peer's nonsense: there is nothing to be put back of it.
    }
    if ((*unit)->kind == TerminalFrame::kLine || (*unit)->kind == TerminalFrame::kPart) {
      put(input_of(**unit));
    }
    left.remove_prefix((*unit)->bytes);
  }
  unread_.clear();
}

std::size_t GuestTerminal::room() const {
  int unread = 0;
  if (!slave_.valid() || ::ioctl(slave_.get(), FIONREAD, &unread) != 0 || unread < 0) {
    return kMostAtOnce;
  }
  const auto waiting = std::min(static_cast<std::size_t>(unread), kMostUnread);
  return std::min(kMostUnread - waiting, kMostAtOnce);
}

bool GuestTerminal::read_out(StreamBuffer& out, std::uint64_t limit) {
  std::array<char, 4096> bytes;
  bool is_over = false;
  while (!is_over && master_.valid() && out.size() < limit) {
    const ssize_t count = ::read(master_.get(), bytes.data(), bytes.size());
    if (count > 0) {
      std::string plain;
      add_plain(plain, {bytes.data(), static_cast<std::size_t>(count)});
      out.append(plain);
    } else if (count == 0 || errno != EINTR) {
      is_over = count == 0 || errno != EAGAIN;  // EIO: all slaves are closed.
      break;
    }
  }
  if (master_.valid()) {
    tell_settings(out);
  }
  return master_.valid() && !is_over;
}

void GuestTerminal::tell_settings(StreamBuffer& out) {
  std::string frames;
  if (const auto modes = read_modes(master_.get()); modes && told_modes_ != *modes) {
    told_modes_ = *modes;
    add_frame(frames, TerminalFrame::kSettings, modes->to_bytes());
  }
  if (const auto size = read_size(master_.get()); size && told_size_ != *size) {
    told_size_ = *size;
    std::array<char, sizeof(*size)> bytes;
    std::memcpy(bytes.data(), &*size, bytes.size());
    add_frame(frames, TerminalFrame::kSize, {bytes.data(), bytes.size()});
  }
  out.append(frames);
}

void GuestTerminal::give_back(const StreamBuffer& in, StreamBuffer& out) {
  if (discards_ || !master_.valid()) {
    return;
  }
  put_back();
  take_unread();
  std::string frames = std::exchange(unread_, {});
  std::array<char, sizeof(std::uint64_t)> offset;
  const std::uint64_t first = in.first();
  std::memcpy(offset.data(), &first, offset.size());
  add_frame(frames, TerminalFrame::kReturned, {offset.data(), offset.size()});
  out.append(frames);
  discards_ = true;
}

void GuestTerminal::take_unread() {
  if (!slave_.valid()) {
    return;
  }
  const auto modes = read_modes(slave_.get());
  if (!modes) {
    return;
  }
  if (const auto input = take_input(slave_.get(), *modes)) {
    add_input(unread_, *input);
  }
  if (const auto set = write_modes(slave_.get(), *modes); !set) {
    log::warn("{}", set.error().message());
  }
}

void GuestTerminal::hang_up() {
  master_.reset();
  slave_.reset();
}

}  // namespace migrate
