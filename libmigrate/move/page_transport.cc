#include "libmigrate/move/page_transport.h"

#include <algorithm>
#include <ranges>

#include "base/log.h"

namespace migrate {
namespace {

// Somebody waits for his pages, and the daemons' connections are there too.
constexpr int kReconnectTimeoutMs = 2000;

/// The address of this host that workers listen on, as others reach it.
std::string announced_host(const PageAddress& own, const WorkerContext& context) {
  return Address{.host = own.host}.is_any() ? context.own_address.host : own.host;
}

std::string source_host(const PageAddress* own) {
  return own == nullptr || Address{.host = own->host}.is_any() ? "" : own->host;
}

Result<std::unique_ptr<PageListener>> listen_by(const PageAddress& own,
                                                const WorkerContext& context,
                                                const SessionId& session, wire::PagePlace& place) {
  const PageToken token = MIGRATE_TRY(random_session_id());
  auto listener = MIGRATE_TRY(own.transport->listen(own.host, session, token));
  const Address address{.scheme = own.transport->word,
                        .host = announced_host(own, context),
                        .port = listener->port()};
  place.set_address(address.to_string());
  place.set_token(token.data(), token.size());
  return listener;
}

}  // namespace

PageRoute::PageRoute(PageTransportChoice choice, const WorkerContext& context)
    : must_(choice.only != nullptr) {
  if (must_) {
    ways_.push_back({choice.only, source_host(context.page_address(choice.only->word))});
  } else if (choice.is_auto) {
    for (const PageAddress& own : context.page_addresses) {
      ways_.push_back({own.transport, source_host(&own)});
    }
  }
}

std::vector<std::string> PageRoute::wanted() const {
  std::vector<std::string> words;
  for (const Way& way : ways_) {
    if (way.transport->missing == nullptr) {
      words.emplace_back(way.transport->word);
    }
  }
  return words;
}

void PageRoute::allow_daemons() {
  must_ = false;
  timeout_ms_ = kReconnectTimeoutMs;
}

Result<void> PageRoute::settle(const SessionId& session, const wire::OfferReply& reply) {
  way_.reset();
  session_ = session;
  const std::vector<std::string> words = wanted();
  std::string why_not = reply.no_pages();
  if (words.empty() && must_) {
    why_not = std::string("this host's libmigrate has no ") + ways_.front().transport->name;
  } else if (!words.empty() && reply.has_pages()) {
    const auto place = Address::parse(reply.pages().address());
    const auto way = std::ranges::find_if(
        ways_, [&](const Way& each) { return place && place->scheme == each.transport->word; });
    if (way != ways_.end() && reply.pages().token().size() == token_.size()) {
      std::ranges::copy(std::as_bytes(std::span(reply.pages().token())), token_.begin());
      way_ = *way;
      way_->place = *place;
      return {};
    }
    why_not = "its address for pages cannot be read: " + reply.pages().address();
  }
  if (must_) {
    return fail(
        make_error(ErrorCode::kUnsupported, "move over",
                   std::string(ways_.front().transport->name) + " in session " + to_hex(session),
                   why_not.empty() ? "the destination has none" : why_not));
  }
  if (!words.empty()) {
    log::info("session {}: pages go over TCP: {}", to_hex(session), why_not);
  }
  return {};
}

Result<std::unique_ptr<Channel>> PageRoute::connect(Purpose purpose) {
  if (!way_) {
    return std::unique_ptr<Channel>();
  }
  auto channel = way_->transport->connect(way_->place, {purpose, session_, token_},
                                          way_->source_host, timeout_ms_);
  if (!channel && !must_) {
    log::warn("session {}: pages go over TCP: {}", to_hex(session_), channel.error().message());
    way_.reset();
    return std::unique_ptr<Channel>();
  }
  return channel;
}

std::unique_ptr<PageListener> listen_for_pages(const WorkerContext& context,
                                               const SessionId& session, const wire::Offer& offer,
                                               wire::OfferReply& reply) {
  std::string why_not;
  for (const std::string& word : offer.page_transports()) {
    const PageAddress* const own = context.page_address(word);
    if (own == nullptr) {
      why_not += (why_not.empty() ? "" : "; ") +
                 ("migrated at the destination was not told to --listen " + word + "://ADDRESS");
      continue;
    }
    auto listener = listen_by(*own, context, session, *reply.mutable_pages());
    if (listener) {
      return std::move(*listener);
    }
    reply.clear_pages();
    log::warn("session {}: {}", to_hex(session), listener.error().message());
    why_not +=
        (why_not.empty() ? "" : "; ") + ("at the destination: " + listener.error().message());
  }
  reply.set_no_pages(why_not);
  return nullptr;
}

}  // namespace migrate
