#include "libmigrate/move/links_json.h"

#include <algorithm>
#include <optional>
#include <string>
#include <string_view>

#include "libmigrate/image/only_process.h"
#include "libmigrate/links/tcp_socket.h"
#include "libmigrate/proc/proc_text.h"

namespace migrate {
namespace {

std::string name_text(const std::string& bytes) {
  const auto name = SocketName::from_bytes(bytes);
  return name ? name->to_string() : std::string();
}

// As ss(8) shows it.
std::string unix_name_text(std::string name) {
  std::ranges::replace(name, '\0', '@');
  return name;
}

// How a file goes; null: it is no link.
nlohmann::json link_of(const wire::Objects& objects, const wire::OpenFile& file) {
  switch (file.kind()) {
    case wire::OpenFile::CONNECTION: {
      const auto found =
          std::ranges::find(objects.connections(), file.object(), &wire::Connection::stream);
      return found == objects.connections().end()
                 ? nlohmann::json()
                 : nlohmann::json{{"kind", "connection"},
                                  {"way", "home"},
                                  {"local", name_text(found->local())},
                                  {"peer", name_text(found->peer())}};
    }
    case wire::OpenFile::UNIX_CONNECTION: {
      const auto found = std::ranges::find(objects.unix_connections(), file.object(),
                                           &wire::UnixConnection::stream);
      return found == objects.unix_connections().end()
                 ? nlohmann::json()
                 : nlohmann::json{{"kind", "unix connection"},
                                  {"way", "home"},
                                  {"local", unix_name_text(found->local())},
                                  {"peer", unix_name_text(found->peer())}};
    }
    case wire::OpenFile::LISTENER: {
      const auto found =
          std::ranges::find(objects.listeners(), file.object(), &wire::Listener::stream);
      return found == objects.listeners().end()
                 ? nlohmann::json()
                 : nlohmann::json{{"kind", "listener"},
                                  {"way", "home"},
                                  {"local", name_text(found->name())},
                                  {"backlog", found->backlog()}};
    }
    case wire::OpenFile::OPEN_SOCKET: {
      const auto& socket = objects.open_sockets(static_cast<int>(file.object()));
      nlohmann::json link = {{"kind", "socket"}, {"way", "home"}};
      if (!socket.local().empty()) {
        link["local"] = name_text(socket.local());
      }
      return link;
    }
    case wire::OpenFile::RELAY:
      return {{"kind", "stream"}, {"way", "home"}};
    case wire::OpenFile::TERMINAL:
      return {{"kind", "terminal"}, {"way", "home"}};
    case wire::OpenFile::SOCKET:
      return {{"kind", "socket pair"}, {"way", "inside"}};
    default:
      return {};
  }
}

// Of "descriptor 7 -> socket:[12]", or of a link that is known, "descriptor 7 -> 10.0.0.1:80".
std::optional<std::uint64_t> descriptor_of(std::string_view object, std::string_view arrow) {
  constexpr std::string_view kBefore = "descriptor ";
  const std::size_t at = object.find(arrow);
  if (!object.starts_with(kBefore) || at == std::string_view::npos) {
    return std::nullopt;
  }
  return parse_number(object.substr(kBefore.size(), at - kBefore.size()));
}

std::optional<std::uint64_t> socket_descriptor(std::string_view object) {
  return descriptor_of(object, " -> socket:[");
}

}  // namespace

nlohmann::json links_json(const wire::Image& image, std::span<const wire::Refusal> refusals) {
  nlohmann::json list = nlohmann::json::array();
  const auto refusal_of = [&](std::uint64_t descriptor) {
    return std::ranges::find_if(refusals, [&](const wire::Refusal& refusal) {
      return descriptor_of(refusal.object(), " -> ") == descriptor;
    });
  };
  for (const wire::Descriptor& descriptor : only_process(image).descriptors()) {
    const auto& file = image.objects().files(static_cast<int>(descriptor.file()));
    nlohmann::json link = link_of(image.objects(), file);
    const auto refusal = refusal_of(descriptor.number());
    if (link.is_null() || (refusal != refusals.end() && socket_descriptor(refusal->object()))) {
      continue;
    }
    link["descriptor"] = descriptor.number();
    if (refusal != refusals.end()) {
      link["way"] = "refused";
      link["code"] = refusal->code();
    }
    list.push_back(std::move(link));
  }
  for (const wire::Refusal& refusal : refusals) {
    if (const auto descriptor = socket_descriptor(refusal.object())) {
      list.push_back({{"descriptor", *descriptor},
                      {"kind", "socket"},
                      {"way", "refused"},
                      {"code", refusal.code()}});
    }
  }
  return list;
}

}  // namespace migrate
