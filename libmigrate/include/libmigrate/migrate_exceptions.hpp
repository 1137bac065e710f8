/// Exceptions of functions that run elsewhere. Part of migrate.hpp, which programs include.
#pragma once

#include <cxxabi.h>

#include <array>
#include <cstdint>
#include <cstdlib>
#include <exception>
#include <functional>
#include <libmigrate/migrate_codec.hpp>
#include <memory>
#include <new>
#include <optional>
#include <stdexcept>
#include <string>
#include <system_error>
#include <type_traits>
#include <typeinfo>
#include <utility>

namespace migrate {

/// What a function has thrown elsewhere that is no exception of the standard library's.
class remote_error : public std::runtime_error {
 public:
  remote_error(const std::string& what, std::string type)
      : std::runtime_error(what), type_(std::make_shared<const std::string>(std::move(type))) {}
  /// The name of its type, such as "app::diverged".
  const std::string& type() const noexcept { return *type_; }

 private:
  std::shared_ptr<const std::string> type_;  // An exception is copied.
};

namespace detail {

template <class Exception>
[[noreturn]] void throw_again(const std::string& what) {
  if constexpr (std::is_constructible_v<Exception, const std::string&>) {
    throw Exception(what);
  } else {
    throw Exception();
  }
}

struct standard_exception {
  const std::type_info* type;
  void (*throw_again)(const std::string& what);
};
template <class... Exceptions>
auto standard_exceptions_of() {
  return std::array<standard_exception, sizeof...(Exceptions)>{
      {{&typeid(Exceptions), throw_again<Exceptions>}...}};
}
/// Those that are made of their text, or of nothing. Others are remote_error.
inline const auto standard_exceptions =
    standard_exceptions_of<std::logic_error, std::domain_error, std::invalid_argument,
                           std::length_error, std::out_of_range, std::runtime_error,
                           std::range_error, std::overflow_error, std::underflow_error,
                           std::bad_alloc, std::bad_array_new_length, std::bad_cast,
                           std::bad_function_call, std::bad_optional_access, std::exception>();

inline std::string name_of(const std::type_info* type) {
  int status = 0;
  const std::unique_ptr<char, void (*)(void*)> name(
      type == nullptr ? nullptr : abi::__cxa_demangle(type->name(), nullptr, nullptr, &status),
      std::free);
  return name != nullptr ? name.get() : type != nullptr ? type->name() : "an unknown type";
}

/// How an exception travels.
struct thrown {
  std::string type, what;
  std::int32_t standard = -1;  ///< Its place among standard_exceptions.
  std::int32_t code = 0;       ///< Of a std::system_error,
  std::string category;        ///< of this category; else empty.
};

}  // namespace detail

template <>
struct codec<detail::thrown> {
  static void write(encoder& to, const detail::thrown& value) {
    codec<std::string>::write(to, value.type);
    codec<std::string>::write(to, value.what);
    codec<std::int32_t>::write(to, value.standard);
    codec<std::int32_t>::write(to, value.code);
    codec<std::string>::write(to, value.category);
  }
  static detail::thrown read(decoder& from) {
    detail::thrown value;
    value.type = codec<std::string>::read(from);
    value.what = codec<std::string>::read(from);
    value.standard = codec<std::int32_t>::read(from);
    value.code = codec<std::int32_t>::read(from);
    value.category = codec<std::string>::read(from);
    return value;
  }
};

namespace detail {

/// The exception that is being handled.
inline thrown current_thrown() {
  thrown value;
  const std::type_info* const type = abi::__cxa_current_exception_type();
  value.type = name_of(type);
  value.what = "threw " + value.type;
  try {
    throw;
  } catch (const std::system_error& error) {
    value.what = error.what();
    value.code = error.code().value();
    value.category = *type == typeid(std::system_error) ? error.code().category().name() : "";
  } catch (const std::exception& error) {
    value.what = error.what();
  } catch (...) {
  }
  for (std::size_t i = 0; type != nullptr && i < standard_exceptions.size(); ++i) {
    if (*standard_exceptions[i].type == *type) {
      value.standard = static_cast<std::int32_t>(i);
    }
  }
  return value;
}

/// `what` ends with the message of the code, which is put there again.
[[noreturn]] inline void throw_system_error(std::error_code code, std::string what) {
  const std::string message = code.message();
  if (what == message) {
    throw std::system_error(code);
  }
  if (what.ends_with(": " + message)) {
    what.resize(what.size() - message.size() - 2);
  }
  throw std::system_error(code, what);
}

[[noreturn]] inline void rethrow(const thrown& value) {
  if (value.standard >= 0 &&
      value.standard < static_cast<std::int32_t>(standard_exceptions.size())) {
    standard_exceptions[static_cast<std::size_t>(value.standard)].throw_again(value.what);
  }
  for (const std::error_category* each : {&std::generic_category(), &std::system_category()}) {
    if (value.category == each->name()) {
      throw_system_error({value.code, *each}, value.what);
    }
  }
  throw remote_error(value.what, value.type);
}

}  // namespace detail

}  // namespace migrate
