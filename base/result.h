#pragma once

#include <tl/expected.hpp>
#include <type_traits>
#include <utility>

#include "base/error.h"

namespace migrate {

/// A value or an Error; the shape of C++23's std::expected.
template <class T = void>
using Result = tl::expected<T, Error>;

/// `return fail(...)` from a function that returns a Result.
inline tl::unexpected<Error> fail(Error error) {
  return tl::unexpected<Error>(std::move(error));
}

}  // namespace migrate

/// Evaluates a Result; yields its value, or returns its Error from the enclosing function.
#define MIGRATE_TRY(expression) MIGRATE_TRY_NAMED_(expression, __COUNTER__)
// One more step, so that nested uses get names of their own.
#define MIGRATE_TRY_NAMED_(expression, number) MIGRATE_TRY_AS_(expression, number)
#define MIGRATE_TRY_AS_(expression, number)                               \
  __extension__({                                                         \
    auto migrate_result_##number = (expression);                          \
    if (!migrate_result_##number) {                                       \
      return ::migrate::fail(std::move(migrate_result_##number).error()); \
    }                                                                     \
    ::migrate::detail::take(std::move(migrate_result_##number));          \
  })

namespace migrate::detail {
template <class T>
T take(Result<T>&& result) {
  if constexpr (!std::is_void_v<T>) {
    return std::move(*result);
  }
}
}  // namespace migrate::detail
