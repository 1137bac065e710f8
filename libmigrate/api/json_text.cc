#include "libmigrate/api/json_text.h"

#include <charconv>
#include <cstddef>

namespace migrate::client {
namespace {

constexpr int kMaxDepth = 64;

/// A cursor over JSON text; every reader returns false at the first thing that is not JSON.
class Cursor {
 public:
  explicit Cursor(std::string_view text) : text_(text) {}

  std::size_t position() const { return position_; }
  void skip_space() {
    while (position_ < text_.size() &&
           std::string_view(" \t\r\n").find(text_[position_]) != std::string_view::npos) {
      ++position_;
    }
  }
  bool take(char wanted) {
    skip_space();
    if (position_ < text_.size() && text_[position_] == wanted) {
      ++position_;
      return true;
    }
    return false;
  }
  bool at(char wanted) {
    skip_space();
    return position_ < text_.size() && text_[position_] == wanted;
  }
  bool read_string(std::string* out);
  bool skip_value(int depth = 0);

 private:
  bool read_escape(std::string* out);
  bool read_hex4(unsigned* value);
  bool skip_container(char close, bool is_object, int depth);

  std::string_view text_;
  std::size_t position_ = 0;
};

void append_utf8(std::string& out, unsigned code) {
  const auto add = [&out](unsigned byte) { out.push_back(static_cast<char>(byte)); };
  if (code < 0x80) {
    add(code);
  } else if (code < 0x800) {
    add(0xC0U | (code >> 6U));
    add(0x80U | (code & 0x3FU));
  } else if (code < 0x10000) {
    add(0xE0U | (code >> 12U));
    add(0x80U | ((code >> 6U) & 0x3FU));
    add(0x80U | (code & 0x3FU));
  } else {
    add(0xF0U | (code >> 18U));
    add(0x80U | ((code >> 12U) & 0x3FU));
    add(0x80U | ((code >> 6U) & 0x3FU));
    add(0x80U | (code & 0x3FU));
  }
}

bool Cursor::read_hex4(unsigned* value) {
  if (text_.size() - position_ < 4) {
    return false;
  }
  const char* begin = text_.data() + position_;
  const auto parsed = std::from_chars(begin, begin + 4, *value, 16);
  position_ += 4;
  return parsed.ec == std::errc() && parsed.ptr == begin + 4;
}

bool Cursor::read_escape(std::string* out) {
  if (position_ >= text_.size()) {
    return false;
  }
  const char kind = text_[position_++];
  if (kind == 'u') {
    unsigned code = 0;
    if (!read_hex4(&code)) {
      return false;
    }
    if (code >= 0xD800 && code < 0xDC00 && text_.substr(position_, 2) == "\\u") {
      position_ += 2;
      unsigned low = 0;
      if (!read_hex4(&low) || low < 0xDC00 || low > 0xDFFF) {
        return false;
      }
      code = 0x10000 + ((code - 0xD800) << 10U) + (low - 0xDC00);
    }
    append_utf8(*out, code);
    return true;
  }
  constexpr std::string_view kKinds = "\"\\/bfnrt";
  constexpr std::string_view kMeanings = "\"\\/\b\f\n\r\t";
  const std::size_t index = kKinds.find(kind);
  if (index == std::string_view::npos) {
    return false;
  }
  out->push_back(kMeanings[index]);
  return true;
}

bool Cursor::read_string(std::string* out) {
  if (!take('"')) {
    return false;
  }
  while (position_ < text_.size()) {
    const char next = text_[position_++];
    if (next == '"') {
      return true;
    }
    if (next != '\\') {
      out->push_back(next);
    } else if (!read_escape(out)) {
      return false;
    }
  }
  return false;
}

bool Cursor::skip_container(char close, bool is_object, int depth) {
  if (take(close)) {
    return true;
  }
  do {
    std::string name;
    if (is_object && (!read_string(&name) || !take(':'))) {
      return false;
    }
    if (!skip_value(depth + 1)) {
      return false;
    }
  } while (take(','));
  return take(close);
}

bool Cursor::skip_value(int depth) {
  if (depth > kMaxDepth) {
    return false;
  }
  if (at('"')) {
    std::string ignored;
    return read_string(&ignored);
  }
  if (take('{')) {
    return skip_container('}', true, depth);
  }
  if (take('[')) {
    return skip_container(']', false, depth);
  }
  const std::size_t begin = position_;
  while (position_ < text_.size() &&
         std::string_view(",]} \t\r\n").find(text_[position_]) == std::string_view::npos) {
    ++position_;
  }
  return position_ > begin;
}

}  // namespace

std::string quote(std::string_view text) {
  constexpr std::string_view kHex = "0123456789abcdef";
  std::string out = "\"";
  for (const char next : text) {
    const auto byte = static_cast<unsigned char>(next);
    if (next == '"' || next == '\\') {
      out.push_back('\\');
      out.push_back(next);
    } else if (byte < 0x20) {
      out += "\\u00";
      out.push_back(kHex[byte >> 4U]);
      out.push_back(kHex[byte & 0xFU]);
    } else {
      out.push_back(next);
    }
  }
  out.push_back('"');
  return out;
}

std::optional<std::string_view> ObjectScanner::raw(std::string_view name) const {
  Cursor cursor(object_);
  if (!cursor.take('{') || cursor.take('}')) {
    return std::nullopt;
  }
  do {
    std::string found;
    if (!cursor.read_string(&found) || !cursor.take(':')) {
      return std::nullopt;
    }
    cursor.skip_space();
    const std::size_t begin = cursor.position();
    if (!cursor.skip_value()) {
      return std::nullopt;
    }
    if (found == name) {
      return object_.substr(begin, cursor.position() - begin);
    }
  } while (cursor.take(','));
  return std::nullopt;
}

std::optional<std::string> ObjectScanner::string(std::string_view name) const {
  const std::optional<std::string_view> value = raw(name);
  std::string text;
  if (!value || !Cursor(*value).read_string(&text)) {
    return std::nullopt;
  }
  return text;
}

std::optional<long> ObjectScanner::integer(std::string_view name) const {
  const std::optional<std::string_view> value = raw(name);
  long number = 0;
  if (!value) {
    return std::nullopt;
  }
  const char* end = value->data() + value->size();
  const auto parsed = std::from_chars(value->data(), end, number);
  if (parsed.ec != std::errc() || parsed.ptr != end) {
    return std::nullopt;
  }
  return number;
}

std::optional<double> ObjectScanner::number(std::string_view name) const {
  const std::optional<std::string_view> value = raw(name);
  double number = 0;
  if (!value) {
    return std::nullopt;
  }
  const char* end = value->data() + value->size();
  const auto parsed = std::from_chars(value->data(), end, number);
  if (parsed.ec != std::errc() || parsed.ptr != end) {
    return std::nullopt;
  }
  return number;
}

std::vector<std::string_view> ObjectScanner::elements(std::string_view name) const {
  std::vector<std::string_view> found;
  const std::optional<std::string_view> array = raw(name);
  if (!array) {
    return found;
  }
  Cursor cursor(*array);
  if (!cursor.take('[') || cursor.take(']')) {
    return found;
  }
  do {
    cursor.skip_space();
    const std::size_t begin = cursor.position();
    if (!cursor.skip_value()) {
      break;
    }
    found.push_back(array->substr(begin, cursor.position() - begin));
  } while (cursor.take(','));
  return found;
}

std::string ObjectScanner::without(std::string_view first, std::string_view second) const {
  std::string out = "{";
  Cursor cursor(object_);
  if (!cursor.take('{') || cursor.at('}')) {
    return "{}";
  }
  do {
    cursor.skip_space();
    const std::size_t begin = cursor.position();
    std::string name;
    if (!cursor.read_string(&name) || !cursor.take(':') || !cursor.skip_value()) {
      break;
    }
    if (name != first && name != second) {
      out += out.size() > 1 ? "," : "";
      out += object_.substr(begin, cursor.position() - begin);
    }
  } while (cursor.take(','));
  return out + "}";
}

}  // namespace migrate::client
