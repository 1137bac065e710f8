#include "libmigrate/relay/terminal_frames.h"

#include <algorithm>

#include "libmigrate/proc/terminal.h"

namespace migrate {
namespace {

constexpr char kEscape = '\xFF';
constexpr char kEscapedPlain = 'd';
constexpr std::size_t kHeaderBytes = 4;
static_assert(kMostTerminalFrame >= kMostTerminalInput);

// Whether a frame of this kind may have so much content.
bool is_sound(char kind, std::size_t length) {
  if (kind == kEscapedPlain) {
    return length == 1;
  }
  switch (static_cast<TerminalFrame>(kind)) {
    case TerminalFrame::kLine:
    case TerminalFrame::kPart:
      return length <= kMostTerminalFrame;
    case TerminalFrame::kSettings:
      return length == sizeof(TerminalModes);
    case TerminalFrame::kSize:
      return length == sizeof(TerminalSize);
    case TerminalFrame::kForeground:
      return length == 1;
    case TerminalFrame::kReturned:
      return length == sizeof(std::uint64_t);
    case TerminalFrame::kGoOn:
      return length == 0;
    default:
      return false;
  }
}

void add_any_frame(std::string& bytes, char kind, std::string_view content) {
  bytes.push_back(kEscape);
  bytes.push_back(kind);
  bytes.push_back(static_cast<char>(content.size() & 0xFFU));
  bytes.push_back(static_cast<char>(content.size() >> 8U));
  bytes.append(content);
}

}  // namespace

Result<std::optional<TerminalUnit>> first_unit(std::string_view bytes) {
  if (bytes.empty()) {
    return std::nullopt;
  }
  if (bytes.front() != kEscape) {
    const std::string_view plain = bytes.substr(0, bytes.find(kEscape));
    return TerminalUnit{TerminalFrame::kPlain, plain, plain.size()};
  }
  if (bytes.size() < kHeaderBytes) {
    return std::nullopt;
  }
  const char kind = bytes[1];
  const std::size_t length = static_cast<unsigned char>(bytes[2]) |
                             static_cast<std::size_t>(static_cast<unsigned char>(bytes[3])) << 8U;
  if (!is_sound(kind, length)) {
    return fail(make_error(ErrorCode::kCorrupt, "read a frame", "relayed terminal"));
  }
  if (bytes.size() < kHeaderBytes + length) {
    return std::nullopt;
  }
  return TerminalUnit{
      kind == kEscapedPlain ? TerminalFrame::kPlain : static_cast<TerminalFrame>(kind),
      bytes.substr(kHeaderBytes, length), kHeaderBytes + length};
}

std::size_t whole_units(std::string_view bytes, std::size_t most) {
  std::size_t end = 0;
  while (end < most) {
    const auto unit = first_unit(bytes.substr(end));
    if (!unit || !*unit) {
      break;
    }
    const bool is_run = (*unit)->bytes == (*unit)->content.size();
    if (end + (*unit)->bytes > most) {
      return is_run ? most : end;
    }
    end += (*unit)->bytes;
  }
  return end;
}

void add_plain(std::string& bytes, std::string_view plain) {
  while (!plain.empty()) {
    const std::size_t escape = std::min(plain.find(kEscape), plain.size());
    bytes.append(plain.substr(0, escape));
    plain.remove_prefix(escape);
    if (!plain.empty()) {
      add_any_frame(bytes, kEscapedPlain, plain.substr(0, 1));
      plain.remove_prefix(1);
    }
  }
}

void add_frame(std::string& bytes, TerminalFrame kind, std::string_view content) {
  add_any_frame(bytes, static_cast<char>(kind), content);
}

}  // namespace migrate
