#include "base/error.h"

#include <fmt/core.h>

#include <cerrno>
#include <system_error>
#include <utility>

namespace migrate {
namespace {

ErrorCode classify(int sys_errno) {
  switch (sys_errno) {
    case EAGAIN:
    case EINTR:
      return ErrorCode::kRetry;
    case EPIPE:
    case ECONNRESET:
    case ECONNREFUSED:
    case ECONNABORTED:
    case ETIMEDOUT:
    case EHOSTUNREACH:
    case ENETUNREACH:
    case ENETDOWN:
      return ErrorCode::kPeerLost;
    case ENOENT:
    case ESRCH:
      return ErrorCode::kNotFound;
    default:
      return ErrorCode::kSystem;
  }
}

}  // namespace

std::string_view to_string(ErrorCode code) {
  switch (code) {
    case ErrorCode::kRetry:
      return "try again";
    case ErrorCode::kBusy:
      return "busy";
    case ErrorCode::kPeerLost:
      return "peer lost";
    case ErrorCode::kUnsupported:
      return "not supported";
    case ErrorCode::kCorrupt:
      return "malformed";
    case ErrorCode::kInvalid:
      return "invalid";
    case ErrorCode::kNotFound:
      return "not found";
    case ErrorCode::kRefused:
      return "refused";
    case ErrorCode::kCancelled:
      return "cancelled";
    case ErrorCode::kSystem:
      return "failed";
  }
  return "unknown";
}

std::string Error::message() const {
  std::string text = operation;
  if (!object.empty()) {
    text += ' ';
    text += object;
  }
  if (address != 0) {
    text += fmt::format(" at {:#x}", address);
  }
  text += ": ";
  if (sys_errno != 0) {
    text += std::generic_category().message(sys_errno);
  } else {
    text += to_string(code);
  }
  if (!remedy.empty()) {
    text += "; ";
    text += remedy;
  }
  return text;
}

Error system_error_from(int sys_errno, const char* operation, std::string object,
                        std::string remedy) {
  return Error{classify(sys_errno), sys_errno, operation, 0, std::move(object), std::move(remedy)};
}

Error system_error(const char* operation, std::string object, std::string remedy) {
  return system_error_from(errno, operation, std::move(object), std::move(remedy));
}

Error make_error(ErrorCode code, const char* operation, std::string object, std::string remedy) {
  return Error{code, 0, operation, 0, std::move(object), std::move(remedy)};
}

}  // namespace migrate
