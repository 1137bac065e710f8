#include "tools/migratectl/progress.h"

#include <fmt/core.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include <cstdio>

#include "pager/page_range.h"
#include "tools/migratectl/print.h"

namespace migrate {
namespace {

std::size_t terminal_width() {
  winsize size = {};
  return ioctl(STDOUT_FILENO, TIOCGWINSZ, &size) == 0 && size.ws_col > 0 ? size.ws_col : 80;
}

}  // namespace

void Progress::show(const nlohmann::json& event) {
  const std::string kind = text_of(event, "event");
  if (kind == "phase") {
    const std::string phase = text_of(event, "phase");
    committed_ = committed_ || phase == "run" || phase == "pages" || phase == "done";
    if (phase == phase_) {  // It is tried again (--retry), many times a second.
      return;
    }
    if (phase == "inspect") {
      phases_.clear();
    }
    phase_ = phase;
    if (style_ == Style::kLines) {
      fmt::print("{:<8} {:>10}\n", phase, "+" + duration_text(number_of(event, "at_us")));
      (void)std::fflush(stdout);
    }
    phases_ += (phases_.empty() ? "" : " > ") + phase;
    draw(phases_);
  } else if (kind == "progress") {
    draw(fmt::format("{} arrived, {}/s, {} still owed, {} on the wire",
                     bytes_text(number_of(event, "arrived_pages") * kPageBytes),
                     bytes_text(number_of(event, "bytes_per_second")),
                     bytes_text(number_of(event, "owed_pages") * kPageBytes),
                     bytes_text(number_of(event, "wire_bytes"))));
  }
}

void Progress::clear() {
  if (drawn_) {
    fmt::print("\r\033[K");
    (void)std::fflush(stdout);
    drawn_ = false;
  }
}

void Progress::draw(const std::string& line) {
  if (style_ != Style::kTerminal) {
    return;
  }
  fmt::print("\r\033[K{}", line.substr(0, terminal_width() - 1));
  (void)std::fflush(stdout);
  drawn_ = true;
}

}  // namespace migrate
