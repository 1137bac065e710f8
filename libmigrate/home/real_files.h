#pragma once

#include <sys/types.h>

#include <cstdint>
#include <map>
#include <set>
#include <string>
#include <utility>
#include <vector>

#include "base/result.h"
#include "base/unique_fd.h"
#include "libmigrate/proto/home.pb.h"
#include "libmigrate/proto/image.pb.h"
#include "libmigrate/proto/session.pb.h"
#include "libmigrate/relay/home_relay.h"

namespace migrate {

/// What a home worker keeps open of its process: the real ends of its relayed streams, and the open
/// files that an ancestor of it has open too. Owned by one thread. Kernel: pidfd_getfd (Linux 5.6);
/// the worker has to be allowed to trace the process.
class RealFiles {
 public:
  /// What the link home begins with, for a process that leaves home for the first time.
  static wire::RelayState fresh_relay(const wire::Image& image);

  /// Fetches the streams of `image` from `holder`, the process itself. Errors: kSystem.
  Result<void> fetch_streams(pid_t holder, const wire::Image& image);
  /// Fetches them from what is left of the process, its deputy or keeper, which has closed what the
  /// process has closed meanwhile.
  void fetch_streams_left(pid_t holder, const wire::Image& image);
  /// And those that it has accepted while the process was away, and the listeners that it has made,
  /// as `noted`.
  void fetch_accepted(pid_t holder, const wire::HomeRelayState& noted);
  /// And the journals of Unix domain sockets, which are the deputy's alone.
  void fetch_journals(pid_t holder, const wire::HomeRelayState& noted);
  /// Of streams whose real ends nobody has any more: as `noted`.
  void note_streams(const wire::HomeRelayState& noted);
  /// The streams, to be given to the relay; there are none here afterwards.
  std::vector<HomeRelay::Stream> take_streams() { return std::move(streams_); }

  /// The sockets of UDP that the process had when it left, the same. They are fetched with the
  /// streams.
  std::vector<KeptDatagrams> take_datagrams() { return std::move(datagrams_); }

  /// Fetches the files that an ancestor has open too.
  void fetch_shared(pid_t holder, const wire::Image& image);
  /// Who goes on with such a file goes on where the process, `name`, left it; they are closed then,
  /// so that the ancestor can be moved at once.
  void set_positions(const wire::RelayExited& exited, const std::string& name);

 private:
  Result<void> fetch(pid_t holder, const wire::Image& image, bool must_be_there);

  void fetch_datagrams(const UniqueFd& pidfd, const wire::Image& image);

  std::vector<HomeRelay::Stream> streams_;
  std::vector<KeptDatagrams> datagrams_;
  std::map<std::uint64_t, UniqueFd> shared_;  // by OpenFile.shared_id
};

/// Adds to `noted` the connections that `holder` has accepted, and the listeners that it has made,
/// for a worker that died before it could note them, and takes out the descriptors that it has
/// closed for it.
void note_unnoted(pid_t holder, const wire::Image& image, wire::HomeRelayState& noted);

/// A duplicate of a descriptor of `holder`. Errors: kSystem.
Result<UniqueFd> fetch_descriptor(pid_t holder, std::uint32_t number);

/// The descriptors of `image` that lead to the relayed stream `id`.
std::vector<std::uint32_t> descriptors_of_stream(const wire::Image& image, std::uint32_t id);
/// The descriptors of `image` that a deputy keeps open: relayed ones, sockets of UDP that
/// have a name, a terminal of its own session, and where `with_shared` those of files that an
/// ancestor has open too.
std::set<std::uint32_t> descriptors_to_keep(const wire::Image& image, bool with_shared);

}  // namespace migrate
