#include "transport/keys.h"

#include <fcntl.h>
#include <openssl/err.h>
#include <openssl/pem.h>
#include <openssl/rand.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <tuple>

#include "base/file.h"
#include "transport/internal/openssl.h"
#include "transport/internal/tls_identity.h"

namespace migrate {
namespace {

constexpr const char* kAuthorityName = "libmigrate authority";
// So that a certificate holds at once on hosts whose clocks are a little behind.
constexpr long kBackdateSeconds = 3600;
constexpr std::size_t kMaxNameLength = 64;  // of a common name, X.520

Error failed(const char* operation, const std::string& object) {
  return openssl_error(ErrorCode::kSystem, operation, object);
}

bool valid_name(const std::string& name) {
  return !name.empty() && name.size() <= kMaxNameLength && name.front() != '.' &&
         name.front() != '-' && std::all_of(name.begin(), name.end(), [](char c) {
           return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') ||
                  std::string_view(".-_:").find(c) != std::string_view::npos;
         });
}

/// Writes a new file that only its owner may read.
Result<void> write_secret(const std::string& path, BIO* content) {
  auto file = open_file(path, O_CREAT | O_EXCL | O_WRONLY, 0600);
  if (!file) {
    if (file.error().sys_errno == EEXIST) {
      return fail(make_error(ErrorCode::kRefused, "write", path,
                             "it is there already; remove it if you mean to replace it"));
    }
    return fail(std::move(file).error());
  }
  char* data = nullptr;
  const long size = BIO_get_mem_data(content, &data);
  auto written =
      write_all(file->get(), std::as_bytes(std::span(data, static_cast<std::size_t>(size))));
  if (written && ::fsync(file->get()) != 0) {
    written = fail(system_error("write", path));
  }
  if (!written) {
    std::ignore = ::unlink(path.c_str());
  }
  return written;
}

Result<void> write_pair(const KeyFiles& files, X509* certificate, EVP_PKEY* key) {
  const UniqueBio key_text(::BIO_new(::BIO_s_secmem()));
  const UniqueBio certificate_text(::BIO_new(::BIO_s_mem()));
  if (!key_text || !certificate_text ||
      ::PEM_write_bio_PKCS8PrivateKey(key_text.get(), key, nullptr, nullptr, 0, nullptr, nullptr) !=
          1 ||
      ::PEM_write_bio_X509(certificate_text.get(), certificate) != 1) {
    return fail(failed("encode", files.certificate));
  }
  MIGRATE_TRY(write_secret(files.key, key_text.get()));
  auto written = write_secret(files.certificate, certificate_text.get());
  if (!written) {
    std::ignore = ::unlink(files.key.c_str());
  }
  return written;
}

bool add_extension(X509* certificate, X509* issuer, int kind, const char* value) {
  X509V3_CTX context;
  X509V3_set_ctx_nodb(&context);
  ::X509V3_set_ctx(&context, issuer, certificate, nullptr, nullptr, 0);
  const std::unique_ptr<X509_EXTENSION, OpensslFree<X509_EXTENSION_free>> extension(
      ::X509V3_EXT_conf_nid(nullptr, &context, kind, value));
  return extension && ::X509_add_ext(certificate, extension.get(), -1) == 1;
}

bool set_random_serial(X509* certificate) {
  const std::unique_ptr<BIGNUM, OpensslFree<BN_free>> number(::BN_new());
  return number && ::BN_rand(number.get(), 126, BN_RAND_TOP_ONE, BN_RAND_BOTTOM_ANY) == 1 &&
         ::BN_to_ASN1_INTEGER(number.get(), ::X509_get_serialNumber(certificate)) != nullptr;
}

/// A certificate for `key` with name, number and dates, without issuer, extensions and signature.
UniqueCertificate draft_certificate(const std::string& name, EVP_PKEY* key, int days) {
  UniqueCertificate certificate(::X509_new());
  if (!certificate || ::X509_set_version(certificate.get(), X509_VERSION_3) != 1 ||
      !set_random_serial(certificate.get()) ||
      ::X509_gmtime_adj(::X509_getm_notBefore(certificate.get()), -kBackdateSeconds) == nullptr ||
      ::X509_time_adj_ex(::X509_getm_notAfter(certificate.get()), days, 0, nullptr) == nullptr ||
      ::X509_set_pubkey(certificate.get(), key) != 1 ||
      ::X509_NAME_add_entry_by_txt(::X509_get_subject_name(certificate.get()), "CN", MBSTRING_UTF8,
                                   reinterpret_cast<const unsigned char*>(name.data()),
                                   static_cast<int>(name.size()), -1, 0) != 1) {
    return nullptr;
  }
  return certificate;
}

UniqueKey make_key() {
  return UniqueKey(::EVP_PKEY_Q_keygen(nullptr, nullptr, "EC", "P-256"));
}

KeyFiles files_of(const std::string& directory, const std::string& name) {
  return {directory + "/" + name + ".crt", directory + "/" + name + ".key"};
}

/// Reads one object from a PEM file with one of OpenSSL's readers.
template <class Unique, class Reader>
Result<Unique> read_pem(const std::string& path, Reader reader) {
  auto text = read_file(path);
  if (!text) {
    if (text.error().code == ErrorCode::kNotFound) {
      text.error().remedy = "make an authority first with migratectl keys init";
    }
    return fail(std::move(text).error());
  }
  ::ERR_clear_error();
  // NOLINTNEXTLINE(clang-analyzer-cplusplus.InnerPointer): the string does not change meanwhile.
  const UniqueBio bio(::BIO_new_mem_buf(text->data(), static_cast<int>(text->size())));
  Unique object(bio ? reader(bio.get(), nullptr, nullptr, nullptr) : nullptr);
  ::OPENSSL_cleanse(text->data(), text->size());
  if (!object) {
    return fail(openssl_error(ErrorCode::kCorrupt, "read", path));
  }
  return object;
}

Result<std::string> alternative_names_of(const std::string& host,
                                         const std::vector<std::string>& more) {
  std::vector<std::string> names{host};
  names.insert(names.end(), more.begin(), more.end());
  std::string text;
  for (const std::string& name : names) {
    const bool numeric = is_numeric_address(name);
    if (!valid_name(name) || (!numeric && name.find(':') != std::string::npos)) {
      return fail(make_error(ErrorCode::kInvalid, "make certificate for", name,
                             "give a host name or numeric address of at most 64 characters"));
    }
    text += (text.empty() ? "" : ",") + std::string(numeric ? "IP:" : "DNS:") + name;
  }
  return text;
}

}  // namespace

Result<KeyFiles> create_ca(const std::string& directory) {
  ::ERR_clear_error();
  if (::mkdir(directory.c_str(), 0700) != 0 && errno != EEXIST) {
    return fail(system_error("make directory", directory));
  }
  const KeyFiles files = files_of(directory, "ca");
  const UniqueKey key = make_key();
  if (!key) {
    return fail(failed("make key", files.key));
  }
  const UniqueCertificate certificate =
      draft_certificate(kAuthorityName, key.get(), kAuthorityDays);
  X509* ca = certificate.get();
  if (ca == nullptr || ::X509_set_issuer_name(ca, ::X509_get_subject_name(ca)) != 1 ||
      !add_extension(ca, ca, NID_basic_constraints, "critical,CA:TRUE,pathlen:0") ||
      !add_extension(ca, ca, NID_key_usage, "critical,keyCertSign,cRLSign") ||
      !add_extension(ca, ca, NID_subject_key_identifier, "hash") ||
      ::X509_sign(ca, key.get(), ::EVP_sha256()) == 0) {
    return fail(failed("make certificate", files.certificate));
  }
  MIGRATE_TRY(write_pair(files, ca, key.get()));
  return files;
}

Result<KeyFiles> create_host_certificate(const std::string& directory, const std::string& host,
                                         const std::vector<std::string>& alternative_names) {
  const std::string names = MIGRATE_TRY(alternative_names_of(host, alternative_names));
  if (host == "ca") {
    return fail(make_error(ErrorCode::kInvalid, "make certificate for", host,
                           "the name would overwrite the authority's files"));
  }
  const KeyFiles authority_files = files_of(directory, "ca");
  const auto authority =
      MIGRATE_TRY(read_pem<UniqueCertificate>(authority_files.certificate, ::PEM_read_bio_X509));
  const auto authority_key =
      MIGRATE_TRY(read_pem<UniqueKey>(authority_files.key, ::PEM_read_bio_PrivateKey));
  if (::X509_check_private_key(authority.get(), authority_key.get()) != 1) {
    return fail(openssl_error(ErrorCode::kCorrupt, "use authority", authority_files.key,
                              "it must be the key of " + authority_files.certificate));
  }
  const KeyFiles files = files_of(directory, host);
  const UniqueKey key = make_key();
  if (!key) {
    return fail(failed("make key", files.key));
  }
  const UniqueCertificate certificate = draft_certificate(host, key.get(), kHostDays);
  X509* leaf = certificate.get();
  X509* ca = authority.get();
  if (leaf == nullptr || ::X509_set_issuer_name(leaf, ::X509_get_subject_name(ca)) != 1 ||
      !add_extension(leaf, ca, NID_basic_constraints, "critical,CA:FALSE") ||
      !add_extension(leaf, ca, NID_key_usage, "critical,digitalSignature") ||
      !add_extension(leaf, ca, NID_ext_key_usage, "serverAuth,clientAuth") ||
      !add_extension(leaf, ca, NID_subject_alt_name, names.c_str()) ||
      !add_extension(leaf, ca, NID_subject_key_identifier, "hash") ||
      !add_extension(leaf, ca, NID_authority_key_identifier, "keyid") ||
      ::X509_sign(leaf, authority_key.get(), ::EVP_sha256()) == 0) {
    return fail(failed("make certificate", files.certificate));
  }
  MIGRATE_TRY(write_pair(files, leaf, key.get()));
  return files;
}

}  // namespace migrate
