// The process that the benchmarks move. Self-contained: it knows nothing of libmigrate.
//
// It touches memory, writes RESULT.ready, and works until the file RESULT.stop appears; then it
// writes what it saw to RESULT as one JSON object. Its working folder must be seen by both hosts.
//   SIGUSR1      forgets the gaps seen so far and makes RESULT.marked
//   RESULT.walk  starts the walk that --walk asks for; RESULT.walked appears at its end

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/utsname.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <atomic>
#include <cerrno>
#include <csignal>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <ctime>
#include <random>
#include <span>
#include <string>
#include <string_view>
#include <thread>
#include <utility>
#include <vector>

namespace {

constexpr std::uint64_t kPageBytes = 4096;
constexpr std::int64_t kPollNs = 2'000'000;  // between looks at the files
constexpr std::size_t kTenths = 10;

std::atomic<bool> mark_wanted = false;

[[noreturn]] void die(const char* what, const char* object) {
  std::fprintf(stderr, "subject: %s %s: %s\n", what, object, std::strerror(errno));
  std::exit(1);
}

std::int64_t now_ns(clockid_t clock) {
  timespec time{};
  ::clock_gettime(clock, &time);
  return std::int64_t{time.tv_sec} * 1'000'000'000 + time.tv_nsec;
}

void make_file(const std::string& path) {
  const int fd = ::open(path.c_str(), O_CREAT | O_WRONLY | O_CLOEXEC, 0644);
  if (fd < 0) {
    die("make", path.c_str());
  }
  ::close(fd);
}

bool exists(const std::string& path) {
  return ::access(path.c_str(), F_OK) == 0;
}

struct Options {
  std::string result;
  std::uint64_t pages = 0;
  int threads = 1;
  bool heartbeat = false;
  bool touch_random = false;
  bool shared = false;  // its memory, with nobody
  std::string walk;
  int seconds = 600;  // after which it ends by itself
};

/// The largest gaps between two readings of CLOCK_REALTIME, and the last one at whose end the host
/// had another name. Kept in the owner's stack, so that noting one touches no page that a moved
/// process would have to fetch.
class Gaps {
 public:
  struct Gap {
    std::int64_t length_ns = 0;
    std::int64_t start_ns = 0;  // CLOCK_REALTIME
  };

  Gaps() { static_cast<void>(::uname(&host_)); }

  const std::array<Gap, 24>& largest() const { return largest_; }
  const Gap& between_hosts() const { return between_hosts_; }

  /// Reads the clock.
  std::int64_t beat() {
    utsname host;
    static_cast<void>(::uname(&host));
    const std::int64_t now = now_ns(CLOCK_REALTIME);
    if (std::strcmp(host.nodename, host_.nodename) != 0) {
      host_ = host;
      // The move was since the last reading, or before it and after its host's name.
      between_hosts_ = {now - before_last_ns_, before_last_ns_};
    }
    if (now - last_ns_ > 20'000) {
      note(last_ns_, now - last_ns_);
    }
    before_last_ns_ = std::exchange(last_ns_, now);
    return now;
  }
  void skip_to(std::int64_t now_ns) { before_last_ns_ = last_ns_ = now_ns; }

 private:
  void note(std::int64_t start_ns, std::int64_t length_ns) {
    Gap* const least =
        std::min_element(largest_.begin(), largest_.end(),
                         [](const Gap& a, const Gap& b) { return a.length_ns < b.length_ns; });
    if (length_ns > least->length_ns) {
      *least = {length_ns, start_ns};
    }
  }

  std::array<Gap, 24> largest_{};
  Gap between_hosts_;
  utsname host_{};
  std::int64_t last_ns_ = now_ns(CLOCK_REALTIME);
  std::int64_t before_last_ns_ = last_ns_;
};

/// Memory whose every page names itself in its first word.
class Memory {
 public:
  Memory(std::uint64_t pages, bool shared) : pages_(pages) {
    if (pages == 0) {
      return;
    }
    void* const start = ::mmap(nullptr, pages * kPageBytes, PROT_READ | PROT_WRITE,
                               (shared ? MAP_SHARED : MAP_PRIVATE) | MAP_ANONYMOUS, -1, 0);
    if (start == MAP_FAILED) {
      die("map memory for", "--touch-mib");
    }
    start_ = static_cast<char*>(start);
    for (std::uint64_t page = 0; page < pages; ++page) {
      word(page) = name(page);
    }
  }

  std::uint64_t pages() const { return pages_; }
  /// Reads one page; false if it is not what was written there.
  bool touch(std::uint64_t page) { return word(page) == name(page); }

