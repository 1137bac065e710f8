#pragma once

#include <string>
#include <vector>

#include "base/result.h"

namespace migrate {

/// How long certificates hold.
inline constexpr int kAuthorityDays = 3650;
inline constexpr int kHostDays = 825;

/// Paths of a certificate and its private key, PEM files of mode 0600.
struct KeyFiles {
  std::string certificate;
  std::string key;
};

/// Makes an authority for a small cluster in `directory` (made with mode 0700 if it is not there):
/// ca.crt, which every host needs, and ca.key, which must not leave the administrator's hands.
/// EC P-256. Never overwrites. Errors: kRefused (there is one already), kNotFound, kSystem.
Result<KeyFiles> create_ca(const std::string& directory);

/// Makes a key and a certificate for `host` (a name or numeric address) in the same `directory`,
/// HOST.crt and HOST.key, signed by its authority, valid as both client and server and for all of
/// `alternative_names` too. Never overwrites. Errors: kInvalid (a name), kRefused (there is one
/// already), kNotFound (no authority here), kCorrupt (its files), kSystem.
Result<KeyFiles> create_host_certificate(const std::string& directory, const std::string& host,
                                         const std::vector<std::string>& alternative_names = {});

}  // namespace migrate
