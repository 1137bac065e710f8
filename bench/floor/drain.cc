// The floors of moving memory: read out of a process at one host, sent over TCP, and copied into a
// process at the other (copied), or only received (plain: the floor of mode eager); and what the
// machine's memory does by itself.
//
// Each connection has a thread that reads and sends and one that receives and copies; what is
// between them is the sockets' buffers, so that both ends work at the same time.

#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/uio.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstdio>
#include <cstring>
#include <thread>

#include "floor.h"

namespace floors {
namespace {

constexpr std::size_t kProbeBytes = 64U << 20U;
constexpr std::size_t kBlocks[] = {64U << 10U, 256U << 10U, 1U << 20U, 4U << 20U};
constexpr std::size_t kConnections[] = {1, 2};
constexpr std::size_t kTriedWithAll = 3;

/// How memory flows, and where each end runs.
struct Flow {
  std::size_t block = kBlocks[0];
  std::size_t connections = 1;
  Way way = Way::kBlocking;  // of who receives
  int receiver_at = -1;
  int sender_at = -1;
};

void receive_part(int socket, std::size_t offset, std::size_t bytes, const Flow& how,
                  FilledChild* into, char* buffer) {
  run_on(how.receiver_at);
  for (std::size_t done = 0; done < bytes; done += how.block) {
    const std::size_t length = std::min(how.block, bytes - done);
    if (!receive(socket, buffer, length, how.way)) {
      die("receive a part");
    }
    if (into != nullptr) {
      copy_in(into->userfault(), into->start() + offset + done, buffer, length);
    }
  }
}

double once(const Server& server, std::size_t bytes, const Flow& how, bool copied) {
  FilledChild child(bytes, [](volatile char*) {});
  const std::size_t part = bytes / how.connections;
  std::vector<int> sockets;
  std::vector<char*> buffers;
  for (std::size_t i = 0; i < how.connections; ++i) {
    Hello hello;
    hello.kind = copied ? Kind::kCopied : Kind::kStream;
    hello.bytes = part;
    hello.block = how.block;
    hello.processor = how.sender_at;
    sockets.push_back(connect_to(server, hello));
    buffers.push_back(static_cast<char*>(map_private(how.block, MAP_POPULATE)));
    char ready = 0;
    if (!receive(sockets.back(), &ready, 1)) {
      die("wait for the server");
    }
  }
  const std::int64_t begin = now_ns();
  std::vector<std::thread> threads;
  for (std::size_t i = 0; i < how.connections; ++i) {
    send_all(sockets[i], "g", 1);
    threads.emplace_back(receive_part, sockets[i], part * i, part, how, copied ? &child : nullptr,
                         buffers[i]);
  }
  for (std::thread& thread : threads) {
    thread.join();
  }
  const double seconds = static_cast<double>(now_ns() - begin) / 1e9;
  for (std::size_t i = 0; i < how.connections; ++i) {
    ::close(sockets[i]);
    ::munmap(buffers[i], how.block);
  }
  return seconds;
}

/// An arrangement, and how long it took.
struct Tried {
  Flow how;
  double seconds = 0;
};

/// First blocks and connections, then ways and places with the best of these, all with little
/// memory; then the best few with all of it: what is best for little may be bad for much.
void best_of(const Server& server, std::size_t bytes, bool copied, const char* name) {
  std::vector<Tried> tried;
  const auto probe = [&](const Flow& how) {
    tried.push_back({how, once(server, std::min(bytes, kProbeBytes), how, copied)});
    std::ranges::stable_sort(tried, {}, &Tried::seconds);
  };
  for (const std::size_t connections : kConnections) {
    for (const std::size_t block : kBlocks) {
      probe({block, connections, Way::kBlocking, -1, -1});
    }
  }
  const Flow blocking = tried.front().how;
  for (const Way way : {Way::kPolling, Way::kYielding}) {
    probe({blocking.block, blocking.connections, way, -1, -1});
  }
  if (processor_count() > 1) {
    for (const Way way : {tried.front().how.way, Way::kBlocking}) {
      probe({blocking.block, blocking.connections, way, 0, 1});
    }
  }
  tried.resize(std::min(tried.size(), kTriedWithAll));
  Tried best{blocking, once(server, bytes, blocking, copied)};
  for (const Tried& each : tried) {
    const double seconds = once(server, bytes, each.how, copied);
    if (seconds < best.seconds) {
      best = {each.how, seconds};
    }
  }
  best.seconds = std::min(best.seconds, once(server, bytes, best.how, copied));
  std::printf(
      "\"%s\": {\"seconds\": %.6f, \"block\": %zu, \"connections\": %zu, \"way\": \"%s\", "
      "\"receiver_at\": %d, \"sender_at\": %d}",
      name, best.seconds, best.how.block, best.how.connections, name_of(best.how.way),
      best.how.receiver_at, best.how.sender_at);
}

}  // namespace

void serve_stream(int socket, const Hello& hello) {
  // The process whose memory is read: another than that which sends.
  void* const memory = map_private(hello.bytes);
  int told[2];
  if (::socketpair(AF_UNIX, SOCK_STREAM, 0, told) != 0) {
    die("socketpair");
  }
  const pid_t owner = start([&] {
    std::memset(memory, 1, hello.bytes);
    send_all(told[1], "r", 1);
    char nothing = 0;
    receive(told[1], &nothing, 1);
  });
  char byte = 0;
  char* const buffer = static_cast<char*>(map_private(hello.block, MAP_POPULATE));
  if (!receive(told[0], &byte, 1)) {
    die("start the process that is read");
  }
  send_all(socket, &byte, 1);
  if (receive(socket, &byte, 1)) {
    for (std::uint64_t done = 0; done < hello.bytes; done += hello.block) {
      const std::size_t length = std::min<std::uint64_t>(hello.block, hello.bytes - done);
      iovec local{buffer, length};
      iovec remote{static_cast<char*>(memory) + done, length};
      if (::process_vm_readv(owner, &local, 1, &remote, 1, 0) != static_cast<ssize_t>(length)) {
        die("process_vm_readv");
      }
      send_all(socket, buffer, length);
    }
  }
  end(owner);
}

void measure_drain(const Server& server, std::size_t bytes) {
  std::printf("{\"bytes\": %zu, ", bytes);
  best_of(server, bytes, true, "drain");
  std::printf(", ");
  best_of(server, bytes, false, "plain_copy");
  std::printf("}\n");
}

void measure_memory(std::size_t bytes) {
  double touch = 0;
  double copy = 0;
  char* const source = static_cast<char*>(map_private(bytes));
  std::memset(source, 1, bytes);
  for (int round = 0; round < 3; ++round) {
    volatile char* const target = static_cast<volatile char*>(map_private(bytes));
    const std::int64_t begin = now_ns();
    for (std::size_t at = 0; at < bytes; at += kPageBytes) {
      target[at] = 1;
    }
    const std::int64_t touched = now_ns();
    std::memcpy(const_cast<char*>(target), source, bytes);
    const std::int64_t copied = now_ns();
    const double pages = static_cast<double>(bytes / kPageBytes);
    const double touch_ns = static_cast<double>(touched - begin) / pages;
    const double copy_seconds = static_cast<double>(copied - touched) / 1e9;
    touch = round == 0 ? touch_ns : std::min(touch, touch_ns);
    copy = round == 0 ? copy_seconds : std::min(copy, copy_seconds);
    ::munmap(const_cast<char*>(target), bytes);
  }
  std::printf("{\"bytes\": %zu, \"first_touch_ns\": %.0f, \"memcpy_gib_per_second\": %.2f}\n",
              bytes, touch, static_cast<double>(bytes) / copy / (1U << 30U));
}

}  // namespace floors
