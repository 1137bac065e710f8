#pragma once

#include <optional>
#include <string>
#include <string_view>
#include <vector>

/// Just enough JSON for the client library, which has no third-party dependency.
namespace migrate::client {

/// `text` as a JSON string, quotes included.
std::string quote(std::string_view text);

/// Reads the members of one JSON object without building a tree. The text is borrowed and must
/// outlive the scanner. Const-thread-safe.
class ObjectScanner {
 public:
  explicit ObjectScanner(std::string_view object) : object_(object) {}

  /// The text of a member's value as it stands, or nothing if there is none or the JSON is broken.
  std::optional<std::string_view> raw(std::string_view name) const;
  /// A member that is a string, unescaped.
  std::optional<std::string> string(std::string_view name) const;
  /// A member that is a whole number.
  std::optional<long> integer(std::string_view name) const;
  /// The texts of the elements of a member that is an array; none if it is not.
  std::vector<std::string_view> elements(std::string_view name) const;
  /// A member that is a number.
  std::optional<double> number(std::string_view name) const;
  /// The object's text without the named members, for reports.
  std::string without(std::string_view first, std::string_view second) const;

 private:
  std::string_view object_;
};

}  // namespace migrate::client
