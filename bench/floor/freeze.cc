// The floor of a freeze: seize and interrupt every thread, read its registers, send an image of
// that size, set registers in a process that is prepared at the other host, let it go, hear of it.

#include <elf.h>
#include <signal.h>
#include <sys/ptrace.h>
#include <sys/uio.h>
#include <sys/user.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cerrno>
#include <cstdio>
#include <filesystem>
#include <string>
#include <thread>

#include "floor.h"

namespace floors {
namespace {

constexpr useconds_t kPauseUs = 5000;

/// A process most of whose threads sleep at any time.
pid_t start_threads(std::uint32_t threads) {
  const pid_t child = start([threads] {
    for (std::uint32_t i = 1; i < threads; ++i) {
      std::thread([] {
        for (;;) {
          ::usleep(kPauseUs);
        }
      }).detach();
    }
    for (;;) {  // The first thread works, as a heartbeat does.
      static_cast<void>(now_ns());
    }
  });
  return child;
}

std::vector<pid_t> threads_of(pid_t process, std::uint32_t wanted) {
  std::vector<pid_t> result;
  const std::int64_t until = now_ns() + 10'000'000'000;
  while (result.size() < wanted && now_ns() < until) {
    result.clear();
    for (const auto& entry :
         std::filesystem::directory_iterator("/proc/" + std::to_string(process) + "/task")) {
      result.push_back(std::stoi(entry.path().filename()));
    }
    ::usleep(1000);
  }
  return result;
}

struct Registers {
  user_regs_struct general;
};

void stop(const std::vector<pid_t>& threads) {
  for (const pid_t thread : threads) {
    if (::ptrace(PTRACE_SEIZE, thread, nullptr, nullptr) != 0 ||
        ::ptrace(PTRACE_INTERRUPT, thread, nullptr, nullptr) != 0) {
      die("seize a thread");
    }
  }
  for (const pid_t thread : threads) {
    int status = 0;
    while (::waitpid(thread, &status, __WALL) < 0 && errno == EINTR) {
    }
  }
}

void each_register(int request, const std::vector<pid_t>& threads,
                   std::vector<Registers>& registers) {
  for (std::size_t i = 0; i < threads.size(); ++i) {
    iovec bytes{&registers[i].general, sizeof(registers[i].general)};
    if (::ptrace(static_cast<__ptrace_request>(request), threads[i],
                 reinterpret_cast<void*>(NT_PRSTATUS), &bytes) != 0) {
      die("a thread's registers");
    }
  }
}

void let_go(const std::vector<pid_t>& threads) {
  for (const pid_t thread : threads) {
    ::ptrace(PTRACE_DETACH, thread, nullptr, nullptr);
  }
}

/// How long each freeze took, from the first seizure until the answer.
std::vector<std::int64_t> trial(const Server& server, std::uint32_t threads,
                                std::size_t image_bytes, int rounds, Way way, int tracer_at,
                                int server_at) {
  const pid_t process = start_threads(threads);
  const std::vector<pid_t> ids = threads_of(process, threads);
  std::vector<Registers> registers(ids.size());
  Hello hello;
  hello.kind = Kind::kFreeze;
  hello.bytes = image_bytes;
  hello.threads = threads;
  hello.way = way;
  hello.processor = server_at;
  const int socket = connect_to(server, hello);
  std::vector<char> image(image_bytes, 'i');
  std::vector<std::int64_t> times;
  run_on(tracer_at);
  char ready = 0;
  for (int round = 0; round < rounds; ++round) {
    if (!receive(socket, &ready, 1)) {
      die("wait for the prepared process");
    }
    ::usleep(kPauseUs);
    const std::int64_t begin = now_ns();
    stop(ids);
    each_register(PTRACE_GETREGSET, ids, registers);
    send_all(socket, image.data(), image.size());
    if (!receive(socket, &ready, 1, way)) {
      die("hear that it runs");
    }
    times.push_back(now_ns() - begin);
    let_go(ids);
  }
  run_on(-1);
  ::close(socket);
  end(process);
  return times;
}

}  // namespace

void serve_freezes(int socket, const Hello& hello) {
  const pid_t process = start_threads(hello.threads);
  const std::vector<pid_t> ids = threads_of(process, hello.threads);
  std::vector<Registers> registers(ids.size());
  std::vector<char> image(hello.bytes);
  for (;;) {
    stop(ids);
    each_register(PTRACE_GETREGSET, ids, registers);
    send_all(socket, "r", 1);
    if (!receive(socket, image.data(), image.size(), hello.way)) {
      break;
    }
    each_register(PTRACE_SETREGSET, ids, registers);
    let_go(ids);
    send_all(socket, "g", 1);
  }
  end(process);
}

void measure_freeze(const Server& server, std::uint32_t threads, std::size_t image_bytes,
                    int rounds) {
  constexpr int kPlaces[][2] = {{-1, -1}, {0, 1}, {0, 0}};
  double best = 0;
  const char* best_way = "";
  const int* best_place = kPlaces[0];
  for (const auto& place : kPlaces) {
    for (const Way way : kWays) {
      std::vector<std::int64_t> times =
          trial(server, threads, image_bytes, rounds, way, place[0], place[1]);
      const double p50 = quantile_us(times, 0.5);
      if (best == 0 || p50 < best) {
        best = p50;
        best_way = name_of(way);
        best_place = place;
      }
    }
  }
  std::printf(
      "{\"p50_us\": %.1f, \"threads\": %u, \"image_bytes\": %zu, \"way\": \"%s\", "
      "\"tracer_at\": %d, \"server_at\": %d}\n",
      best, threads, image_bytes, best_way, best_place[0], best_place[1]);
}

}  // namespace floors
