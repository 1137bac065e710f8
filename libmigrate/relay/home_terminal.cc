#include "libmigrate/relay/home_terminal.h"

#include <termios.h>

#include <algorithm>
#include <array>
#include <cstring>
#include <utility>

#include "base/log.h"

namespace migrate {
namespace {

/// What was typed longer ago than this goes back to nobody.
constexpr std::size_t kMostTyped = kMostTerminalInput;
constexpr std::size_t kMostPieces = 8192;

void add_to(StreamBuffer& in, TerminalFrame kind, std::string_view content) {
  std::string frame;
  add_frame(frame, kind, content);
  in.append(frame);
}

bool continues_character(char byte) {
  return (static_cast<unsigned char>(byte) & 0xC0U) == 0x80U;
}

// The last character, but no line end.
void erase_character(std::string& text, bool has_long_ones) {
  while (has_long_ones && !text.empty() && continues_character(text.back())) {
    text.pop_back();
  }
  if (!text.empty() && text.back() != '\n') {
    text.pop_back();
  }
}

// What a line discipline would make of it: line ends, and characters taken back.
std::string edited(std::string_view typed, const TerminalModes& modes) {
  std::string text;
  for (const char byte : typed) {
    const auto is = [&](int character) {
      const std::uint8_t set = modes.characters.at(static_cast<std::size_t>(character));
      return modes.edits_lines() && set != _POSIX_VDISABLE && static_cast<char>(set) == byte;
    };
    if (is(VERASE)) {
      erase_character(text, (modes.input & static_cast<std::uint32_t>(IUTF8)) != 0);
    } else if (is(VKILL)) {
      text.resize(text.rfind('\n') + 1);  // All, if there is none.
    } else {
      text.push_back(byte == '\r' ? '\n' : byte);
    }
  }
  return text;
}

// What was typed and not given back since, in `frames`; borrowed.
std::vector<TerminalUnit> input_in(std::string_view frames) {
  std::vector<TerminalUnit> input;
  for (auto unit = first_unit(frames); unit && *unit; unit = first_unit(frames)) {
    const TerminalFrame kind = (*unit)->kind;
    if (kind == TerminalFrame::kPlain || kind == TerminalFrame::kLine ||
        kind == TerminalFrame::kPart) {
      input.push_back(**unit);
    } else if (kind == TerminalFrame::kGoOn) {
      input.clear();
    }
    frames.remove_prefix((*unit)->bytes);
  }
  return input;
}

// Whether the character that ended it is not in it.
bool has_hidden_end(bool is_complete, std::string_view bytes) {
  return is_complete && !bytes.ends_with('\n');
}

std::size_t typed_bytes_of(const TerminalUnit& unit) {
  const bool is_complete = unit.kind == TerminalFrame::kLine;
  return unit.content.size() + (has_hidden_end(is_complete, unit.content) ? 1 : 0);
}

}  // namespace

std::vector<TerminalInput> typed_before(const std::vector<TerminalInput>& returned,
                                        std::string_view typed, const TerminalModes& modes) {
  const std::string text = edited(typed, modes);
  std::string_view left(text);
  auto first = returned.end();
  while (first != returned.begin()) {
    const TerminalInput& piece = *std::prev(first);
    std::string bytes = piece.bytes;
    std::ranges::replace(bytes, '\r', '\n');
    if (has_hidden_end(piece.is_complete, bytes)) {
      if (left.empty() || static_cast<std::uint8_t>(left.back()) != modes.characters.at(VEOF)) {
        break;
      }
      left.remove_suffix(1);
    }
    if (!left.ends_with(bytes)) {
      break;
    }
    left.remove_suffix(bytes.size());
    --first;
  }
  return {first, returned.end()};
}

void HomeTerminal::adopt(const wire::HomeTerminalState& noted) {
  if (auto modes = TerminalModes::from_bytes(noted.modes())) {
    modes_ = *modes;
  }
  if (auto raw = TerminalModes::from_bytes(noted.raw_modes())) {
    raw_modes_ = *raw;
  }
  rests_ = noted.rests();
  typed_ = noted.typed();
}

wire::HomeTerminalState HomeTerminal::note() const {
  wire::HomeTerminalState noted;
  noted.set_modes(modes_.to_bytes());
  if (raw_modes_) {
    noted.set_raw_modes(raw_modes_->to_bytes());
  }
  noted.set_rests(rests_);
  noted.set_typed(typed_);
  return noted;
}

void HomeTerminal::follow(int fd, bool in_foreground, bool may_take, StreamBuffer& in) {
  if (const auto size = read_size(fd); size && told_size_ != *size) {
    told_size_ = *size;
    std::array<char, sizeof(*size)> bytes;
    std::memcpy(bytes.data(), &*size, bytes.size());
    add_to(in, TerminalFrame::kSize, {bytes.data(), bytes.size()});
  }
  const bool is_for_process = has_input_ && in_foreground && !rests_;
  if (is_for_process && may_take) {
    way_lost_at_.reset();
    const auto modes = read_modes(fd);
    if (modes && raw_modes_ != *modes) {
      take(fd, *modes, in);
    }
  } else if (!is_for_process || !waits_for_a_way()) {
    leave(fd);
  }
  if (is_controlling_ && told_foreground_ != in_foreground && !rests_) {  // After its modes.
    told_foreground_ = in_foreground;
    const char value = in_foreground ? '\1' : '\0';
    add_to(in, TerminalFrame::kForeground, {&value, 1});
  }
}

bool HomeTerminal::waits_for_a_way() {
  constexpr std::chrono::seconds kPatience{1};
  const auto now = std::chrono::steady_clock::now();
  way_lost_at_ = way_lost_at_.value_or(now);
  return is_taken() && now - *way_lost_at_ < kPatience;
}

// Somebody else may have set `modes` meanwhile: a shell, before it lets the process go on.
void HomeTerminal::take(int fd, const TerminalModes& modes, StreamBuffer& in) {
  if (!raw_modes_ && modes == raw_modes(modes_)) {
    raw_modes_ = modes;  // A worker before had set them, and died before it could note that.
    return;
  }
  if (modes_ != modes) {
    modes_ = modes;
    add_to(in, TerminalFrame::kSettings, modes.to_bytes());
  }
  const auto input = take_input(fd, modes);
  if (!input) {
    log::debug("{}", input.error().message());
    return;
  }
  for (const TerminalInput& piece : *input) {
    keep_typed(piece);
    add_to(in, piece.is_complete ? TerminalFrame::kLine : TerminalFrame::kPart, piece.bytes);
  }
  if (const auto raw = read_modes(fd)) {
    raw_modes_ = *raw;
  }
}

void HomeTerminal::leave(int fd) {
  const std::string typed = set_modes_back(fd);
  if (const auto given = type_input(fd, typed); !given) {
    log::info("what was typed is lost: {}", given.error().message());
  }
}

// Gives what was typed meanwhile: in other modes the kernel would take it for a line.
std::string HomeTerminal::set_modes_back(int fd) {
  std::string typed;
  const auto modes = raw_modes_ ? read_modes(fd) : Result<TerminalModes>(modes_);
  if (raw_modes_ && modes && *modes == *raw_modes_) {
    for (const TerminalInput& piece :
         take_input(fd, *modes).value_or(std::vector<TerminalInput>())) {
      typed += piece.bytes;
    }
    if (const auto set = write_modes(fd, modes_); !set) {
      log::warn("{}", set.error().message());
    }
  }
  raw_modes_.reset();
  return typed;
}

void HomeTerminal::go_on() {
  rests_ = false;
  told_size_.reset();
  told_foreground_.reset();
}

void HomeTerminal::keep_typed(std::string_view bytes) {
  typed_.append(bytes);
  typed_.erase(0, typed_.size() - std::min(typed_.size(), kMostTyped));
}

void HomeTerminal::keep_typed(const TerminalInput& piece) {
  keep_typed(piece.bytes);
  if (has_hidden_end(piece.is_complete, piece.bytes)) {
    const char end = static_cast<char>(found_modes_.characters.at(VEOF));
    keep_typed(std::string_view(&end, 1));
  }
}

void HomeTerminal::add_typed(std::string_view bytes, StreamBuffer& in) {
  keep_typed(bytes);
  std::string plain;
  add_plain(plain, bytes);
  in.append(plain);
}

Result<void> HomeTerminal::apply(int fd, const TerminalUnit& frame, StreamBuffer& in) {
  switch (frame.kind) {
    case TerminalFrame::kSettings:
      modes_ = MIGRATE_TRY(TerminalModes::from_bytes(frame.content));
      modes_.line = 0;
      return {};
    case TerminalFrame::kSize: {
      TerminalSize size;
      std::memcpy(&size, frame.content.data(), sizeof(size));
      told_size_ = size;
      static_cast<void>(write_size(fd, size));
      return {};
    }
    case TerminalFrame::kLine:
    case TerminalFrame::kPart:
      returned_bytes_ += frame.content.size();
      if (returned_.size() == kMostPieces || returned_bytes_ > 2 * kMostTerminalInput) {
        break;
      }
      returned_.push_back({std::string(frame.content), frame.kind == TerminalFrame::kLine});
      return {};
    case TerminalFrame::kReturned: {
      std::uint64_t offset = 0;
      std::memcpy(&offset, frame.content.data(), sizeof(offset));
      return give_back(fd, offset, in);
    }
    default:
      break;
  }
  return fail(
      make_error(ErrorCode::kCorrupt, "accept a frame that no place sends", "relayed terminal"));
}

Result<void> HomeTerminal::give_back(int fd, std::uint64_t offset, StreamBuffer& in) {
  const std::uint64_t from = std::max(offset, in.first());
  const bool is_there = offset <= in.end() && in.size() <= kRelayWindowBytes;  // Not without end.
  // Within a frame there are bytes that nobody has typed, some of the place's own choice.
  if (!is_there ||
      in.first() + whole_units(in.view(in.first(), in.size()), from - in.first()) != from) {
    return fail(make_error(ErrorCode::kCorrupt, "give input back", "relayed terminal"));
  }
  const std::string typed_last = set_modes_back(fd);
  const std::vector<TerminalUnit> under_way = input_in(in.view(from, in.size()));
  std::size_t typed_bytes = typed_.size();
  for (const TerminalUnit& unit : under_way) {
    typed_bytes -= std::min(typed_bytes, typed_bytes_of(unit));
  }
  const std::string_view taken = std::string_view(typed_).substr(0, typed_bytes);
  TerminalModes as_typed = found_modes_;
  as_typed.local = modes_.local;
  auto given = put_input(fd, typed_before(returned_, taken, as_typed), modes_);
  for (const TerminalUnit& unit : under_way) {
    if (given && unit.kind == TerminalFrame::kPlain) {
      given = type_input(fd, unit.content);
    } else if (given) {
      given =
          put_input(fd, {{std::string(unit.content), unit.kind == TerminalFrame::kLine}}, modes_);
    }
  }
  if (given) {
    given = type_input(fd, typed_last);
  }
  if (!given) {
    log::info("what was typed is lost: {}", given.error().message());
  }
  returned_.clear();
  returned_bytes_ = 0;
  typed_.clear();
  rests_ = true;
  add_to(in, TerminalFrame::kGoOn, {});
  return {};
}

HomeTerminal::Bite HomeTerminal::next_bite(int fd, std::string_view plain) const {
  constexpr std::string_view kLineEnd = "\r\n";
  const auto modes = raw_modes_ ? Result<TerminalModes>(*raw_modes_) : read_modes(fd);
  if (!modes || !modes->changes_output()) {
    return {0, plain.size()};
  }
  if (plain.starts_with(kLineEnd)) {
    const std::size_t next = plain.find(kLineEnd, kLineEnd.size());
    return {1, std::min(next, plain.size()) - 1};
  }
  return {0, std::min(plain.find(kLineEnd), plain.size())};
}

}  // namespace migrate
