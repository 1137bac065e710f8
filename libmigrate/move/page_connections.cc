#include "libmigrate/move/page_connections.h"

#include <utility>

namespace migrate {

PageConnections::PageConnections(PageRoute route, Opener open)
    : open_(std::move(open)), route_(std::move(route)) {}

Result<void> PageConnections::settle(const SessionId& session, const wire::OfferReply& reply) {
  return route_.settle(session, reply);
}

Result<std::shared_ptr<Channel>> PageConnections::open_one(Purpose purpose) {
  std::shared_ptr<Channel> channel = MIGRATE_TRY(route_.connect(purpose));
  transport_ = route_.word();
  if (!channel) {
    channel = MIGRATE_TRY(open_(purpose));
  }
  return channel;
}

Result<void> PageConnections::open() {
  urgent_ = MIGRATE_TRY(open_one(Purpose::kUrgent));
  bulk_ = MIGRATE_TRY(open_one(Purpose::kBulk));
  return {};
}

void PageConnections::serve(std::unique_ptr<PageFeed> feed) {
  feed_ = std::move(feed);
  feed_->serve(std::exchange(urgent_, nullptr));
}

void PageConnections::push(std::chrono::microseconds pause) {
  if (bulk_ && feed_) {
    feed_->push(std::exchange(bulk_, nullptr), pause);
  }
}

Result<void> PageConnections::open_again(KeptMemory& memory, const PageServerOptions& options) {
  bulk_.reset();
  route_.allow_daemons();
  std::shared_ptr<Channel> urgent = MIGRATE_TRY(open_one(Purpose::kUrgent));
  std::shared_ptr<Channel> bulk = MIGRATE_TRY(open_one(Purpose::kBulk));
  if (!feed_) {
    feed_ = MIGRATE_TRY(memory.make_feed(options));
  }
  feed_->disconnect();
  feed_->serve(std::move(urgent));
  feed_->push(std::move(bulk), std::chrono::microseconds(0));
  return {};
}

void PageConnections::follow(pid_t process) {
  if (feed_) {
    feed_->follow(process);
  }
}

void PageConnections::stop() {
  stopped_ = true;
  if (feed_) {
    feed_->stop();
  }
}

void PageConnections::close() {
  file_pages_ = file_pages();
  feed_.reset();
  urgent_.reset();
  bulk_.reset();
}

void PageConnections::expose_memory() {
  if (serving()) {
    feed_->expose_memory();
  }
}

void PageConnections::start_push() {
  if (feed_) {
    feed_->server().start_push();
  }
}

std::uint64_t PageConnections::file_pages() const {
  return feed_ ? feed_->server().statistics().file_pages : file_pages_;
}

std::vector<PageRange> PageConnections::take_confirmed() {
  return serving() ? feed_->server().take_confirmed() : std::vector<PageRange>();
}

}  // namespace migrate