 private:
  static std::uint64_t name(std::uint64_t page) { return (page + 1) * 0x9E3779B97F4A7C15U; }
  volatile std::uint64_t& word(std::uint64_t page) {
    return *reinterpret_cast<volatile std::uint64_t*>(start_ + page * kPageBytes);
  }

  char* start_ = nullptr;
  std::uint64_t pages_ = 0;
};

struct Latencies {
  std::uint64_t count = 0;
  std::uint64_t bad_pages = 0;
  std::int64_t total_ns = 0;
  double p50_us = 0;
  double p99_us = 0;
  double max_us = 0;
  std::array<double, kTenths> tenth_p50_us{};
};

double quantile_us(std::span<std::uint32_t> sorted, double share) {
  if (sorted.empty()) {
    return 0;
  }
  const auto index = static_cast<std::size_t>(share * static_cast<double>(sorted.size() - 1));
  return static_cast<double>(sorted[index]) / 1000;
}

/// A new array, present from the start: at the destination it is nobody's to fetch.
std::span<std::uint32_t> present_array(std::uint64_t count) {
  void* const start = ::mmap(nullptr, count * sizeof(std::uint32_t), PROT_READ | PROT_WRITE,
                             MAP_PRIVATE | MAP_ANONYMOUS | MAP_POPULATE, -1, 0);
  if (start == MAP_FAILED) {
    die("map an array for", "--walk");
  }
  return {static_cast<std::uint32_t*>(start), count};
}

Latencies walk(Memory& memory, bool random) {
  const auto order = present_array(memory.pages());
  const auto times = present_array(memory.pages());
  for (std::uint32_t i = 0; i < order.size(); ++i) {
    order[i] = i;
  }
  if (random) {
    std::shuffle(order.begin(), order.end(), std::mt19937_64(1));
  }
  Latencies result;
  result.count = order.size();
  const std::int64_t start = now_ns(CLOCK_MONOTONIC);
  std::int64_t before = start;
  for (std::size_t i = 0; i < order.size(); ++i) {
    before = now_ns(CLOCK_MONOTONIC);
    result.bad_pages += memory.touch(order[i]) ? 0 : 1;
    const std::int64_t length = now_ns(CLOCK_MONOTONIC) - before;
    times[i] = static_cast<std::uint32_t>(std::min<std::int64_t>(length, UINT32_MAX));
  }
  result.total_ns = now_ns(CLOCK_MONOTONIC) - start;
  for (std::size_t tenth = 0; tenth < kTenths; ++tenth) {
    const std::size_t from = times.size() * tenth / kTenths;
    const auto part = times.subspan(from, times.size() * (tenth + 1) / kTenths - from);
    std::sort(part.begin(), part.end());
    result.tenth_p50_us[tenth] = quantile_us(part, 0.5);
  }
  std::sort(times.begin(), times.end());
  result.p50_us = quantile_us(times, 0.5);
  result.p99_us = quantile_us(times, 0.99);
  result.max_us = quantile_us(times, 1.0);
  return result;
}

void write_result(const Options& options, const Gaps& gaps, const Latencies& latencies,
                  std::uint64_t touches, std::uint64_t bad_touches) {
  const std::string temporary = options.result + ".new";
  std::FILE* const file = std::fopen(temporary.c_str(), "we");
  if (file == nullptr) {
    die("write", temporary.c_str());
  }
  std::fprintf(file, "{\"gaps\": [");
  const char* comma = "";
  for (const Gaps::Gap& gap : gaps.largest()) {
    if (gap.length_ns > 0) {
      std::fprintf(file, "%s{\"start_ns\": %lld, \"us\": %.1f}", comma,
                   static_cast<long long>(gap.start_ns), static_cast<double>(gap.length_ns) / 1000);
      comma = ", ";
    }
  }
  std::fprintf(file,
               "], \"between_hosts_us\": %.1f, \"walk\": {\"count\": %llu, \"bad_pages\": %llu, "
               "\"seconds\": %.6f, ",
               static_cast<double>(gaps.between_hosts().length_ns) / 1000,
               static_cast<unsigned long long>(latencies.count),
               static_cast<unsigned long long>(latencies.bad_pages),
               static_cast<double>(latencies.total_ns) / 1e9);
  std::fprintf(file, "\"p50_us\": %.1f, \"p99_us\": %.1f, \"max_us\": %.1f, \"tenth_p50_us\": [",
               latencies.p50_us, latencies.p99_us, latencies.max_us);
  comma = "";
  for (const double p50 : latencies.tenth_p50_us) {
    std::fprintf(file, "%s%.1f", comma, p50);
    comma = ", ";
  }
  std::fprintf(file, "]}, \"touches\": %llu, \"bad_touches\": %llu}\n",
               static_cast<unsigned long long>(touches),
               static_cast<unsigned long long>(bad_touches));
  if (std::fclose(file) != 0 || std::rename(temporary.c_str(), options.result.c_str()) != 0) {
    die("write", options.result.c_str());
  }
}

/// The other threads: mostly asleep, each with a little work now and then, for ever.
[[noreturn]] void sleep_and_work() {
  volatile std::uint64_t sum = 0;
  for (;;) {
    for (int i = 0; i < 20'000; ++i) {
      sum = sum + static_cast<std::uint64_t>(i);
    }
    ::usleep(5000);
  }
}

/// The main thread's work until the end.
void work(const Options& options, Memory& memory) {
  const std::string stop = options.result + ".stop";
  const std::string walk_now = options.result + ".walk";
  Gaps gaps;
  Latencies latencies;
  bool walked = false;
  std::uint64_t touches = 0;
  std::uint64_t bad_touches = 0;
  std::uint64_t random = 88172645463325252U;
  std::int64_t now = now_ns(CLOCK_REALTIME);
  const std::int64_t end = now + std::int64_t{options.seconds} * 1'000'000'000;
  std::int64_t next_look = now;
  while (now < end) {
    if (options.touch_random) {
      for (int i = 0; i < 64; ++i) {
        random ^= random << 13U;
        random ^= random >> 7U;
        random ^= random << 17U;
        bad_touches += memory.touch(random % memory.pages()) ? 0 : 1;
      }
      touches += 64;
    } else if (!options.heartbeat) {
      ::usleep(1000);
    }
    now = options.heartbeat ? gaps.beat() : now_ns(CLOCK_REALTIME);
    if (mark_wanted.exchange(false)) {
      gaps = Gaps();
      make_file(options.result + ".marked");
      gaps.skip_to(now_ns(CLOCK_REALTIME));
    }
    if (now < next_look) {
      continue;
    }
    if (exists(stop)) {
      break;
    }
    if (!options.walk.empty() && !walked && exists(walk_now)) {
      latencies = walk(memory, options.walk == "random");
      walked = true;
      make_file(options.result + ".walked");
      gaps.skip_to(now_ns(CLOCK_REALTIME));
    }
    next_look = now + kPollNs;
  }
  write_result(options, gaps, latencies, touches, bad_touches);
}

[[noreturn]] void usage() {
  std::fprintf(
      stderr,
      "usage: subject --result FILE [--touch-mib N] [--shared] [--threads N] [--heartbeat]\n"
      "               [--touch-random] [--walk random|sequential] [--seconds N]\n");
  std::exit(2);
}

Options parse(std::span<char*> words) {
  Options options;
  for (std::size_t i = 1; i < words.size(); ++i) {
    const std::string_view word = words[i];
    if (word == "--heartbeat") {
      options.heartbeat = true;
      continue;
    }
    if (word == "--touch-random") {
      options.touch_random = true;
      continue;
    }
    if (word == "--shared") {
      options.shared = true;
      continue;
    }
    if (++i == words.size()) {
      usage();
    }
    if (word == "--result") {
      options.result = words[i];
    } else if (word == "--touch-mib") {
      options.pages = std::strtoull(words[i], nullptr, 10) * (1024 * 1024 / kPageBytes);
    } else if (word == "--threads") {
      options.threads = std::atoi(words[i]);
    } else if (word == "--walk") {
      options.walk = words[i];
    } else if (word == "--seconds") {
      options.seconds = std::atoi(words[i]);
    } else {
      usage();
    }
  }
  const bool needs_memory = options.touch_random || !options.walk.empty();
  const bool walk_known =
      options.walk.empty() || options.walk == "random" || options.walk == "sequential";
  if (options.result.empty() || !walk_known || (needs_memory && options.pages == 0)) {
    usage();
  }
  return options;
}

}  // namespace

int main(int argc, char** argv) {
  const Options options = parse({argv, static_cast<std::size_t>(argc)});
  struct sigaction action = {};
  action.sa_handler = [](int) { mark_wanted = true; };
  action.sa_flags = SA_RESTART;
  ::sigaction(SIGUSR1, &action, nullptr);
  Memory memory(options.pages, options.shared);
  for (int i = 1; i < options.threads; ++i) {
    std::thread(sleep_and_work).detach();
  }
  make_file(options.result + ".ready");
  work(options, memory);
  std::fflush(nullptr);
  ::_exit(0);  // the other threads have no end
}
