#pragma once

#include <sys/types.h>

#include <cstdint>
#include <limits>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "base/result.h"
#include "libmigrate/requests/words.h"

namespace migrate {

/// What a rule does with a link.
enum class LinkAction : std::uint8_t {
  kHome,   ///< It is made, by way of home.
  kPlace,  ///< The process may have the network of the place where it is (--network place).
  kDeny,   ///< It is not made.
};
inline constexpr Words<LinkAction, 3> kLinkActions{
    {{"home", LinkAction::kHome}, {"place", LinkAction::kPlace}, {"deny", LinkAction::kDeny}}};

/// Who begins it: the process (out), or somebody who reaches it (in).
enum class LinkDirection : std::uint8_t { kOut, kIn };
inline constexpr Words<LinkDirection, 2> kLinkDirections{
    {{"out", LinkDirection::kOut}, {"in", LinkDirection::kIn}}};

enum class LinkProtocol : std::uint8_t { kTcp, kUdp };
inline constexpr Words<LinkProtocol, 2> kLinkProtocols{
    {{"tcp", LinkProtocol::kTcp}, {"udp", LinkProtocol::kUdp}}};

/// One rule of a host about links of processes whose home it is. What is not given fits everything.
struct LinkRule {
  std::string place;  ///< Where it stands, for people: "policy.toml:12".
  uid_t first_user = 0;
  uid_t last_user = std::numeric_limits<uid_t>::max();
  std::string program;   ///< A pattern (glob(7), * also for /) of the path of its executable,
  std::string identity;  ///< and of its global name.
  std::optional<LinkDirection> direction;
  std::optional<LinkProtocol> protocol;
  std::string network;             ///< Of the peer: 4 or 16 bytes, as they are sent, or none,
  std::uint32_t network_bits = 0;  ///< of which so many bits count.
  std::uint16_t first_port = 0;    ///< Out: the peer's; in: the process's own.
  std::uint16_t last_port = std::numeric_limits<std::uint16_t>::max();
  LinkAction action = LinkAction::kDeny;

  /// Whether it is about each link of the process.
  bool is_of_all_links() const {
    return !direction && !protocol && network.empty() && first_port == 0 &&
           last_port == std::numeric_limits<std::uint16_t>::max();
  }
};
/// The first that fits decides; where none does, the link is made, by way of home.
using LinkRules = std::vector<LinkRule>;

/// The [[link]] tables of a policy file, whose content is `text`; `file` is its name, for people.
/// Users are looked up now. Errors: kInvalid, with file, line and column.
Result<LinkRules> parse_link_rules(std::string_view text, const std::string& file);

}  // namespace migrate
