#include "libmigrate/relay/home_outgoing.h"

namespace migrate {

void HomeOutgoing::collect(std::vector<pollfd>& descriptors, const Link& link) const {
  calls_.collect(descriptors);
  datagrams_.collect(descriptors, link);
}

std::vector<HomeCaller::Outcome> HomeOutgoing::pump(const MakeSocket& by, Link& link) {
  datagrams_.pump(link);
  datagrams_.forget_idle();
  return calls_.pump(by);
}

void HomeOutgoing::add_descriptors(std::set<std::uint32_t>& all) const {
  calls_.add_descriptors(all);
  datagrams_.add_descriptors(all);
}

std::vector<std::uint32_t> HomeOutgoing::take_left() {
  std::vector<std::uint32_t> left = calls_.take_left();
  const std::vector<std::uint32_t> idle = datagrams_.take_left();
  left.insert(left.end(), idle.begin(), idle.end());
  return left;
}

}  // namespace migrate
