#pragma once

#include <nlohmann/json.hpp>
#include <string>

namespace migrate {

/// Shows a move while it goes on: one line that is written over on a terminal, else a line per
/// phase. Owned by one thread.
class Progress {
 public:
  enum class Style { kSilent, kLines, kTerminal };

  explicit Progress(Style style) : style_(style) {}

  /// Takes note of a phase or progress event; others are ignored.
  void show(const nlohmann::json& event);
  /// Takes the line off the terminal, before anything else is printed.
  void clear();
  /// Whether the process has been told to run at the destination: the source will not run again.
  bool committed() const { return committed_; }

 private:
  void draw(const std::string& line);

  Style style_;
  bool committed_ = false;
  bool drawn_ = false;
  std::string phase_;
  std::string phases_;  ///< Of the attempt that is made.
};

}  // namespace migrate
