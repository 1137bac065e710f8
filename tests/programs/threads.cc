// Threads: the ways in which they meet, what is theirs alone, and their ids.
#include <pthread.h>
#include <signal.h>

#include <array>
#include <deque>
#include <memory>
#include <thread>
#include <vector>

#include "tests/programs/check.h"

namespace {

using check::stopping;

constexpr int kThreads = 8;

void run_threads(int count, void (*body)(int), bool announce = true) {
  std::vector<std::thread> threads;
  for (int index = 0; index < count; ++index) {
    threads.emplace_back(body, index);
  }
  if (announce) {
    check::ready();
  }
  for (std::thread& thread : threads) {
    thread.join();
  }
}

struct GuardedCounter {
  pthread_mutex_t mutex{};
  std::int64_t first = 0;
  std::int64_t second = 0;
  std::atomic<std::int64_t> expected{0};
};
std::array<GuardedCounter, 4> guarded_counters;

void init_mutexes() {
  constexpr std::array<int, 4> kTypes = {PTHREAD_MUTEX_NORMAL, PTHREAD_MUTEX_RECURSIVE,
                                         PTHREAD_MUTEX_ERRORCHECK, PTHREAD_MUTEX_NORMAL};
  for (std::size_t index = 0; index < kTypes.size(); ++index) {
    pthread_mutexattr_t attributes{};
    pthread_mutexattr_init(&attributes);
    pthread_mutexattr_settype(&attributes, kTypes[index]);
    if (index == 3) {
      pthread_mutexattr_setprotocol(&attributes, PTHREAD_PRIO_INHERIT);
    }
    CHECK_EQUAL(pthread_mutex_init(&guarded_counters[index].mutex, &attributes), 0);
  }
}

// Now and then each test lets go of the processors. (With all of them taken all the time, and
// yielded a million times a second, Linux 6.18 ran no daemon for a minute now and then.)
constexpr std::int64_t kPause = 100'000;

void mutex_body(int index) {
  check::Random random(static_cast<std::uint64_t>(index) + 1);
  while (!stopping()) {
    GuardedCounter& counter = guarded_counters[random.below(guarded_counters.size())];
    CHECK_EQUAL(pthread_mutex_lock(&counter.mutex), 0);
    CHECK_EQUAL(counter.first, counter.second);
    ++counter.first;
    if (random.below(64) == 0) {
      check::sleep_ns(kPause);  // Held while others queue up.
    }
    ++counter.second;
    ++counter.expected;
    CHECK_EQUAL(pthread_mutex_unlock(&counter.mutex), 0);
  }
}

void mutex() {
  init_mutexes();
  run_threads(kThreads, mutex_body);
  for (GuardedCounter& counter : guarded_counters) {
    CHECK_EQUAL(counter.first, counter.expected.load());
    CHECK(counter.first > 0);
  }
}

struct Queue {
  pthread_mutex_t mutex = PTHREAD_MUTEX_INITIALIZER;
  pthread_cond_t filled = PTHREAD_COND_INITIALIZER;
  pthread_cond_t drained = PTHREAD_COND_INITIALIZER;
  std::deque<std::int64_t> numbers;
  bool closed = false;
};
Queue queue;

void produce() {
  for (std::int64_t number = 0; !stopping(); ++number) {
    pthread_mutex_lock(&queue.mutex);
    while (queue.numbers.size() >= 4) {
      pthread_cond_wait(&queue.drained, &queue.mutex);
    }
    queue.numbers.push_back(number);
    if (number % 64 == 0) {
      check::sleep_ns(kPause);
    }
    pthread_cond_signal(&queue.filled);
    pthread_mutex_unlock(&queue.mutex);
  }
  pthread_mutex_lock(&queue.mutex);
  queue.closed = true;
  pthread_cond_broadcast(&queue.filled);
  pthread_mutex_unlock(&queue.mutex);
}

void consume() {
  std::int64_t expected = 0;
  pthread_mutex_lock(&queue.mutex);
  while (true) {
    while (queue.numbers.empty() && !queue.closed) {
      pthread_cond_wait(&queue.filled, &queue.mutex);
    }
    if (queue.numbers.empty()) {
      break;
    }
    CHECK_EQUAL(queue.numbers.front(), expected);
    queue.numbers.pop_front();
    ++expected;
    pthread_cond_signal(&queue.drained);
  }
  pthread_mutex_unlock(&queue.mutex);
  CHECK(expected > 0);
}

void condvar() {
  run_threads(2, [](int index) { index == 0 ? produce() : consume(); });
}

pthread_barrier_t barrier_object;
std::array<std::atomic<std::int64_t>, kThreads> barrier_rounds;
std::atomic<bool> barrier_stop{false};

void barrier_body(int index) {
  for (std::int64_t round = 1; !barrier_stop; ++round) {
    barrier_rounds[static_cast<std::size_t>(index)] = round;
    const int arrived = pthread_barrier_wait(&barrier_object);
    for (const std::atomic<std::int64_t>& other : barrier_rounds) {
      CHECK_EQUAL(other.load(), round);
    }
    if (arrived == PTHREAD_BARRIER_SERIAL_THREAD) {
      barrier_stop = stopping();
      check::sleep_ns(kPause);
    }
    pthread_barrier_wait(&barrier_object);
  }
}

void barrier() {
  CHECK_EQUAL(pthread_barrier_init(&barrier_object, nullptr, kThreads), 0);
  run_threads(kThreads, barrier_body);
}

thread_local int own_number = -1;
thread_local std::array<std::int64_t, 1000> own_array = {};
thread_local std::unique_ptr<std::string> own_text;

void thread_local_body(int index) {
  own_number = index;
  own_text = std::make_unique<std::string>(std::to_string(index));
  const std::string* text = own_text.get();
  for (std::int64_t round = 0; !stopping(); ++round) {
    CHECK_EQUAL(own_number, index);
    CHECK_EQUAL(own_text.get(), text);
    CHECK_EQUAL(*own_text, std::to_string(index));
    for (std::int64_t& element : own_array) {
      CHECK_EQUAL(element, round);
      element = round + 1;
    }
    errno = index + 100;
    check::sleep_ns(kPause);
    CHECK_EQUAL(errno, index + 100);
  }
}

void thread_locals() {
  run_threads(kThreads, thread_local_body);
}

void* sleep_and_return(void* argument) {
  check::sleep_ns(20 * check::kMillisecond);
  return argument;
}

/// Threads come and go: their ends (clear_child_tid, stack caches) work at every place.
void join() {
  check::ready();
  for (std::uintptr_t round = 0; !stopping(); round += kThreads) {
    std::array<pthread_t, kThreads> threads{};
    for (std::size_t index = 0; index < kThreads; ++index) {
      // NOLINTNEXTLINE(performance-no-int-to-ptr): a number for the thread to give back
      void* number = reinterpret_cast<void*>(round + index);
      CHECK_EQUAL(pthread_create(&threads[index], nullptr, sleep_and_return, number), 0);
    }
    for (std::size_t index = 0; index < kThreads; ++index) {
      void* result = nullptr;
      CHECK_EQUAL(pthread_join(threads[index], &result), 0);
      CHECK_EQUAL(reinterpret_cast<std::uintptr_t>(result), round + index);
    }
  }
}

pid_t process_id;

void ids_body(int index) {
  const auto id = static_cast<pid_t>(::syscall(SYS_gettid));
  const pthread_t self = pthread_self();
  const std::string name = "number-" + std::to_string(index);
  const std::string task = "/proc/self/task/" + std::to_string(id);
  pthread_setname_np(self, name.c_str());
  while (!stopping()) {
    CHECK_EQUAL(static_cast<pid_t>(::syscall(SYS_getpid)), process_id);
    CHECK_EQUAL(::getpid(), process_id);
    CHECK_EQUAL(static_cast<pid_t>(::syscall(SYS_gettid)), id);
    CHECK_EQUAL(pthread_self(), self);
    CHECK_EQUAL(::syscall(SYS_tgkill, process_id, id, 0), 0);
    CHECK_EQUAL(::access(task.c_str(), F_OK), 0);
    std::array<char, 32> now{};
    CHECK_EQUAL(pthread_getname_np(self, now.data(), now.size()), 0);
    CHECK_EQUAL(std::string(now.data()), name);
    check::sleep_ns(check::kMillisecond);
  }
}

void ids() {
  process_id = ::getpid();
  run_threads(kThreads, ids_body);
  CHECK_EQUAL(::getpid(), process_id);
}

void many_body(int index) {
  check::Random random(static_cast<std::uint64_t>(index) + 1);
  check::Random same(static_cast<std::uint64_t>(index) + 1);
  const auto id = static_cast<pid_t>(::syscall(SYS_gettid));
  while (!stopping()) {
    for (int step = 0; step < 1000; ++step) {
      CHECK_EQUAL(random.next(), same.next());
    }
    CHECK_EQUAL(static_cast<pid_t>(::syscall(SYS_gettid)), id);
    // A hundred of them wake up often enough to keep two processors from the daemons.
    check::sleep_ns(25 * check::kMillisecond);
  }
}

void many() {
  run_threads(100, many_body);
}

constexpr check::Property kProperties[] = {
    {"mutex", mutex}, {"condvar", condvar}, {"barrier", barrier}, {"thread_local", thread_locals},
    {"join", join},   {"ids", ids},         {"many", many},
};

}  // namespace

int main(int argc, char** argv) {
  return check::main(argc, argv, kProperties);
}
