#pragma once

#include <chrono>
#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "base/result.h"
#include "libmigrate/move/kept_memory.h"
#include "libmigrate/move/page_transport.h"
#include "libmigrate/pages/page_feed.h"
#include "transport/channel.h"
#include "transport/preamble.h"

namespace migrate {

/// The urgent and the bulk connection of one handover, by a transport of pages or the daemons,
/// and the feed that serves pages over them. Owned by the thread of the source's worker.
class PageConnections {
 public:
  /// Opens a connection of the session by the daemons for one purpose. Errors are its own.
  using Opener = std::function<Result<std::unique_ptr<Channel>>(Purpose)>;

  PageConnections(PageRoute route, Opener open);

  /// Which transports the offer is to ask for.
  std::vector<std::string> wanted() const { return route_.wanted(); }
  /// Takes what the destination answered to that. Errors: as PageRoute::settle().
  Result<void> settle(const SessionId& session, const wire::OfferReply& reply);

  /// Opens both; nothing is served yet. Blocks. Errors: those of the opener and
  /// PageRoute::connect().
  Result<void> open();
  /// That which open() made for pushing, for what is sent before. Borrowed until push().
  std::shared_ptr<Channel> bulk() const { return bulk_; }
  /// Serves faults from now on by `feed`, over the urgent connection that open() made.
  void serve(std::unique_ptr<PageFeed> feed);
  /// Pushes `pause` from now on, over the bulk connection that open() made; once for each. Nothing
  /// if that is gone.
  void push(std::chrono::microseconds pause);
  /// Opens both anew, after disconnections, and serves over them. Any transport gives way to the
  /// daemons. Blocks.
  /// Errors: as open() and KeptMemory::make_feed(); the old connections are of no use either.
  Result<void> open_again(KeptMemory& memory, const PageServerOptions& options);

  /// The bulk connection, if nothing was pushed over it yet, is not to be used.
  void drop_bulk() { bulk_.reset(); }
  /// Another process holds the memory, too, and the first may end.
  void follow(pid_t process);
  /// There is no memory to serve any more, for good.
  void stop();
  bool stopped() const { return stopped_; }
  /// Ends threads and connections, and forgets what they sent.
  void close();

  /// Pages are served, or would be if the connections had not broken.
  bool serving() const { return feed_ && !stopped_; }
  /// A connection broke under a feed that serves.
  bool broken() const { return serving() && feed_->broken(); }
  /// Lets the destination read shared memory by itself, where it can: once for each connection.
  void expose_memory();
  /// Begins to push in mode demand.
  void start_push();
  /// What was confirmed since the last call.
  std::vector<PageRange> take_confirmed();

  /// Over all page connections so far, in bytes.
  std::uint64_t wire_bytes() const { return feed_ ? feed_->wire_bytes() : 0; }
  /// Pages sent with what files hold that the destination has not.
  std::uint64_t file_pages() const;
  /// The word of that of the last connection.
  const char* transport() const { return transport_; }

 private:
  Result<std::shared_ptr<Channel>> open_one(Purpose purpose);

  const Opener open_;
  PageRoute route_;
  std::shared_ptr<Channel> urgent_;  // until it is served
  std::shared_ptr<Channel> bulk_;    // until it is pushed over
  std::unique_ptr<PageFeed> feed_;
  std::uint64_t file_pages_ = 0;  // of what was closed
  const char* transport_ = "tcp";
  bool stopped_ = false;
};

}  // namespace migrate
