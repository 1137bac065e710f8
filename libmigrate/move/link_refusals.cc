#include "libmigrate/move/link_refusals.h"

#include <algorithm>
#include <string>

#include "libmigrate/image/only_process.h"
#include "libmigrate/state/global_name.h"

namespace migrate {

namespace {

bool is_at_home(const SourceMoveOptions& options) {
  return options.home.to_string() == options.context->own_address.to_string();
}

}  // namespace

Firewall rules_of_links(const SourceMoveOptions& options, const wire::Image& image) {
  if (!is_at_home(options) || options.context->links.empty()) {
    return {};
  }
  const wire::ProcessImage& process = only_process(image);
  return Firewall(options.context->links, {.user = process.threads(0).credentials().uid_real(),
                                           .program = process.executable().path(),
                                           .identity = to_string(options.name)});
}

wire::HomeNetwork network_of_home(const SourceMoveOptions& options, const wire::Image& image) {
  wire::HomeNetwork network = options.network;
  if (is_at_home(options)) {
    network.set_only(!rules_of_links(options, image).may_use_place());
  }
  return network;
}

Refusals refusals_of_links(const SourceMoveOptions& options, const wire::Image& image) {
  const wire::HomeNetwork network = network_of_home(options, image);
  Refusals refusals;
  // Where home tells no address of its own, the process would have that of the place, too.
  if (network.only() &&
      (options.request.network == NetworkOf::kPlace || network.addresses().empty())) {
    refusals.push_back(make_refusal("LINK_RULES", "the network of the place"));
  }
  const Firewall firewall = rules_of_links(options, image);
  if (firewall.rules().empty()) {
    return refusals;
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
