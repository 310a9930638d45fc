// SPDX-License-Identifier: Apache-2.0
#include "agent/node/node_port_addresses.h"

#include <algorithm>

namespace thruway {
namespace {

/// The first one of the family.
bool leads(const std::vector<Address> &addresses, const Address &address)
{
    const auto first = std::ranges::find(addresses, address.family(), &Address::family);
    return first != addresses.end() && *first == address;
}

} // namespace

Result<NodePortAddresses> NodePortAddresses::parse(const std::vector<std::string> &texts)
{
    NodePortAddresses meant;
    for (const std::string &text : texts) {
        if (text == "primary") {
            meant.primary_ = true;
            continue;
        }
        const auto prefix = Prefix::parse(text);
        if (!prefix)
            return fail("must be \"primary\" or a list of CIDRs, has \"{}\"", text);
        meant.prefixes_.push_back(*prefix);
    }
    return meant;
}

std::vector<Address> NodePortAddresses::among(const std::vector<Address> &own,
                                              const std::vector<Address> &primary) const
{
    std::vector<Address> meant;
    for (const Address &address : own) {
        const auto of_family = [&](const Prefix &prefix) { return prefix.family() == address.family(); };
        const bool all = !primary_ && std::ranges::none_of(prefixes_, of_family);
        const bool named =
            std::ranges::any_of(prefixes_, [&](const Prefix &prefix) { return prefix.contains(address); });
        if (all || named || (primary_ && leads(primary, address)))
            meant.push_back(address);
    }
    return meant;
}

} // namespace thruway
