#include <gtest/gtest.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <sys/signalfd.h>
#include <unistd.h>

#include "tests/libmigrate/carriers/hosts.h"

namespace migrate {
namespace {

using Refusals = std::vector<std::string>;

/// A signal mask, which this thread blocks as long as it exists.
class Blocked {
 public:
  explicit Blocked(int signal) {
    ::sigemptyset(&mask);
    ::sigaddset(&mask, signal);
    ::pthread_sigmask(SIG_BLOCK, &mask, &before_);
  }
  Blocked(const Blocked&) = delete;
  Blocked& operator=(const Blocked&) = delete;
  ~Blocked() { ::pthread_sigmask(SIG_SETMASK, &before_, nullptr); }

  sigset_t mask{};

 private:
  sigset_t before_{};
};

TEST(SignalfdCarrier, IsMadeWithItsMaskAndFlags) {
  const Blocked blocked(SIGUSR2);
  const UniqueFd signals(::signalfd(-1, &blocked.mask, SFD_NONBLOCK));
  test::Source source;
  ASSERT_EQ(source.find(signals.get()), 0);
  EXPECT_EQ(source.file(0).kind(), wire::OpenFile::SIGNALFD);
  EXPECT_EQ(source.file(0).signal_mask(), 1ULL << static_cast<unsigned>(SIGUSR2 - 1));
  test::Destination destination(source.objects());
  const auto made = destination.make(source.file(0));
  ASSERT_TRUE(made);
  EXPECT_EQ(test::description(made->get()), test::description(signals.get()));
  ASSERT_EQ(::pthread_kill(::pthread_self(), SIGUSR2), 0);
  signalfd_siginfo information{};
  ASSERT_EQ(::read(made->get(), &information, sizeof information),
            static_cast<ssize_t>(sizeof information));
  EXPECT_EQ(information.ssi_signo, static_cast<std::uint32_t>(SIGUSR2));
}

TEST(SignalfdCarrier, AnyMaskOfAPeersCanBeMade) {
  wire::Objects objects;
  wire::OpenFile& file = *objects.add_files();
  file.set_kind(wire::OpenFile::SIGNALFD);
  for (const std::uint64_t mask : {0ULL, ~0ULL, 1ULL}) {
    file.set_signal_mask(mask);
    EXPECT_EQ(test::flaw_in(objects), "");
    test::Destination destination(objects);
    EXPECT_TRUE(destination.make(file)) << mask;
  }
}

TEST(SignalfdCarrier, WithoutItsMaskItIsRefused) {
  test::Source source;
  wire::OpenFile file;
  EXPECT_FALSE(source.find({.number = 3, .link = "anon_inode:[signalfd]"}, file));
  EXPECT_EQ(source.refusals(), Refusals{"UNKNOWN_DESCRIPTOR"});
}

TEST(SignalfdCarrier, HasNoStateThatOthersShare) {
  EXPECT_EQ(carriers::carrier_of(wire::OpenFile::SIGNALFD).has_state, nullptr);
}

}  // namespace
}  // namespace migrate
