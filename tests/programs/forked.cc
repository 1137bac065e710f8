// A process of which copies are made, each of which finds out for certain whether it runs where it
// should, in one place, once, with the memory that it was copied with. Used by tests/chaos.
//
// A copy is one that has another pid than before. It says so, and where it is, in a file to which
// all of them append; whoever reads that finds one that began at home, or twice. FORKED_MIB sets
// its size.
#include <sys/utsname.h>

#include <algorithm>
#include <vector>

#include "tests/programs/check.h"

namespace {

using check::stopping;

constexpr std::size_t kPageWords = 512;
constexpr std::int64_t kBeatNs = 100'000;

int ledger = -1;

/// Who this is, as far as it knows.
struct Self {
  long pid = 0;
  bool is_copy = false;
};

long own_pid() {
  return ::syscall(SYS_getpid);
}

/// A line for chaos.py.
void note(const char* what, long pid) {
  utsname names{};
  check::called(::uname(&names), "uname");
  char line[128];
  const int length = std::snprintf(line, sizeof line, "%s %ld %.64s\n", what, pid, names.nodename);
  if (::write(ledger, line, static_cast<std::size_t>(length)) != length) {
    check::fail("cannot write to the ledger");
  }
}

void look_at(Self& self) {
  if (self.pid != own_pid()) {
    self = {own_pid(), true};
    note("begins", self.pid);
  }
}

/// Pages with their number and how often each was changed.
class Pages {
 public:
  explicit Pages(std::uint64_t count)
      : versions_(count, 0),
        words_(static_cast<std::uint64_t*>(check::map_memory(count * kPageWords * 8))) {
    for (std::uint64_t page = 0; page < count; ++page) {
      write(page);
    }
  }

  std::uint64_t size() const { return versions_.size(); }
  void verify(std::uint64_t page) const {
    const std::uint64_t* const words = words_ + page * kPageWords;
    for (std::uint64_t word = 0; word < kPageWords; ++word) {
      if (words[word] != page * 1'000'000'007 + versions_[page] * 1'000'003 + word) {
        note("wrong", own_pid());
        check::fail("wrong page: page %lu word %lu is %lx", page, word, words[word]);
      }
    }
  }
  void change(std::uint64_t page) {
    ++versions_[page];
    write(page);
  }

 private:
  void write(std::uint64_t page) {
    for (std::uint64_t word = 0; word < kPageWords; ++word) {
      words_[page * kPageWords + word] = page * 1'000'000'007 + versions_[page] * 1'000'003 + word;
    }
  }

  std::vector<std::uint64_t> versions_;
  std::uint64_t* words_;
};

void forked() {
  const std::string path = check::work_path("ledger");
  ledger =
      check::called(::open(path.c_str(), O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0666), "open");
  const char* const mib = std::getenv("FORKED_MIB");
  Pages pages((mib == nullptr ? 8 : std::strtoull(mib, nullptr, 10)) * 256);
  Self self{own_pid(), false};
  check::Random random(1);
  check::ready();
  while (!stopping()) {
    look_at(self);
    for (int i = 0; i < 4; ++i) {
      const std::uint64_t page = random.below(pages.size());
      pages.verify(page);
      pages.change(page);
    }
    look_at(self);
    check::sleep_ns(kBeatNs);
  }
  look_at(self);
  for (std::uint64_t page = 0; page < pages.size(); ++page) {
    pages.verify(page);
  }
  note(self.is_copy ? "whole" : "process", self.pid);
}

constexpr check::Property kProperties[] = {{"forked", forked}};

}  // namespace

int main(int argc, char** argv) {
  return check::main(argc, argv, kProperties);
}
