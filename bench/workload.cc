// Programs of known ways to use memory, which the suite moves. Knows nothing of libmigrate.
//
//   workload KIND --result FILE [--mib N] [--passes N] [--share PERCENT] [--threads N]
// It fills its memory, writes RESULT.ready (where its memory is), works until RESULT.go says to and
// then through a fixed number of steps, and writes what came of it to RESULT as one JSON object.
// After each step it reads CLOCK_REALTIME and the host's name, and counts the step in one of the
// spans of 10 ms. Exit status 77: this kind cannot be run here; why is on stderr.

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/utsname.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <cmath>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <ctime>
#include <functional>
#include <numeric>
#include <span>
#include <string>
#include <string_view>
#include <thread>
#include <vector>

#ifdef BENCH_HAS_CBLAS
#include <cblas.h>
#endif
#ifdef BENCH_HAS_FFTW
#include <fftw3.h>
#endif

namespace {

constexpr std::uint64_t kPageBytes = 4096;
constexpr std::uint64_t kPageWords = kPageBytes / sizeof(std::uint64_t);
constexpr std::int64_t kSpanNs = 10'000'000;
constexpr std::size_t kSpans = 12'000;  // two minutes
constexpr int kSkipped = 77;

struct Options {
  std::string kind;
  std::string result;
  std::uint64_t bytes = 64U << 20U;
  std::uint64_t passes = 4;
  std::uint64_t share = 20;
  std::uint64_t threads = 4;
};

[[noreturn]] void die(const char* what) {
  std::fprintf(stderr, "workload: %s: %s\n", what, std::strerror(errno));
  std::exit(1);
}

std::int64_t now_ns() {
  timespec time{};
  ::clock_gettime(CLOCK_REALTIME, &time);
  return std::int64_t{time.tv_sec} * 1'000'000'000 + time.tv_nsec;
}

template <class T>
std::span<T> map_array(std::uint64_t count) {
  void* const start = ::mmap(nullptr, std::max<std::uint64_t>(count * sizeof(T), 1),
                             PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (start == MAP_FAILED) {
    die("map memory");
  }
  return {static_cast<T*>(start), count};
}

class Random {
 public:
  explicit Random(std::uint64_t seed) : state_(seed * 0x9E3779B97F4A7C15U + 88172645463325252U) {}
  std::uint64_t next() {
    state_ ^= state_ << 13U;
    state_ ^= state_ >> 7U;
    state_ ^= state_ << 17U;
    return state_;
  }
  double unit() { return static_cast<double>(next() >> 11U) * 0x1p-53; }

 private:
  std::uint64_t state_;
};

/// What a program sees of its own move.
class Heartbeat {
 public:
  void begin() {
    begin_ns_ = last_ns_ = now_ns();
    static_cast<void>(::uname(&host_));
    std::fill(spans_.begin(), spans_.end(), 0U);
    gaps_ = {};
  }

  void beat() {
    utsname host;
    static_cast<void>(::uname(&host));
    const std::int64_t now = now_ns();
    if (std::strcmp(host.nodename, host_.nodename) != 0) {
      host_ = host;
      first_there_ns_ = now;
    }
    if (now - last_ns_ > 20'000) {
      note(now - last_ns_);
    }
    last_ns_ = now;
    spans_[std::min<std::size_t>(static_cast<std::size_t>((now - begin_ns_) / kSpanNs),
                                 kSpans - 1)] += 1;
  }

  void write(std::FILE* file) const {
    std::fprintf(file,
                 "\"begin_ns\": %lld, \"end_ns\": %lld, \"first_there_ns\": %lld, \"gaps\": [",
                 static_cast<long long>(begin_ns_), static_cast<long long>(last_ns_),
                 static_cast<long long>(first_there_ns_));
    const char* comma = "";
    for (const Gap& gap : gaps_) {
      std::fprintf(file, "%s{\"start_ns\": %lld, \"us\": %.1f}", comma,
                   static_cast<long long>(gap.start_ns), static_cast<double>(gap.length_ns) / 1000);
      comma = ", ";
    }
    std::fprintf(file, "], \"steps_per_10_ms\": [");
    const auto used = std::min<std::size_t>(
        static_cast<std::size_t>((last_ns_ - begin_ns_) / kSpanNs) + 1, kSpans);
    for (std::size_t i = 0; i < used; ++i) {
      std::fprintf(file, "%s%u", i == 0 ? "" : ", ", spans_[i]);
    }
    std::fprintf(file, "]");
  }

 private:
  struct Gap {
    std::int64_t length_ns = 0;
    std::int64_t start_ns = 0;
  };
  void note(std::int64_t length_ns) {
    Gap* const least = std::min_element(gaps_.begin(), gaps_.end(), [](const Gap& a, const Gap& b) {
      return a.length_ns < b.length_ns;
    });
    if (length_ns > least->length_ns) {
      *least = {length_ns, last_ns_};
    }
  }

  std::array<Gap, 24> gaps_{};
  std::span<std::uint32_t> spans_ = map_array<std::uint32_t>(kSpans);
  utsname host_{};
  std::int64_t begin_ns_ = 0;
  std::int64_t last_ns_ = 0;
  std::int64_t first_there_ns_ = 0;
};

/// Memory, and steps through it; a step is short (tens of microseconds on its own).
struct Work {
  void* memory = nullptr;
  std::uint64_t bytes = 0;
  std::uint64_t steps = 0;
  std::function<void(std::uint64_t)> step;
  std::function<std::uint64_t()> checksum;
};

std::uint64_t mix(std::uint64_t value) {
  value ^= value >> 33U;
  value *= 0xff51afd7ed558ccdU;
  return value ^ (value >> 29U);
}

std::span<std::uint64_t> filled_words(std::uint64_t bytes) {
  const auto words = map_array<std::uint64_t>(bytes / sizeof(std::uint64_t));
  for (std::uint64_t i = 0; i < words.size(); ++i) {
    words[i] = mix(i + 1);
  }
  return words;
}

/// Steps of 16 page visits, in the order that `page_of(visit)` gives.
Work page_visits(const Options& options, bool write,
                 std::function<std::uint64_t(std::uint64_t, std::uint64_t)> page_of,
                 std::uint64_t visits) {
  constexpr std::uint64_t kVisits = 16;
  const auto words = filled_words(options.bytes);
  const std::uint64_t pages = words.size() / kPageWords;
  auto* const sum = new std::uint64_t(0);  // Lives as long as the program.
  Work work{words.data(), options.bytes, visits / kVisits, {}, {}};
  work.step = [=](std::uint64_t step) {
    for (std::uint64_t visit = step * kVisits; visit < (step + 1) * kVisits; ++visit) {
      std::uint64_t* const page = words.data() + page_of(visit, pages) * kPageWords;
      std::uint64_t local = *sum;
      for (std::uint64_t i = 0; i < kPageWords; i += 4) {
        local += page[i];
        if (write) {
          page[i] = mix(local);
        }
      }
      *sum = mix(local + visit);
    }
  };
  work.checksum = [=] { return *sum; };
  return work;
}

/// Pages by Zipf's law (exponent 1), scattered over the memory.
std::uint64_t zipf_page(std::uint64_t visit, std::uint64_t pages) {
  Random random(visit + 1);
  const auto rank =
      static_cast<std::uint64_t>(std::exp(random.unit() * std::log(static_cast<double>(pages))));
  return (std::min(rank, pages) - 1) * 2654435761U % pages;
}

Work chase(const Options& options) {
  constexpr std::uint64_t kHops = 256;
  const auto words = map_array<std::uint64_t>(options.bytes / sizeof(std::uint64_t));
  const std::uint64_t nodes = words.size() / 8;  // One of each cache line.
  std::vector<std::uint64_t> order(nodes);
  std::iota(order.begin(), order.end(), 0);
  Random random(1);
  for (std::uint64_t i = nodes - 1; i > 0; --i) {
    std::swap(order[i], order[random.next() % i]);
  }
  for (std::uint64_t i = 0; i < nodes; ++i) {
    words[order[i] * 8] = order[(i + 1) % nodes] * 8;
  }
  auto* const at = new std::uint64_t(0);
  auto* const sum = new std::uint64_t(0);
  Work work{words.data(), options.bytes, nodes * options.passes / (4 * kHops), {}, {}};
  work.step = [=](std::uint64_t) {
    for (std::uint64_t i = 0; i < kHops; ++i) {
      *at = words[*at];
    }
    *sum = mix(*sum + *at);
  };
  work.checksum = [=] { return *sum; };
  return work;
}

/// STREAM's triad, a slice a step.
Work stream(const Options& options) {
  constexpr std::uint64_t kSlice = 4096;
  const std::uint64_t count = options.bytes / (3 * sizeof(double)) / kSlice * kSlice;
  const auto all = map_array<double>(3 * count);
  for (std::uint64_t i = 0; i < count; ++i) {
    all[i] = 1;
    all[count + i] = 2;
    all[2 * count + i] = 0.5;
  }
  Work work{all.data(), 3 * count * sizeof(double), count / kSlice * options.passes * 4, {}, {}};
  work.step = [=](std::uint64_t step) {
    const std::uint64_t from = step * kSlice % count;
    double* const to = all.data() + (step * kSlice / count % 3) * count;
    const double* const one = all.data() + ((step * kSlice / count + 1) % 3) * count;
    const double* const two = all.data() + ((step * kSlice / count + 2) % 3) * count;
    for (std::uint64_t i = from; i < from + kSlice; ++i) {
      to[i] = 0.5 * one[i] + 0.25 * two[i];
    }
  };
  work.checksum = [=] {
    std::uint64_t sum = 0;
    for (const double value : all) {
      sum = mix(sum + static_cast<std::uint64_t>(value * 0x1p40));
    }
    return sum;
  };
  return work;
}

/// HPCC's RandomAccess: updates of words by a random sequence.
Work random_access(const Options& options) {
  constexpr std::uint64_t kUpdates = 128;
  const auto words = filled_words(options.bytes);
  auto* const random = new Random(1);
  Work work{words.data(), options.bytes, words.size() * options.passes / (8 * kUpdates), {}, {}};
  work.step = [=](std::uint64_t) {
    for (std::uint64_t i = 0; i < kUpdates; ++i) {
      const std::uint64_t value = random->next();
      words[value % words.size()] ^= value;
    }
  };
  work.checksum = [=] {
    return std::accumulate(words.begin(), words.end(), std::uint64_t{0},
                           [](std::uint64_t sum, std::uint64_t word) { return mix(sum + word); });
  };
  return work;
}

/// Breadth first over a random graph of out-degree 8, from one node after another.
Work graph(const Options& options) {
  constexpr std::uint64_t kDegree = 8;
  constexpr std::uint64_t kNodesAStep = 64;
  const std::uint64_t nodes = options.bytes / (sizeof(std::uint32_t) * (kDegree + 2));
  const auto all = map_array<std::uint32_t>(nodes * (kDegree + 2));
  std::uint32_t* const edges = all.data();
  std::uint32_t* const seen = edges + nodes * kDegree;
  std::uint32_t* const queue = seen + nodes;
  Random random(7);
  for (std::uint64_t i = 0; i < nodes * kDegree; ++i) {
    edges[i] = static_cast<std::uint32_t>(random.next() % nodes);
  }
  struct State {
    std::uint64_t head = 0, tail = 0, sum = 0;
    std::uint32_t search = 0;
  };
  auto* const state = new State;
  Work work{all.data(), all.size_bytes(), nodes * options.passes / (2 * kNodesAStep), {}, {}};
  work.step = [=](std::uint64_t) {
    for (std::uint64_t i = 0; i < kNodesAStep; ++i) {
      if (state->head == state->tail) {
        ++state->search;
        state->head = 0;
        state->tail = 1;
        queue[0] = static_cast<std::uint32_t>(state->search * 7919U % nodes);
        seen[queue[0]] = state->search;
      }
      const std::uint32_t node = queue[state->head++];
      state->sum = mix(state->sum + node);
      for (std::uint64_t edge = 0; edge < kDegree; ++edge) {
        const std::uint32_t next = edges[node * kDegree + edge];
        if (seen[next] != state->search) {
          seen[next] = state->search;
          queue[state->tail++] = next;
        }
      }
    }
  };
  work.checksum = [=] { return state->sum; };
  return work;
}

/// Threads that write to slices of their own; the first works in the steps.
Work many_threads(const Options& options) {
  const auto words = filled_words(options.bytes);
  const std::uint64_t slice = words.size() / options.threads / kPageWords * kPageWords;
  const std::uint64_t visits = slice / kPageWords * options.passes * 128;
  const auto visit = [=](std::uint64_t owner, std::uint64_t number) {
    Random random(owner * 1'000'003 + number + 1);
    std::uint64_t* const word = words.data() + owner * slice + random.next() % slice;
    *word = mix(*word + number);
  };
  auto* const others = new std::vector<std::thread>;
  Work work{words.data(), options.bytes, visits / 256, {}, {}};
  work.step = [=](std::uint64_t step) {
    for (std::uint64_t owner = 1; step == 0 && owner < options.threads; ++owner) {
      others->emplace_back([=] {
        for (std::uint64_t number = 0; number < visits; ++number) {
          visit(owner, number);
        }
      });
    }
    for (std::uint64_t number = step * 256; number < (step + 1) * 256; ++number) {
      visit(0, number);
    }
  };
  work.checksum = [=] {
    for (std::thread& other : *others) {
      other.join();
    }
    return std::accumulate(words.begin(), words.end(), std::uint64_t{0},
                           [](std::uint64_t sum, std::uint64_t word) { return mix(sum + word); });
  };
  return work;
}

#ifdef BENCH_HAS_CBLAS
Work dgemm(const Options& options) {
  constexpr std::uint64_t kBlock = 64;
  const auto wanted = static_cast<std::uint64_t>(
      std::sqrt(static_cast<double>(options.bytes) / (3 * sizeof(double))));
  const std::uint64_t side = std::max(wanted / kBlock, std::uint64_t{1}) * kBlock;
  const auto all = map_array<double>(3 * side * side);
  for (std::uint64_t i = 0; i < all.size(); ++i) {
    all[i] = i < 2 * side * side ? static_cast<double>(mix(i + 1) % 16) : 0;
  }
  const std::uint64_t blocks = side / kBlock;
  // All blocks of a result once is blocks^3 steps; the passes choose how much of that.
  Work work{all.data(), all.size_bytes(), blocks * blocks * options.passes, {}, {}};
  work.step = [=](std::uint64_t step) {
    const std::uint64_t row = step / blocks % blocks, column = step % blocks;
    const std::uint64_t inner = (step / (blocks * blocks) + row + column) % blocks;
    const auto lead = static_cast<int>(side);
    cblas_dgemm(CblasRowMajor, CblasNoTrans, CblasNoTrans, kBlock, kBlock, kBlock, 1,
                all.data() + (row * side + inner) * kBlock, lead,
                all.data() + side * side + (inner * side + column) * kBlock, lead, 1,
                all.data() + 2 * side * side + (row * side + column) * kBlock, lead);
  };
  work.checksum = [=] {
    std::uint64_t sum = 0;
    for (const double value : all.subspan(2 * side * side)) {
      sum = mix(sum + static_cast<std::uint64_t>(value));
    }
    return sum;
  };
  return work;
}
#endif

#ifdef BENCH_HAS_FFTW
/// Rows and columns of a square in turn, there and back, each an FFT.
Work fft(const Options& options) {
  std::uint64_t side = 256;
  while (4 * side * side * sizeof(fftw_complex) <= options.bytes) {
    side *= 2;
  }
  const auto all = map_array<double>(2 * side * side);
  for (std::uint64_t i = 0; i < all.size(); ++i) {
    all[i] = static_cast<double>(mix(i + 1) % 1024);
  }
  auto* const data = reinterpret_cast<fftw_complex*>(all.data());
  const auto length = static_cast<int>(side);
  const auto plan = [&](int stride, int sign) {
    return fftw_plan_many_dft(1, &length, 1, data, nullptr, stride, 1, data, nullptr, stride, 1,
                              sign, FFTW_ESTIMATE | FFTW_UNALIGNED);
  };
  const std::array<fftw_plan, 4> plans{plan(1, FFTW_FORWARD), plan(length, FFTW_FORWARD),
                                       plan(length, FFTW_BACKWARD), plan(1, FFTW_BACKWARD)};
  Work work{all.data(), all.size_bytes(), side * options.passes * 2, {}, {}};
  work.step = [=](std::uint64_t step) {
    const std::uint64_t turn = step / side % 4;
    const bool row = turn == 0 || turn == 3;
    fftw_complex* const line = data + (row ? step % side * side : step % side);
    fftw_execute_dft(plans[turn], line, line);
    for (std::uint64_t i = 0; turn == 3 && i < side; ++i) {
      line[i][0] /= static_cast<double>(side * side);
      line[i][1] /= static_cast<double>(side * side);
    }
  };
  work.checksum = [=] {
    std::uint64_t sum = 0;
    for (const double value : all) {
      std::uint64_t bits = 0;
      std::memcpy(&bits, &value, sizeof(bits));
      sum = mix(sum + bits);
    }
    return sum;
  };
  return work;
}
#endif

[[noreturn]] void skip(const char* reason) {
  std::fprintf(stderr, "workload: %s\n", reason);
  std::exit(kSkipped);
}

Work make_visits(const Options& options) {
  const std::uint64_t pages = options.bytes / kPageBytes;
  const std::uint64_t visits = pages * options.passes * 4;
  const auto in_turn = [](std::uint64_t visit, std::uint64_t all) { return visit % all; };
  const auto anywhere = [](std::uint64_t visit, std::uint64_t all) {
    return Random(visit + 1).next() % all;
  };
  if (options.kind == "sequential") {
    return page_visits(options, false, in_turn, visits);
  }
  if (options.kind == "strided") {
    return page_visits(
        options, false,
        [](std::uint64_t visit, std::uint64_t all) {
          return (visit * 17 + visit * 17 / all) % all;
        },
        visits);
  }
  if (options.kind == "random") {
    return page_visits(options, false, anywhere, visits);
  }
  if (options.kind == "zipf") {
    return page_visits(options, false, zipf_page, visits);
  }
  if (options.kind == "write-heavy") {
    return page_visits(options, true, anywhere, visits);
  }
  if (options.kind == "sparse") {
    const std::uint64_t share = options.share;
    return page_visits(
        options, false,
        [share](std::uint64_t visit, std::uint64_t all) {
          const std::uint64_t used = std::max<std::uint64_t>(all * share / 100, 1);
          return Random(visit + 1).next() % used * all / used;
        },
        visits);
  }
  skip("no such kind of work");
}

Work make_work(const Options& options) {
  if (options.kind == "chase") {
    return chase(options);
  }
  if (options.kind == "threads") {
    return many_threads(options);
  }
  if (options.kind == "graph") {
    return graph(options);
  }
  if (options.kind == "stream") {
    return stream(options);
  }
  if (options.kind == "random-access") {
    return random_access(options);
  }
  if (options.kind == "dgemm") {
#ifdef BENCH_HAS_CBLAS
    return dgemm(options);
#else
    skip("was built without OpenBLAS (libopenblas-dev)");
#endif
  }
  if (options.kind == "fft") {
#ifdef BENCH_HAS_FFTW
    return fft(options);
#else
    skip("was built without FFTW (libfftw3-dev)");
#endif
  }
  return make_visits(options);
}

Options parse(std::span<char*> words) {
  Options options;
  options.kind = words.size() > 1 ? words[1] : "";
  for (std::size_t i = 2; i + 1 < words.size(); i += 2) {
    const std::string_view word = words[i];
    const std::uint64_t number = std::strtoull(words[i + 1], nullptr, 10);
    if (word == "--result") {
      options.result = words[i + 1];
    } else if (word == "--mib") {
      options.bytes = number << 20U;
    } else if (word == "--passes") {
      options.passes = number;
    } else if (word == "--share") {
      options.share = number;
    } else if (word == "--threads") {
      options.threads = number;
    }
  }
  if (options.result.empty() || options.bytes == 0 || options.threads == 0) {
    std::fprintf(stderr,
                 "usage: workload KIND --result FILE [--mib N] [--passes N] [--share PERCENT]\n"
                 "                [--threads N]\n");
    std::exit(2);
  }
  return options;
}

void write_file(const std::string& path, const std::function<void(std::FILE*)>& write) {
  const std::string temporary = path + ".new";
  std::FILE* const file = std::fopen(temporary.c_str(), "we");
  if (file == nullptr) {
    die("write a result");
  }
  write(file);
  if (std::fclose(file) != 0 || std::rename(temporary.c_str(), path.c_str()) != 0) {
    die("write a result");
  }
}

}  // namespace

int main(int argc, char** argv) {
  const Options options = parse({argv, static_cast<std::size_t>(argc)});
  Work work = make_work(options);
  Heartbeat heartbeat;
  heartbeat.begin();
  write_file(options.result + ".ready", [&](std::FILE* file) {
    std::fprintf(file, "{\"start\": %llu, \"bytes\": %llu, \"steps\": %llu}\n",
                 static_cast<unsigned long long>(reinterpret_cast<std::uintptr_t>(work.memory)),
                 static_cast<unsigned long long>(work.bytes),
                 static_cast<unsigned long long>(work.steps));
  });
  while (::access((options.result + ".go").c_str(), F_OK) != 0) {
    ::usleep(1000);
  }
  heartbeat.begin();
  for (std::uint64_t step = 0; step < work.steps; ++step) {
    work.step(step);
    heartbeat.beat();
  }
  const std::uint64_t checksum = work.checksum();
  write_file(options.result, [&](std::FILE* file) {
    std::fprintf(file, "{\"checksum\": \"%016llx\", \"steps\": %llu, ",
                 static_cast<unsigned long long>(checksum),
                 static_cast<unsigned long long>(work.steps));
    heartbeat.write(file);
    std::fprintf(file, "}\n");
  });
  return 0;
}
