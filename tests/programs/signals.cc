// Signals: dispositions, masks, alternate stacks in use, what is pending, and what arrives.
#include <pthread.h>
#include <signal.h>

#include <array>
#include <thread>
#include <vector>

#include "tests/programs/check.h"

namespace {

using check::called;
using check::stopping;

void ignore_handler(int) {}
void info_handler(int, siginfo_t*, void*) {}

struct sigaction make_action(int number) {
  struct sigaction action {};
  switch (number % 4) {
    case 0:
      action.sa_handler = SIG_IGN;
      break;
    case 1:
      action.sa_handler = ignore_handler;
      action.sa_flags = SA_RESTART | SA_NODEFER;
      break;
    case 2:
      action.sa_sigaction = info_handler;
      action.sa_flags = SA_SIGINFO | SA_ONSTACK;
      break;
    default:
      action.sa_handler = SIG_DFL;
      action.sa_flags = SA_RESETHAND;
  }
  const int masked = (number * 7) % 31 + 1;
  sigaddset(&action.sa_mask, masked == SIGKILL || masked == SIGSTOP ? SIGHUP : masked);
  return action;
}

bool is_settable(int number) {
  return number != SIGKILL && number != SIGSTOP && (number < 32 || number >= SIGRTMIN);
}

constexpr int kRestorer = 0x04000000;  // SA_RESTORER, the C library's own

void check_dispositions() {
  for (int number = 1; number <= SIGRTMAX; ++number) {
    if (!is_settable(number)) {
      continue;
    }
    const struct sigaction expected = make_action(number);
    struct sigaction now {};
    called(::sigaction(number, nullptr, &now), "sigaction");
    now.sa_flags &= ~kRestorer;
    if (now.sa_handler != expected.sa_handler || now.sa_flags != expected.sa_flags) {
      check::fail("signal %d has handler %p flags %x", number,
                  reinterpret_cast<void*>(now.sa_handler), static_cast<unsigned>(now.sa_flags));
    }
    for (int other = 1; other <= SIGRTMAX; ++other) {
      CHECK_EQUAL(sigismember(&now.sa_mask, other), sigismember(&expected.sa_mask, other));
    }
  }
}

void dispositions() {
  for (int number = 1; number <= SIGRTMAX; ++number) {
    if (is_settable(number)) {
      const struct sigaction action = make_action(number);
      called(::sigaction(number, &action, nullptr), "sigaction");
    }
  }
  check::ready();
  while (!stopping()) {
    check_dispositions();
    check::sleep_ns(check::kMillisecond);
  }
  check_dispositions();
}

void mask_body(int index) {
  sigset_t mask{};
  sigemptyset(&mask);
  for (int number = index + 1; number <= SIGRTMAX; number += 3) {
    if (is_settable(number)) {
      sigaddset(&mask, number);
    }
  }
  CHECK_EQUAL(pthread_sigmask(SIG_SETMASK, &mask, nullptr), 0);
  while (!stopping()) {
    sigset_t now{};
    CHECK_EQUAL(pthread_sigmask(SIG_BLOCK, nullptr, &now), 0);
    for (int number = 1; number <= SIGRTMAX; ++number) {
      CHECK_EQUAL(sigismember(&now, number), sigismember(&mask, number));
    }
    check::sleep_ns(check::kMillisecond);
  }
}

void masks() {
  std::vector<std::thread> threads;
  for (int index = 0; index < 3; ++index) {
    threads.emplace_back(mask_body, index);
  }
  check::ready();
  for (std::thread& thread : threads) {
    thread.join();
  }
}

constexpr std::size_t kStackBytes = 128 * 1024;
thread_local stack_t own_stack{};
std::atomic<int> altstack_rounds{0};

/// Works for a while on the alternate stack, where most moves should find it.
void altstack_handler(int) {
  std::array<std::uint64_t, 2000> block{};
  const auto here = reinterpret_cast<std::uintptr_t>(block.data());
  const auto low = reinterpret_cast<std::uintptr_t>(own_stack.ss_sp);
  CHECK(here >= low && here < low + kStackBytes);
  check::Random random(here);
  for (std::uint64_t& word : block) {
    word = random.next();
  }
  const std::int64_t end = check::now_ns() + 50 * check::kMillisecond;
  while (check::now_ns() < end) {
    check::Random again(here);
    for (const std::uint64_t word : block) {
      CHECK_EQUAL(word, again.next());
    }
    stack_t now{};
    called(::sigaltstack(nullptr, &now), "sigaltstack");
    CHECK_EQUAL(now.ss_sp, own_stack.ss_sp);
    CHECK_EQUAL(now.ss_size, kStackBytes);
    CHECK_EQUAL(now.ss_flags & SS_ONSTACK, SS_ONSTACK);
  }
  ++altstack_rounds;
}

void altstack_body() {
  own_stack.ss_sp = check::map_memory(kStackBytes);
  own_stack.ss_size = kStackBytes;
  called(::sigaltstack(&own_stack, nullptr), "sigaltstack");
  while (!stopping()) {
    pthread_kill(pthread_self(), SIGUSR1);
    stack_t now{};
    called(::sigaltstack(nullptr, &now), "sigaltstack");
    CHECK_EQUAL(now.ss_sp, own_stack.ss_sp);
    CHECK_EQUAL(now.ss_flags, 0);
  }
}

void altstack() {
  struct sigaction action {};
  action.sa_handler = altstack_handler;
  action.sa_flags = SA_ONSTACK;
  called(::sigaction(SIGUSR1, &action, nullptr), "sigaction");
  check::ready();
  std::thread other(altstack_body);
  altstack_body();
  other.join();
  CHECK(altstack_rounds > 0);
}

constexpr int kQueued = 10;

void queue_signals(int process_signal, int thread_signal, int base) {
  for (int index = 0; index < kQueued; ++index) {
    const sigval value{.sival_int = base + index};
    called(::sigqueue(::getpid(), process_signal, value), "sigqueue");
    CHECK_EQUAL(pthread_sigqueue(pthread_self(), thread_signal, value), 0);
  }
}

void expect_queued(int number, int base) {
  sigset_t wanted{};
  sigemptyset(&wanted);
  sigaddset(&wanted, number);
  const timespec no_time{};
  for (int index = 0; index < kQueued; ++index) {
    siginfo_t info{};
    CHECK_EQUAL(::sigtimedwait(&wanted, &info, &no_time), number);
    CHECK_EQUAL(info.si_code, SI_QUEUE);
    CHECK_EQUAL(info.si_value.sival_int, base + index);
    CHECK_EQUAL(info.si_pid, ::getpid());
    CHECK_EQUAL(info.si_uid, ::getuid());
  }
  siginfo_t info{};
  CHECK_EQUAL(::sigtimedwait(&wanted, &info, &no_time), -1);
  CHECK_EQUAL(errno, EAGAIN);
}

/// Each thread has signals of its own pending, and a number of its own of the process's.
void pending_body(int index) {
  const int process_signal = SIGRTMIN + 2 * index;
  const int thread_signal = SIGRTMIN + 2 * index + 1;
  for (int base = 0; !stopping(); base += kQueued) {
    queue_signals(process_signal, thread_signal, base);
    check::sleep_ns(70 * check::kMillisecond);
    expect_queued(process_signal, base);
    expect_queued(thread_signal, base);
  }
}

void pending() {
  sigset_t blocked{};
  sigfillset(&blocked);
  sigprocmask(SIG_BLOCK, &blocked, nullptr);
  called(::kill(::getpid(), SIGUSR2), "kill");  // Stays pending from beginning to end.
  check::ready();
  std::thread first(pending_body, 1);
  std::thread second(pending_body, 2);
  pending_body(0);
  first.join();
  second.join();
  sigset_t usr2{};
  sigemptyset(&usr2);
  sigaddset(&usr2, SIGUSR2);
  siginfo_t info{};
  const timespec no_time{};
  CHECK_EQUAL(::sigtimedwait(&usr2, &info, &no_time), SIGUSR2);
  CHECK_EQUAL(info.si_code, SI_USER);
  CHECK_EQUAL(info.si_pid, ::getpid());
}

std::atomic<int> delivered{0};
std::atomic<bool> receiver_ready{false};
std::atomic<bool> receiver_done{false};
thread_local bool is_receiver = false;

void delivery_handler(int, siginfo_t* info, void*) {
  CHECK(is_receiver);
  CHECK_EQUAL(info->si_value.sival_int, delivered.load());
  ++delivered;
}

/// Signals sent without pause from thread to thread: each arrives once, in order, at its thread.
void delivery() {
  struct sigaction action {};
  action.sa_sigaction = delivery_handler;
  action.sa_flags = SA_SIGINFO | SA_RESTART;
  called(::sigaction(SIGRTMIN, &action, nullptr), "sigaction");
  std::thread receiver([] {
    is_receiver = true;
    receiver_ready = true;
    while (!receiver_done) {
      check::sleep_ns(check::kMillisecond);
    }
  });
  while (!receiver_ready) {
    check::sleep_ns(check::kMillisecond);
  }
  check::ready();
  int sent = 0;
  while (!stopping()) {
    if (sent - delivered.load() > 50) {
      // A short sleep and no yield: two such programs in one session (one autogroup), polling with
      // sched_yield, take all of both processors for 20 s on Linux 6.18, and no daemon runs.
      check::sleep_ns(check::kMillisecond / 10);
      continue;
    }
    const sigval value{.sival_int = sent};
    CHECK_EQUAL(pthread_sigqueue(receiver.native_handle(), SIGRTMIN, value), 0);
    ++sent;
  }
  const std::int64_t end = check::now_ns() + 10 * check::kSecond;
  while (delivered < sent && check::now_ns() < end) {
    check::sleep_ns(check::kMillisecond);
  }
  receiver_done = true;
  receiver.join();
  CHECK_EQUAL(delivered.load(), sent);
  CHECK(sent > 0);
}

std::atomic<int> outside{0};
void outside_handler(int) {
  ++outside;
}

/// Counts SIGUSR1 and real-time signals from outside, and says so at the end for the test to
/// compare.
void count() {
  struct sigaction action {};
  action.sa_handler = outside_handler;
  action.sa_flags = SA_RESTART;
  called(::sigaction(SIGUSR1, &action, nullptr), "sigaction");
  called(::sigaction(SIGRTMIN + 1, &action, nullptr), "sigaction");
  check::ready();
  int told = 0;
  while (!stopping()) {
    for (const int now = outside; told < now;) {
      check::say(("signal " + std::to_string(++told) + "\n").c_str());
    }
    check::sleep_ns(check::kMillisecond);
  }
  check::say(("signals " + std::to_string(outside.load()) + "\n").c_str());
}

constexpr check::Property kProperties[] = {
    {"dispositions", dispositions}, {"masks", masks},       {"altstack", altstack},
    {"pending", pending},           {"delivery", delivery}, {"count", count},
};

}  // namespace

int main(int argc, char** argv) {
  return check::main(argc, argv, kProperties);
}
