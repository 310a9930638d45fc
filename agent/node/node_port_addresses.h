// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "agent/base/address.h"
#include "agent/base/error.h"

#include <string>
#include <vector>

namespace thruway {

/// On which of the node's addresses NodePorts are valid, as kube-proxy's --nodeport-addresses says: on all of them; on
/// those in some CIDRs, where a family of which none is given has all; or on the primary ones, as the Node object has
/// them (rule 10 of docs/kube-proxy.md).
class NodePortAddresses {
public:
    NodePortAddresses() = default;

    /// Reads a list of CIDRs, among which may be the word "primary". An empty one means all addresses.
    static Result<NodePortAddresses> parse(const std::vector<std::string> &texts);

    /// Whether there is nothing to say before the Node object is known.
    [[nodiscard]] bool needs_primary() const { return primary_; }

    /// Whether all addresses are meant, whatever they are.
    [[nodiscard]] bool all() const { return prefixes_.empty() && !primary_; }

    /// The ones of `own` that are meant; `primary` are those of the Node object.
    [[nodiscard]] std::vector<Address> among(const std::vector<Address> &own,
                                             const std::vector<Address> &primary) const;

private:
    std::vector<Prefix> prefixes_;
    bool primary_ = false;
};

} // namespace thruway
