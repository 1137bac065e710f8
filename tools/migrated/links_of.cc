#include "tools/migrated/links_of.h"

#include <cstring>
#include <string_view>
#include <utility>

#include "base/log.h"
#include "libmigrate/links/tcp_socket.h"
#include "libmigrate/proto/session.pb.h"
#include "libmigrate/state/session_file.h"

namespace migrate {
namespace {

using nlohmann::json;

void add_name(json& link, const char* member, const std::string& bytes) {
  if (const auto name = SocketName::from_bytes(bytes)) {
    link[member] = name->to_string();
  }
}

json link_with(std::uint32_t stream, std::string_view kind, std::uint64_t in, std::uint64_t out) {
  return {
      {"stream", stream}, {"kind", kind}, {"way", "home"}, {"in_bytes", in}, {"out_bytes", out}};
}

json listener_with(std::uint32_t stream, const std::string& name) {
  json link = {{"stream", stream}, {"kind", "listener"}, {"way", "home"}};
  add_name(link, "local", name);
  return link;
}

std::string_view kind_of(bool is_connection, bool is_terminal) {
  return is_connection ? "connection" : is_terminal ? "terminal" : "stream";
}

void add_connection(json& link, const wire::ConnectionPlace& place) {
  add_name(link, "local", place.local());
  add_name(link, "peer", place.peer());
}

json links_at_home(const wire::HomeRelayState& relay) {
  json links = json::array();
  for (const wire::HomeRelayState::Listener& listener : relay.listeners()) {
    json link = listener_with(listener.id(), listener.name());
    link["accepted"] = listener.accepted();
    if (listener.error() != 0) {
      link["way"] = "inside";
      link["error"] = std::strerror(static_cast<int>(listener.error()));
    }
    links.push_back(std::move(link));
  }
  for (const wire::HomeRelayState::Stream& stream : relay.streams()) {
    json link = link_with(stream.id(), kind_of(stream.has_connection(), stream.has_terminal()),
                          stream.in_first() + stream.in_content().size(), stream.out_first());
    add_connection(link, stream.connection());
    links.push_back(std::move(link));
  }
  return links;
}

json links_of_guest(const wire::GuestRelayState& relay) {
  json links = json::array();
  for (const wire::GuestRelayState::Listener& listener : relay.listeners()) {
    links.push_back(listener_with(listener.id(), listener.name()));
  }
  for (int i = 0; i < relay.relay().streams_size() && i < relay.streams_size(); ++i) {
    const wire::RelayStreamState& stream = relay.relay().streams(i);
    json link = link_with(stream.id(), kind_of(stream.has_connection(), stream.has_terminal()),
                          stream.in_next(), stream.out_first() + stream.out_unacked().size());
    add_connection(link, relay.streams(i).connection());
    links.push_back(std::move(link));
  }
  return links;
}

}  // namespace

json links_of(const std::string& state_directory, const ProcessRecord& record) {
  const bool is_home = record.role == ProcessRole::kHome;
  const auto text = SessionFile::peek(state_directory, is_home ? home_session_name(record.process)
                                                               : cell_session_name(record.session));
  if (!text) {
    log::debug("{}", text.error().message());
    return json::array();
  }
  wire::HomeSession home;
  wire::CellSession cell;
  if (is_home) {
    return home.ParseFromString(*text) ? links_at_home(home.relay()) : json::array();
  }
  return cell.ParseFromString(*text) ? links_of_guest(cell.relay()) : json::array();
}

json link_rules_of(const std::string& state_directory, const ProcessRecord& record) {
  json rules = json::array();
  const auto text = record.role == ProcessRole::kHome
                        ? SessionFile::peek(state_directory, home_session_name(record.process))
                        : Result<std::string>(std::string());
  wire::HomeSession home;
  if (text && home.ParseFromString(*text)) {
    for (const wire::HomeSession::LinkRule& rule : home.link_rules()) {
      rules.push_back({{"place", rule.place()}, {"text", rule.text()}, {"count", rule.count()}});
    }
  }
  return rules;
}

}  // namespace migrate
