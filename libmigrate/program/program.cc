#include "libmigrate/program/program.h"

#include <fcntl.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cstring>
#include <nlohmann/json.hpp>
#include <span>
#include <utility>

#include "base/file.h"
#include "base/printable.h"
#include "libmigrate/program/layout.h"
#include "libmigrate/trace/tracee.h"
#include "pager/page_range.h"

namespace migrate {
namespace {

using program::Block;

/// The words of a block, as bytes that were copied out of the process.
using BlockWords = std::array<std::byte, offsetof(Block, answer)>;

template <class Number>
Number word(const BlockWords& words, std::size_t offset) {
  Number number{};
  std::memcpy(&number, words.data() + offset, sizeof number);
  return number;
}

bool is_block(const BlockWords& words, std::uint32_t process) {
  return word<std::uint64_t>(words, offsetof(Block, magic)) == program::kBlockMagic &&
         word<std::uint32_t>(words, offsetof(Block, version)) >= program::kFirstBlockVersion &&
         (process == 0 || word<std::uint32_t>(words, offsetof(Block, process)) == process);
}

ProgramWish wish_in(const BlockWords& words, std::uint64_t address) {
  return {.address = address,
          .holds = word<std::uint32_t>(words, offsetof(Block, holds)),
          .at_point = word<std::uint32_t>(words, offsetof(Block, at_point)),
          .point = word<std::uint32_t>(words, offsetof(Block, point)),
          .asked = word<std::uint64_t>(words, offsetof(Block, asked)),
          .hooks = word<std::uint32_t>(words, offsetof(Block, hooks)),
          .hooking = word<std::uint32_t>(words, offsetof(Block, hooking)),
          .vetoed = word<std::uint32_t>(words, offsetof(Block, vetoed))};
}

bool read_words(int memory, std::uint64_t address, BlockWords& words) {
  return ::pread(memory, words.data(), words.size(), static_cast<off_t>(address)) ==
         static_cast<ssize_t>(words.size());
}

Error no_block() {
  return make_error(ErrorCode::kNotFound, "find what the program says of itself", {},
                    "it does not use libmigrate.so, or has ended");
}

/// The number of a process as it sees itself; 0 if it has ended.
std::uint32_t own_pid(pid_t process) {
  const std::string status = read_file("/proc/" + std::to_string(process) + "/status").value_or("");
  const std::size_t at = status.find("\nNSpid:");
  if (at == std::string::npos) {
    return 0;
  }
  const std::size_t end = status.find('\n', at + 1);
  const std::string line = status.substr(at, end - at);
  return static_cast<std::uint32_t>(std::strtoul(line.c_str() + line.rfind('\t'), nullptr, 10));
}

/// Whether a page of the process's own is at `address`: private, and in memory or in swap, as a
/// block is which the program has written. Of all else reading could wait for a file system that
/// the process's user serves himself (FUSE), for as long as he likes.
bool has_own_page(int memory, std::uint64_t address) {
  constexpr std::uint64_t kPresent = std::uint64_t{1} << 63;
  constexpr std::uint64_t kSwapped = std::uint64_t{1} << 62;
  constexpr std::uint64_t kFileOrShared = std::uint64_t{1} << 61;
  constexpr std::string_view kMemory = "/mem";
  auto path = read_link("/proc/self/fd/" + std::to_string(memory));
  if (!path || !path->ends_with(kMemory)) {
    return false;
  }
  path->replace(path->size() - kMemory.size(), kMemory.size(), "/pagemap");
  const auto pagemap = open_file(*path, O_RDONLY | O_CLOEXEC);
  std::uint64_t entry = 0;
  return pagemap &&
         ::pread(pagemap->get(), &entry, sizeof entry,
                 static_cast<off_t>(address / kPageBytes * sizeof entry)) == sizeof entry &&
         (entry & (kPresent | kSwapped)) != 0 && (entry & kFileOrShared) == 0;
}

std::optional<std::uint64_t> find_block(int memory, std::uint32_t process) {
  for (const std::uint64_t address : program::kBlockAddresses) {
    BlockWords words{};
    if (has_own_page(memory, address) && read_words(memory, address, words) &&
        is_block(words, process)) {
      return address;
    }
  }
  return std::nullopt;
}

bool is_mapped(const wire::ProcessImage& image, std::uint64_t address) {
  const auto& mappings = image.mappings();
  return std::any_of(mappings.begin(), mappings.end(), [&](const wire::Mapping& mapping) {
    return mapping.kind() == wire::Mapping::ANONYMOUS && mapping.start() <= address &&
           address < mapping.end();
  });
}

/// A result that fits into a block: its refusals are left out from the end as far as need be.
std::string fitted(std::string result) {
  if (result.size() <= sizeof Block::answer) {
    return result;
  }
  nlohmann::json object = nlohmann::json::parse(result, nullptr, false);
  const auto refusals = object.is_object() ? object.find("refusals") : object.end();
  if (!object.is_object() || refusals == object.end() || !refusals->is_array()) {
    return R"({"event":"result","exit":1,"error":{"code":"system","message":"the answer is too long"}})";
  }
  for (int left_out = 1; !refusals->empty(); ++left_out) {
    refusals->erase(refusals->size() - 1);
    object["refusals_left_out"] = left_out;
    result = object.dump(-1, ' ', false, nlohmann::json::error_handler_t::replace);
    if (result.size() <= sizeof Block::answer) {
      break;
    }
  }
  return result;
}

bool makes_sense(const program::Advice& entry) {
  return entry.advised != program::Advised::kNothing &&
         entry.advised <= program::Advised::kHotFirst && entry.start < entry.end &&
         entry.end <= kAddressLimit && entry.start % kPageBytes == 0 && entry.end % kPageBytes == 0;
}

}  // namespace

Result<Program> Program::open(pid_t process) {
  UniqueFd memory =
      MIGRATE_TRY(open_file("/proc/" + std::to_string(process) + "/mem", O_RDWR | O_CLOEXEC));
  const std::uint32_t own = own_pid(process);
  const auto address = own != 0 ? find_block(memory.get(), own) : std::nullopt;
  if (!address) {
    return fail(no_block());
  }
  return Program(std::move(memory), *address);
}

Result<Program> Program::adopt(UniqueFd memory) {
  const auto address = find_block(memory.get(), 0);
  if (!address) {
    return fail(no_block());
  }
  return Program(std::move(memory), *address);
}

Result<void> Program::begin_anew(pid_t copy) {
  struct Words {
    std::size_t offset;
    std::size_t bytes;
  };
  constexpr Words kAsked[] = {{offsetof(Block, holds), sizeof Block::holds},
                              {offsetof(Block, at_point), sizeof Block::at_point},
                              {offsetof(Block, asked), sizeof Block::asked},
                              {offsetof(Block, point), sizeof Block::point},
                              {offsetof(Block, answered), sizeof Block::answered},
                              {offsetof(Block, hooking), sizeof Block::hooking},
                              {offsetof(Block, vetoed), sizeof Block::vetoed}};
  constexpr std::uint64_t kNothing = 0;
  UniqueFd memory =
      MIGRATE_TRY(open_file("/proc/" + std::to_string(copy) + "/mem", O_RDWR | O_CLOEXEC));
  const auto address = find_block(memory.get(), 0);
  if (!address) {
    return {};
  }
  const Program program(std::move(memory), *address);
  const std::uint32_t own = own_pid(copy);
  MIGRATE_TRY(program.write(offsetof(Block, process), &own, sizeof own));
  for (const Words& words : kAsked) {
    MIGRATE_TRY(program.write(words.offset, &kNothing, words.bytes));
  }
  return {};
}

Result<ProgramWish> Program::read() const {
  BlockWords words{};
  if (!has_own_page(memory_.get(), address_) || !read_words(memory_.get(), address_, words) ||
      !is_block(words, 0)) {
    return fail(no_block());
  }
  return wish_in(words, address_);
}

Result<std::string> Program::veto() const {
  MIGRATE_TRY(read());
  std::uint32_t bytes = 0;
  std::string text(sizeof Block::veto, '\0');
  if (!read_at(offsetof(Block, veto_bytes), &bytes, sizeof bytes) ||
      !read_at(offsetof(Block, veto), text.data(), text.size())) {
    return fail(no_block());
  }
  text.resize(std::min<std::size_t>(bytes, text.size()));
  return printable(std::move(text));  // It may go to a terminal, of somebody else.
}

std::vector<ProgramAdvice> Program::advice() const {
  constexpr std::size_t kInPage = program::kBlockBytes / sizeof(program::Advice);
  std::vector<ProgramAdvice> all;
  std::uint64_t place = 0;
  if (!read_at(offsetof(Block, advice), &place, sizeof place) || place == 0 ||
      place % kPageBytes != 0 || place >= kAddressLimit) {
    return all;
  }
  for (std::size_t first = 0; first < program::kMostAdvice; first += kInPage) {
    const std::uint64_t address = place + first * sizeof(program::Advice);
    std::array<program::Advice, kInPage> entries{};
    if (!has_own_page(memory_.get(), address) ||
        ::pread(memory_.get(), entries.data(), sizeof entries, static_cast<off_t>(address)) !=
            static_cast<ssize_t>(sizeof entries)) {
      continue;  // Nothing was ever written there.
    }
    for (const program::Advice& entry : entries) {
      if (makes_sense(entry)) {
        const std::string_view name(entry.name, sizeof entry.name);
        all.push_back({PageRange::between(entry.start, entry.end), entry.advised,
                       printable(std::string(name.substr(0, name.find('\0'))))});
      }
    }
  }
  return all;
}

bool Program::read_at(std::size_t offset, void* bytes, std::size_t count) const {
  return ::pread(memory_.get(), bytes, count, static_cast<off_t>(address_ + offset)) ==
         static_cast<ssize_t>(count);
}

Result<void> Program::write(std::size_t offset, const void* bytes, std::size_t count) const {
  const ssize_t written =
      ::pwrite(memory_.get(), bytes, count, static_cast<off_t>(address_ + offset));
  if (written != static_cast<ssize_t>(count)) {
    return fail(written == 0 ? no_block() : system_error("write into a program's block"));
  }
  return {};
}

Result<void> Program::tell_news() const {
  BlockWords words{};
  if (!read_words(memory_.get(), address_, words)) {
    return fail(no_block());
  }
  const std::uint32_t news = word<std::uint32_t>(words, offsetof(Block, news)) + 1;
  return write(offsetof(Block, news), &news, sizeof news);
}

Result<void> Program::ask_for_point(std::uint32_t request) const {
  MIGRATE_TRY(read());
  MIGRATE_TRY(write(offsetof(Block, point), &request, sizeof request));
  return tell_news();
}

Result<void> Program::answer(std::uint64_t token, std::string result) const {
  const ProgramWish wish = MIGRATE_TRY(read());
  const std::string text = fitted(std::move(result));
  const auto bytes = static_cast<std::uint32_t>(text.size());
  constexpr std::uint64_t kNone = 0;
  MIGRATE_TRY(write(offsetof(Block, answered), &kNone, sizeof kNone));
  MIGRATE_TRY(write(offsetof(Block, answer), text.data(), text.size()));
  MIGRATE_TRY(write(offsetof(Block, answer_bytes), &bytes, sizeof bytes));
  MIGRATE_TRY(write(offsetof(Block, answered), &token, sizeof token));
  if (wish.point != 0 && wish.point == token) {
    constexpr std::uint32_t kNobody = 0;
    MIGRATE_TRY(write(offsetof(Block, point), &kNobody, sizeof kNobody));
  }
  return tell_news();
}

bool holds_itself(pid_t process) {
  const auto program = Program::open(process);
  return program && program->read().value_or(ProgramWish()).holds != 0;
}

std::optional<ProgramWish> wish_of_frozen(pid_t process, const wire::ProcessImage& image) {
  for (const std::uint64_t address : program::kBlockAddresses) {
    BlockWords words{};
    if (is_mapped(image, address) && read_memory(process, address, words) &&
        is_block(words, image.process_id())) {
      return wish_in(words, address);
    }
  }
  return std::nullopt;
}

Result<void> note_arrival(pid_t process, const ProgramWish& wish, std::uint64_t asked,
                          wire::ProcessImage& image) {
  auto* pages = image.mutable_starter_pages();
  auto page = std::find_if(pages->begin(), pages->end(), [&](const wire::StarterPage& each) {
    return each.address() == wish.address;
  });
  if (page == pages->end()) {
    std::string content(program::kBlockBytes, '\0');
    MIGRATE_TRY(read_memory(process, wish.address,
                            std::as_writable_bytes(std::span(content.data(), content.size()))));
    wire::StarterPage& added = *pages->Add();
    added.set_address(wish.address);
    added.set_content(std::move(content));
    page = pages->end() - 1;
  }
  std::string& content = *page->mutable_content();
  const auto add_one = [&content](std::size_t offset) {
    std::uint32_t count = 0;
    std::memcpy(&count, content.data() + offset, sizeof count);
    ++count;
    std::memcpy(content.data() + offset, &count, sizeof count);
  };
  const auto clear = [&content](std::size_t offset, std::size_t bytes) {
    std::fill_n(content.begin() + static_cast<std::ptrdiff_t>(offset), bytes, '\0');
  };
  add_one(offsetof(Block, moves));
  add_one(offsetof(Block, news));
  clear(offsetof(Block, point), sizeof Block::point);
  clear(offsetof(Block, at_point), sizeof Block::at_point);
  clear(offsetof(Block, hooking), sizeof Block::hooking);
  clear(offsetof(Block, answered), sizeof Block::answered);
  if (asked != 0 && wish.asked == asked) {
    clear(offsetof(Block, asked), sizeof Block::asked);
  }
  return {};
}

}  // namespace migrate
