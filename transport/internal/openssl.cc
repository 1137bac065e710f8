#include "transport/internal/openssl.h"

#include <openssl/err.h>

#include <utility>

namespace migrate {

std::string take_openssl_error() {
  const unsigned long code = ::ERR_get_error();
  ::ERR_clear_error();
  if (code == 0) {
    return "no reason given by OpenSSL";
  }
  const char* reason = ::ERR_reason_error_string(code);
  return reason != nullptr ? reason : "OpenSSL error " + std::to_string(code);
}

Error openssl_error(ErrorCode code, const char* operation, std::string object,
                    const std::string& advice) {
  std::string text = take_openssl_error();
  if (!advice.empty()) {
    text += "; " + advice;
  }
  return make_error(code, operation, std::move(object), std::move(text));
}

}  // namespace migrate
