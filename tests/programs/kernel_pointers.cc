// What the kernel keeps by address for each thread: rseq, robust lists, the address of its id.
#include <linux/futex.h>
#include <pthread.h>
#include <sched.h>
#include <sys/rseq.h>

#include <array>
#include <thread>
#include <vector>

#include "tests/programs/check.h"

namespace {

using check::called;
using check::stopping;

volatile struct rseq* own_rseq() {
  return reinterpret_cast<volatile struct rseq*>(static_cast<char*>(__builtin_thread_pointer()) +
                                                 __rseq_offset);
}

/// On each processor in turn: the kernel keeps writing the processor's number into the area.
void rseq_body(int index) {
  volatile struct rseq* area = own_rseq();
  cpu_set_t allowed{};
  called(::sched_getaffinity(0, sizeof allowed, &allowed), "sched_getaffinity");
  for (int round = index; !stopping(); ++round) {
    const int processor = round % CPU_SETSIZE;
    if (!CPU_ISSET(processor, &allowed)) {
      continue;
    }
    cpu_set_t one{};
    CPU_SET(processor, &one);
    called(::sched_setaffinity(0, sizeof one, &one), "sched_setaffinity");
    unsigned actual = 0;
    called(::syscall(SYS_getcpu, &actual, nullptr, nullptr), "getcpu");
    CHECK_EQUAL(actual, static_cast<unsigned>(processor));
    CHECK_EQUAL(static_cast<unsigned>(area->cpu_id), actual);
    CHECK_EQUAL(static_cast<unsigned>(area->cpu_id_start), actual);
    CHECK_EQUAL(::sched_getcpu(), processor);
    // Registered already, with the same area and signature: the kernel says so.
    const long result = ::syscall(SYS_rseq, area, 32, 0, RSEQ_SIG);
    CHECK(result == -1 && errno == EBUSY);
    check::sleep_ns(check::kMillisecond);
  }
  called(::sched_setaffinity(0, sizeof allowed, &allowed), "sched_setaffinity");
}

void rseq() {
  CHECK(__rseq_size > 0);
  check::ready();
  std::thread other(rseq_body, 1);
  rseq_body(0);
  other.join();
}

pthread_mutex_t robust_mutex;

void* die_with_mutex(void*) {
  CHECK_EQUAL(pthread_mutex_lock(&robust_mutex), 0);
  check::sleep_ns(40 * check::kMillisecond);
  return nullptr;
}

/// A thread ends holding the mutex; the next to lock it is told so.
void robust() {
  pthread_mutexattr_t attributes{};
  pthread_mutexattr_init(&attributes);
  pthread_mutexattr_setrobust(&attributes, PTHREAD_MUTEX_ROBUST);
  CHECK_EQUAL(pthread_mutex_init(&robust_mutex, &attributes), 0);
  void* head = nullptr;
  std::size_t length = 0;
  called(::syscall(SYS_get_robust_list, 0, &head, &length), "get_robust_list");
  check::ready();
  while (!stopping()) {
    pthread_t thread{};
    CHECK_EQUAL(pthread_create(&thread, nullptr, die_with_mutex, nullptr), 0);
    CHECK_EQUAL(pthread_join(thread, nullptr), 0);
    CHECK_EQUAL(pthread_mutex_lock(&robust_mutex), EOWNERDEAD);
    CHECK_EQUAL(pthread_mutex_consistent(&robust_mutex), 0);
    CHECK_EQUAL(pthread_mutex_unlock(&robust_mutex), 0);
    void* head_now = nullptr;
    std::size_t length_now = 0;
    called(::syscall(SYS_get_robust_list, 0, &head_now, &length_now), "get_robust_list");
    CHECK_EQUAL(head_now, head);
    CHECK_EQUAL(length_now, length);
  }
}

/// Threads that exist while moved end later: the kernel clears their id and wakes who joins them.
void tid_address() {
  std::array<std::atomic<bool>, 4> leave{};
  check::ready();
  while (!stopping()) {
    std::vector<std::thread> threads;
    for (std::atomic<bool>& flag : leave) {
      flag = false;
      threads.emplace_back([&flag] {
        while (!flag) {
          check::sleep_ns(check::kMillisecond);
        }
      });
    }
    check::sleep_ns(100 * check::kMillisecond);
    for (std::size_t index = 0; index < leave.size(); ++index) {
      leave[index] = true;
      threads[index].join();
    }
  }
}

constexpr check::Property kProperties[] = {
    {"rseq", rseq},
    {"robust", robust},
    {"tid_address", tid_address},
};

}  // namespace

int main(int argc, char** argv) {
  return check::main(argc, argv, kProperties);
}
