#include "base/giving_way.h"

#include <fcntl.h>
#include <sys/prctl.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <charconv>
#include <chrono>
#include <thread>

namespace migrate {
namespace {

// Long enough that who waits gets the processor, which he keeps then for as long as the kernel
// likes.
constexpr std::chrono::microseconds kPause{100};
// Of work between two looks, which takes a part of a millisecond.
constexpr std::size_t kPieceBytes = std::size_t{256} << 10U;

unsigned online_processors() {
  static const auto kOnline = static_cast<unsigned>(std::max(::sysconf(_SC_NPROCESSORS_ONLN), 1L));
  return kOnline;
}

}  // namespace

GivingWay::GivingWay(bool hurries)
    : load_(hurries ? -1 : ::open("/proc/loadavg", O_RDONLY | O_CLOEXEC)) {}

// "0.20 0.18 0.12 1/80 11206": the fourth is those that run or want to.
bool GivingWay::is_crowded(std::string_view load, unsigned processors) {
  for (int word = 0; word < 3; ++word) {
    const std::size_t blank = load.find(' ');
    if (blank == std::string_view::npos) {
      return false;
    }
    load.remove_prefix(blank + 1);
  }
  unsigned wanting = 0;
  const auto [end, bad] = std::from_chars(load.data(), load.data() + load.size(), wanting);
  return bad == std::errc() && end != load.data() + load.size() && *end == '/' &&
         wanting > processors;
}

void GivingWay::worked(std::size_t bytes) {
  since_look_ += bytes;
  if (!load_.valid() || since_look_ < kPieceBytes) {
    return;
  }
  since_look_ = 0;
  std::array<char, 128> text{};
  const ssize_t length = ::pread(load_.get(), text.data(), text.size(), 0);
  crowded_ = length > 0 &&
             is_crowded({text.data(), static_cast<std::size_t>(length)}, online_processors());
  if (crowded_) {
    std::this_thread::sleep_for(kPause);
  }
}

}  // namespace migrate
