#include "libmigrate/move/link_refusals.h"

#include <algorithm>
#include <string>

#include "libmigrate/image/only_process.h"
#include "libmigrate/state/global_name.h"

namespace migrate {

Firewall rules_of_links(const SourceMoveOptions& options, const wire::Image& image) {
  const bool is_at_home = options.home.to_string() == options.context->own_address.to_string();
  if (!is_at_home || options.context->links.empty()) {
    return {};
  }
  const wire::ProcessImage& process = only_process(image);
  return Firewall(options.context->links, {.user = process.threads(0).credentials().uid_real(),
                                           .program = process.executable().path(),
                                           .identity = to_string(options.name)});
}

Refusals refusals_of_links(const SourceMoveOptions& options, const wire::Image& image) {
  const Firewall firewall = rules_of_links(options, image);
  Refusals refusals;
  if (firewall.rules().empty()) {
    return refusals;
  }
  if (options.request.network == NetworkOf::kPlace && !firewall.may_use_place()) {
    refusals.push_back(make_refusal("LINK_RULES", "the network of the place"));
  }
  const wire::Objects& objects = image.objects();
  for (const wire::Descriptor& descriptor : only_process(image).descriptors()) {
    const wire::OpenFile& file = objects.files(static_cast<int>(descriptor.file()));
    const auto found =
        std::ranges::find(objects.connections(), file.object(), &wire::Connection::stream);
    if (file.kind() != wire::OpenFile::CONNECTION || found == objects.connections().end()) {
      continue;
    }
    const auto local = SocketName::from_bytes(found->local());
    const auto peer = SocketName::from_bytes(found->peer());
    // Who began it is not known of a connection that is there: neither may be denied.
    for (const LinkDirection direction : {LinkDirection::kOut, LinkDirection::kIn}) {
      const LinkRule* const rule =
          local && peer ? firewall.denying({direction, LinkProtocol::kTcp, *local, *peer})
                        : nullptr;
      if (rule != nullptr) {
        refusals.push_back(make_refusal(
            "LINK_DENIED",
            "descriptor " + std::to_string(descriptor.number()) + " -> " + peer->to_string(),
            rule->place + ": " + to_string(*rule)));
        break;
      }
    }
  }
  return refusals;
}

}  // namespace migrate
