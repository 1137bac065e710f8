#include "libmigrate/park/internal/parking.h"

#include <gtest/gtest.h>
#include <signal.h>

namespace migrate {
namespace {

std::string signal_of(int number, int code) {
  siginfo_t signal{};
  signal.si_signo = number;
  signal.si_code = code;
  return {reinterpret_cast<const char*>(&signal), sizeof(signal)};
}

TEST(Parking, ASignalIsOfATimerByItsCodeOrAsTheKernelsOwn) {
  EXPECT_TRUE(is_of_timer(signal_of(SIGUSR1, SI_TIMER)));
  for (const int number : {SIGALRM, SIGVTALRM, SIGPROF}) {
    EXPECT_TRUE(is_of_timer(signal_of(number, SI_KERNEL)));
    EXPECT_FALSE(is_of_timer(signal_of(number, SI_USER)));
    EXPECT_FALSE(is_of_timer(signal_of(number, SI_QUEUE)));
  }
  EXPECT_FALSE(is_of_timer(signal_of(SIGSEGV, SI_KERNEL)));
  EXPECT_FALSE(is_of_timer(""));  // Short bytes are no signal.
}

TEST(Parking, TheLeaderTakesTheSignalsOfTheProcessAndItsOwn) {
  wire::ProcessImage image;
  image.add_pending_signals("of the process");
  image.add_threads()->add_pending_signals("of the leader");
  image.add_threads()->add_pending_signals("of another");
  EXPECT_EQ(captured_signals(image), (std::vector<std::string>{"of the process", "of the leader"}));
}

TEST(Parking, AThreadIsFoundByItsId) {
  wire::ProcessImage image;
  image.add_threads()->set_id(7);
  image.add_threads()->set_id(9);
  EXPECT_EQ(find_thread(image, 9), &image.threads(1));
  EXPECT_EQ(find_thread(image, 8), nullptr);
  EXPECT_EQ(find_thread(wire::ProcessImage(), 0), nullptr);
}

}  // namespace
}  // namespace migrate
