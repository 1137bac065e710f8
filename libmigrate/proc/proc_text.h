#pragma once

#include <sys/types.h>

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "base/result.h"

namespace migrate {

// Reading the text of /proc files. All functions are const-thread-safe and do not block, except
// reread(). Views given back point into what was given.

/// The unit of sizes in these texts.
inline constexpr std::uint64_t kKibibyte = 1024;

/// Takes the first line off `text`, without its line feed.
std::string_view take_line(std::string_view& text);

/// Takes the first word off `line`: skips blanks and tabs, ends before the next.
std::string_view take_word(std::string_view& line);

/// A number in the given base (prefixes are not understood), or nothing if `word` is not one.
std::optional<std::uint64_t> parse_number(std::string_view word, int base = 10);

/// The rest of the line that starts with `key` (colon included), blanks trimmed; nothing if there
/// is none.
std::optional<std::string_view> find_field(std::string_view text, std::string_view key);

/// The number that follows `key`, or `otherwise`.
std::uint64_t number_field(std::string_view text, std::string_view key, int base = 10,
                           std::uint64_t otherwise = 0);

/// The last word of the field: the value in the innermost namespace for NSpid and kin.
std::uint64_t last_number_field(std::string_view text, std::string_view key);

/// Fields of a /proc/PID/stat line from the third (state) on; index 0 is field 3 of proc(5).
std::vector<std::string_view> stat_fields(std::string_view text);

/// One line of maps, or one entry of smaps.
struct MapsEntry {
  std::uint64_t start = 0;
  std::uint64_t end = 0;
  std::uint32_t protection = 0;  ///< PROT_*
  bool shared = false;
  std::uint64_t offset = 0;
  std::string device;  ///< As shown, "fe:00"; not always stat's.
  std::uint64_t inode = 0;
  std::string name;
  std::string flags;                 ///< VmFlags; smaps only.
  std::uint64_t protection_key = 0;  ///< smaps only.
};

/// Entries of /proc/PID/maps or smaps. Errors: kCorrupt for text of another shape.
Result<std::vector<MapsEntry>> parse_maps(std::string_view text);

/// The whole content of a proc file that is kept open, from its start. Blocks while the kernel
/// writes it. Errors: kNotFound if the process has ended.
Result<std::string> reread(int fd, const char* object);

/// The same of a file in directory `directory`.
Result<std::string> read_file_at(int directory, const std::string& name);

/// Target of the symbolic link `name` in directory `directory`.
Result<std::string> read_link_at(int directory, const std::string& name);

/// The numbers that name entries of directory `directory`, ascending. The directory is kept open.
Result<std::vector<std::uint32_t>> numbered_entries(int directory, const char* object);

/// The id that `thread` of `process` has in its own PID namespace. Errors: kNotFound if it has
/// ended.
Result<std::uint32_t> inner_thread_id(pid_t process, pid_t thread);

}  // namespace migrate
