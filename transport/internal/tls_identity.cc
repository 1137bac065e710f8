#include "transport/internal/tls_identity.h"

#include <arpa/inet.h>

#include <algorithm>
#include <array>
#include <cstring>

namespace migrate {
namespace {

using UniqueNames = std::unique_ptr<GENERAL_NAMES, OpensslFree<GENERAL_NAMES_free>>;

std::string text_of(const ASN1_STRING* string) {
  return std::string(reinterpret_cast<const char*>(::ASN1_STRING_get0_data(string)),
                     static_cast<std::size_t>(::ASN1_STRING_length(string)));
}

std::string address_of(const ASN1_OCTET_STRING* bytes) {
  std::array<char, INET6_ADDRSTRLEN> text{};
  const int family = ::ASN1_STRING_length(bytes) == 4 ? AF_INET : AF_INET6;
  if (family == AF_INET6 && ::ASN1_STRING_length(bytes) != 16) {
    return {};
  }
  ::inet_ntop(family, ::ASN1_STRING_get0_data(bytes), text.data(), text.size());
  return text.data();
}

/// Names for people. Nobody has vouched for them yet, so they must not upset a log.
std::string listed(const std::vector<std::string>& names) {
  constexpr std::size_t kMaxShown = 400;
  std::string text;
  for (const std::string& name : names) {
    text += (text.empty() ? "" : ", ") + name;
  }
  text.resize(std::min(text.size(), kMaxShown));
  std::replace_if(
      text.begin(), text.end(), [](char c) { return c < ' ' || c > '~'; }, '?');
  return text.empty() ? "no name" : text;
}

std::string why_another_host(const X509* certificate, const std::string& expected) {
  return "it is for " + listed(identity_of(certificate).alternative_names) + ", not for " +
         expected + ", which was asked for; use a name that it is for, or make that host a " +
         "certificate that has this one too: migratectl keys add-host HOST --also " + expected;
}

}  // namespace

PeerIdentity identity_of(const X509* certificate) {
  PeerIdentity identity;
  if (certificate == nullptr) {
    return identity;
  }
  const X509_NAME* subject = ::X509_get_subject_name(certificate);
  const int position = ::X509_NAME_get_index_by_NID(subject, NID_commonName, -1);
  if (position >= 0) {
    identity.common_name =
        text_of(::X509_NAME_ENTRY_get_data(::X509_NAME_get_entry(subject, position)));
  }
  const UniqueNames names(static_cast<GENERAL_NAMES*>(
      ::X509_get_ext_d2i(certificate, NID_subject_alt_name, nullptr, nullptr)));
  const int count = names ? sk_GENERAL_NAME_num(names.get()) : 0;
  for (int i = 0; i < count; ++i) {
    const GENERAL_NAME* name = sk_GENERAL_NAME_value(names.get(), i);
    if (name->type == GEN_DNS) {
      identity.alternative_names.push_back(text_of(name->d.dNSName));
    } else if (name->type == GEN_IPADD) {
      identity.alternative_names.push_back(address_of(name->d.iPAddress));
    }
  }
  return identity;
}

std::string why_not_trusted(const SSL* ssl, const std::string& expected) {
  const long result = ::SSL_get_verify_result(ssl);
  const std::string reason =
      std::string("its certificate is not trusted: ") + ::X509_verify_cert_error_string(result);
  const STACK_OF(X509)* chain = ::SSL_get0_verified_chain(ssl);
  switch (result) {
    case X509_V_ERR_HOSTNAME_MISMATCH:
    case X509_V_ERR_IP_ADDRESS_MISMATCH:
      return reason + ": " +
             why_another_host(chain == nullptr ? nullptr : sk_X509_value(chain, 0), expected);
    case X509_V_ERR_CERT_HAS_EXPIRED:
    case X509_V_ERR_CERT_NOT_YET_VALID:
      return reason + "; make a new one (migratectl keys), or set the hosts' clocks";
    default:
      return reason +
             "; both hosts need certificates of one authority, and its ca.crt (migratectl keys)";
  }
}

bool is_numeric_address(const std::string& host) {
  std::array<unsigned char, sizeof(in6_addr)> unused;
  return ::inet_pton(AF_INET, host.c_str(), unused.data()) == 1 ||
         ::inet_pton(AF_INET6, host.c_str(), unused.data()) == 1;
}

bool expect_host(SSL* ssl, const std::string& host) {
  if (host.empty()) {
    return true;
  }
  if (is_numeric_address(host)) {
    return ::X509_VERIFY_PARAM_set1_ip_asc(::SSL_get0_param(ssl), host.c_str()) == 1;
  }
  return ::SSL_set1_host(ssl, host.c_str()) == 1;
}

}  // namespace migrate
