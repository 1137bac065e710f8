// The floor of a fault: a toucher, in another process a handler that holds its userfaultfd, and at
// the other host a server: 24 bytes there, 4 KiB back.

#include <fcntl.h>
#include <linux/userfaultfd.h>
#include <poll.h>
#include <sys/mman.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <cstdio>
#include <new>
#include <string>

#include "floor.h"

namespace floors {
namespace {

constexpr std::int64_t kTrialNs = 250'000'000;
constexpr std::size_t kTrialFaults = 400;

/// Who waits how, and where each runs.
struct Arrangement {
  Way handler = Way::kBlocking;
  Way server = Way::kBlocking;
  int toucher_at = -1;
  int handler_at = -1;
  int server_at = -1;
};

struct Times {
  std::atomic<std::size_t> count;
  std::atomic<bool> ended;
  std::int64_t ns[1];
};

bool wait_for_fault(int userfault, Way way, const Times& times, uffd_msg& message) {
  while (!times.ended) {
    if (way == Way::kBlocking) {
      pollfd readable{userfault, POLLIN, 0};
      ::poll(&readable, 1, 20);
    }
    if (::read(userfault, &message, sizeof(message)) == sizeof(message)) {
      return true;
    }
    give_way(way);
  }
  return false;
}

/// What the toucher saw of each fault; with no server, the handler has the page itself.
std::vector<std::int64_t> trial(const Server* server, const Arrangement& how, std::size_t count,
                                std::int64_t limit_ns) {
  const std::size_t shared_bytes = sizeof(Times) + count * sizeof(std::int64_t);
  Times* const times = new (map_shared(shared_bytes)) Times;
  FilledChild child(count * kPageBytes, [&](volatile char* memory) {
    run_on(how.toucher_at);
    const std::int64_t until = now_ns() + limit_ns;
    for (std::size_t i = 0; i < count; ++i) {
      const std::int64_t before = now_ns();
      static_cast<void>(memory[i * kPageBytes]);
      const std::int64_t after = now_ns();
      times->ns[i] = after - before;
      times->count = i + 1;
      if (after > until) {
        break;
      }
    }
    times->ended = true;
  });
  int socket = -1;
  if (server != nullptr) {
    Hello hello;
    hello.kind = Kind::kPages;
    hello.way = how.server;
    hello.processor = how.server_at;
    socket = connect_to(*server, hello);
  }
  run_on(how.handler_at);
  alignas(kPageBytes) static char page[kPageBytes];
  char request[kRequestBytes] = {};
  child.go();
  uffd_msg message{};
  while (wait_for_fault(child.userfault(), how.handler, *times, message)) {
    if (socket >= 0) {
      send_all(socket, request, sizeof(request));
      if (!receive(socket, page, sizeof(page), how.handler)) {
        die("receive a page");
      }
    }
    copy_in(child.userfault(), message.arg.pagefault.address & ~(kPageBytes - 1), page, kPageBytes);
  }
  run_on(-1);
  if (socket >= 0) {
    ::close(socket);
  }
  std::vector<std::int64_t> result(times->ns, times->ns + times->count);
  ::munmap(times, shared_bytes);
  return result;
}

std::vector<Arrangement> arrangements(bool with_server) {
  // Where toucher, handler and server run: anywhere, or on the first two processors.
  constexpr int kPlaces[][3] = {{-1, -1, -1}, {0, 0, 0}, {0, 0, 1}, {0, 1, 0}, {0, 1, 1}};
  std::vector<Arrangement> result;
  for (const auto& place : kPlaces) {
    if (processor_count() < 2 && (place[1] > 0 || place[2] > 0)) {
      continue;
    }
    for (const Way handler : kWays) {
      for (const Way server : kWays) {
        if (with_server || server == Way::kBlocking) {
          result.push_back({handler, server, place[0], place[1], place[2]});
        }
      }
    }
  }
  return result;
}

void measure(const Server* server, std::size_t count) {
  Arrangement best;
  double best_us = 0;
  for (const Arrangement& how : arrangements(server != nullptr)) {
    std::vector<std::int64_t> times = trial(server, how, std::min(count, kTrialFaults), kTrialNs);
    const double p50 = quantile_us(times, 0.5);
    if (best_us == 0 || p50 < best_us) {
      best_us = p50;
      best = how;
    }
  }
  std::vector<std::int64_t> times = trial(server, best, count, INT64_MAX / 2);
  const double again_us = quantile_us(times, 0.5);
  std::printf(
      "{\"p50_us\": %.1f, \"p99_us\": %.1f, \"handler\": \"%s\", \"server\": \"%s\", "
      "\"toucher_at\": %d, \"handler_at\": %d, \"server_at\": %d}\n",
      std::min(best_us, again_us), quantile_us(times, 0.99), name_of(best.handler),
      name_of(best.server), best.toucher_at, best.handler_at, best.server_at);
}

}  // namespace

void serve_pages(int socket, const Hello& hello) {
  std::vector<char> page(kPageBytes, 'x');
  while (receive(socket, page.data(), kRequestBytes, hello.way)) {
    send_all(socket, page.data(), kPageBytes);
  }
}

void measure_fault(const Server& server, std::size_t count) {
  measure(&server, count);
}

void measure_local_fault(std::size_t count) {
  measure(nullptr, count);
}

}  // namespace floors
