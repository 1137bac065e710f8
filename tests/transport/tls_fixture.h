#pragma once

#include <memory>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "tests/transport/temporary_directory.h"
#include "transport/keys.h"
#include "transport/tls.h"

namespace migrate::test {

/// A cluster's authority and the certificates of its hosts, made at run time.
class Cluster {
 public:
  Cluster() { authority_ = create_ca(directory_.path()).value().certificate; }

  TlsContext host(const std::string& name, const std::vector<std::string>& also = {}) const {
    const KeyFiles files = create_host_certificate(directory_.path(), name, also).value();
    return TlsContext::create(files.certificate, files.key, authority_).value();
  }

  const std::string& directory() const { return directory_.path(); }
  const std::string& authority() const { return authority_; }

 private:
  TemporaryDirectory directory_;
  std::string authority_;
};

struct TlsEnds {
  Result<std::unique_ptr<TlsChannel>> client;
  Result<std::unique_ptr<TlsChannel>> server;
};

/// Shakes hands over two connected sockets.
inline TlsEnds shake_hands(std::pair<UniqueFd, UniqueFd> sockets, const TlsContext& client,
                           const TlsOptions& client_options, const TlsContext& server,
                           const TlsOptions& server_options) {
  TlsEnds ends;
  std::thread thread(
      [&] { ends.server = TlsChannel::accept(std::move(sockets.second), server, server_options); });
  ends.client = TlsChannel::connect(std::move(sockets.first), client, client_options);
  thread.join();
  return ends;
}

}  // namespace migrate::test
