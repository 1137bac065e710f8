#pragma once

#include <optional>

#include "base/result.h"

namespace migrate::test {

/// The code of an error; nothing where there is none, whose error() must not be asked for.
template <class T>
std::optional<ErrorCode> code_of(const Result<T>& result) {
  return result ? std::nullopt : std::optional(result.error().code);
}

}  // namespace migrate::test
