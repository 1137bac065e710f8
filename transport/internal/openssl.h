#pragma once

#include <openssl/bio.h>
#include <openssl/evp.h>
#include <openssl/ssl.h>
#include <openssl/x509.h>
#include <openssl/x509v3.h>

#include <memory>
#include <string>

#include "base/error.h"

namespace migrate {

/// Calls a C function to release an object of OpenSSL's.
template <auto kFree>
struct OpensslFree {
  template <class T>
  void operator()(T* object) const {
    kFree(object);
  }
};

using UniqueSsl = std::unique_ptr<SSL, OpensslFree<SSL_free>>;
using UniqueSslContext = std::unique_ptr<SSL_CTX, OpensslFree<SSL_CTX_free>>;
using UniqueBio = std::unique_ptr<BIO, OpensslFree<BIO_free>>;
using UniqueBioMethod = std::unique_ptr<BIO_METHOD, OpensslFree<BIO_meth_free>>;
using UniqueKey = std::unique_ptr<EVP_PKEY, OpensslFree<EVP_PKEY_free>>;
using UniqueCertificate = std::unique_ptr<X509, OpensslFree<X509_free>>;

/// The oldest error in the calling thread's queue of OpenSSL errors, in words; clears the queue.
std::string take_openssl_error();

/// An Error whose remedy is take_openssl_error() and, if not empty, `advice`.
Error openssl_error(ErrorCode code, const char* operation, std::string object,
                    const std::string& advice = {});

}  // namespace migrate
