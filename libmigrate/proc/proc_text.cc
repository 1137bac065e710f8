#include "libmigrate/proc/proc_text.h"

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <charconv>
#include <climits>
#include <cstring>

#include "base/file.h"
#include "base/unique_fd.h"

namespace migrate {
namespace {

constexpr std::string_view kBlanks = " \t";

std::string_view trimmed(std::string_view text) {
  const std::size_t first = text.find_first_not_of(kBlanks);
  if (first == std::string_view::npos) {
    return {};
  }
  return text.substr(first, text.find_last_not_of(kBlanks) - first + 1);
}

// The kernel writes a line feed within a path as \012.
std::string unescaped(std::string_view name) {
  std::string result;
  while (!name.empty()) {
    if (name.starts_with("\\012")) {
      result += '\n';
      name.remove_prefix(4);
    } else {
      result += name.front();
      name.remove_prefix(1);
    }
  }
  return result;
}

std::optional<MapsEntry> parse_header(std::string_view line) {
  MapsEntry entry;
  const std::string_view range = take_word(line);
  const std::string_view permissions = take_word(line);
  const std::string_view offset = take_word(line);
  entry.device = take_word(line);
  const std::string_view inode = take_word(line);
  const std::size_t dash = range.find('-');
  if (dash == std::string_view::npos || permissions.size() != 4) {
    return std::nullopt;
  }
  const auto start = parse_number(range.substr(0, dash), 16);
  const auto end = parse_number(range.substr(dash + 1), 16);
  const auto offset_number = parse_number(offset, 16);
  const auto inode_number = parse_number(inode);
  if (!start || !end || *end <= *start || !offset_number || !inode_number) {
    return std::nullopt;
  }
  entry.start = *start;
  entry.end = *end;
  entry.offset = *offset_number;
  entry.inode = *inode_number;
  entry.protection = (permissions[0] == 'r' ? PROT_READ : 0U) |
                     (permissions[1] == 'w' ? PROT_WRITE : 0U) |
                     (permissions[2] == 'x' ? PROT_EXEC : 0U);
  entry.shared = permissions[3] == 's';
  const std::size_t name = line.find_first_not_of(kBlanks);
  if (name != std::string_view::npos) {
    entry.name = line.substr(name);
    if (entry.name.find('\\') != std::string::npos) {
      entry.name = unescaped(entry.name);
    }
  }
  return entry;
}

}  // namespace

std::string_view take_line(std::string_view& text) {
  const std::size_t end = text.find('\n');
  const std::string_view line = text.substr(0, end);
  text.remove_prefix(end == std::string_view::npos ? text.size() : end + 1);
  return line;
}

std::string_view take_word(std::string_view& line) {
  const std::size_t start = std::min(line.find_first_not_of(kBlanks), line.size());
  line.remove_prefix(start);
  const std::size_t end = std::min(line.find_first_of(kBlanks), line.size());
  const std::string_view word = line.substr(0, end);
  line.remove_prefix(end);
  return word;
}

std::optional<std::uint64_t> parse_number(std::string_view word, int base) {
  std::uint64_t value = 0;
  const auto [end, error] = std::from_chars(word.data(), word.data() + word.size(), value, base);
  if (error != std::errc() || end != word.data() + word.size() || word.empty()) {
    return std::nullopt;
  }
  return value;
}

std::optional<std::string_view> find_field(std::string_view text, std::string_view key) {
  while (!text.empty()) {
    const std::string_view line = take_line(text);
    if (line.starts_with(key)) {
      return trimmed(line.substr(key.size()));
    }
  }
  return std::nullopt;
}

std::uint64_t number_field(std::string_view text, std::string_view key, int base,
                           std::uint64_t otherwise) {
  auto field = find_field(text, key);
  if (!field) {
    return otherwise;
  }
  return parse_number(take_word(*field), base).value_or(otherwise);
}

std::uint64_t last_number_field(std::string_view text, std::string_view key) {
  const auto field = find_field(text, key);
  if (!field || field->empty()) {
    return 0;
  }
  const std::size_t blank = field->find_last_of(kBlanks);
  return parse_number(blank == std::string_view::npos ? *field : field->substr(blank + 1))
      .value_or(0);
}

std::vector<std::string_view> stat_fields(std::string_view text) {
  std::vector<std::string_view> fields;
  const std::size_t name_end = text.rfind(')');
  if (name_end == std::string_view::npos) {
    return fields;
  }
  text.remove_prefix(name_end + 1);
  text = take_line(text);
  for (std::string_view word = take_word(text); !word.empty(); word = take_word(text)) {
    fields.push_back(word);
  }
  return fields;
}

Result<std::vector<MapsEntry>> parse_maps(std::string_view text) {
  std::vector<MapsEntry> entries;
  while (!text.empty()) {
    const std::string_view line = take_line(text);
    // Header lines start with lower-case hexadecimal digits, the fields of smaps with a capital.
    if (!line.empty() && line.front() >= 'A' && line.front() <= 'Z') {
      if (entries.empty()) {
        return fail(make_error(ErrorCode::kCorrupt, "parse smaps", std::string(line)));
      }
      if (line.starts_with("VmFlags:")) {
        entries.back().flags = trimmed(line.substr(std::strlen("VmFlags:")));
      } else if (line.starts_with("ProtectionKey:")) {
        entries.back().protection_key = number_field(line, "ProtectionKey:");
      }
      continue;
    }
    auto entry = parse_header(line);
    if (!entry) {
      return fail(make_error(ErrorCode::kCorrupt, "parse maps", std::string(line)));
    }
    entries.push_back(std::move(*entry));
  }
  return entries;
}

Result<std::string> reread(int fd, const char* object) {
  std::string content;
  std::array<char, 16384> buffer;
  for (;;) {
    const ssize_t count =
        ::pread(fd, buffer.data(), buffer.size(), static_cast<off_t>(content.size()));
    if (count < 0 && errno == EINTR) {
      continue;
    }
    if (count < 0) {
      return fail(system_error("read", object));
    }
    if (count == 0) {
      return content;
    }
    content.append(buffer.data(), static_cast<std::size_t>(count));
  }
}

Result<std::string> read_file_at(int directory, const std::string& name) {
  const UniqueFd file(::openat(directory, name.c_str(), O_RDONLY | O_CLOEXEC));
  if (!file.valid()) {
    return fail(system_error("open", name));
  }
  return reread(file.get(), name.c_str());
}

Result<std::string> read_link_at(int directory, const std::string& name) {
  std::array<char, PATH_MAX> target;
  const ssize_t length = ::readlinkat(directory, name.c_str(), target.data(), target.size());
  if (length < 0) {
    return fail(system_error("read link", name));
  }
  return std::string(target.data(), static_cast<std::size_t>(length));
}

Result<std::vector<std::uint32_t>> numbered_entries(int directory, const char* object) {
  if (::lseek(directory, 0, SEEK_SET) < 0) {
    return fail(system_error("list", object));
  }
  // The kernel's struct linux_dirent64: inode, offset, length, type, name.
  constexpr std::size_t kLengthOffset = 16;
  constexpr std::size_t kNameOffset = 19;
  std::vector<std::uint32_t> numbers;
  std::array<char, 8192> buffer;
  for (;;) {
    const long count = ::syscall(SYS_getdents64, directory, buffer.data(), buffer.size());
    if (count < 0) {
      return fail(system_error("list", object));
    }
    if (count == 0) {
      break;
    }
    for (std::size_t at = 0; at < static_cast<std::size_t>(count);) {
      std::uint16_t length = 0;
      std::memcpy(&length, &buffer[at + kLengthOffset], sizeof length);
      if (const auto number = parse_number(&buffer[at + kNameOffset])) {
        numbers.push_back(static_cast<std::uint32_t>(*number));
      }
      at += length;
    }
  }
  std::ranges::sort(numbers);
  return numbers;
}

Result<std::uint32_t> inner_thread_id(pid_t process, pid_t thread) {
  const std::string status = MIGRATE_TRY(read_file("/proc/" + std::to_string(process) + "/task/" +
                                                   std::to_string(thread) + "/status"));
  const std::uint64_t id = last_number_field(status, "NSpid:");
  return static_cast<std::uint32_t>(id != 0 ? id : static_cast<std::uint64_t>(thread));
}

}  // namespace migrate
