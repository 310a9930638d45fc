// SPDX-License-Identifier: Apache-2.0
#include "agent/planner/nodes.h"

#include <algorithm>

namespace thruway {
namespace {

/// The node's primary address of a family (Kubernetes takes the first InternalIP), or the unspecified one.
Address primary(const Node &node, Family family)
{
    const auto found = std::ranges::find(node.addresses, family, &Address::family);
    return found == node.addresses.end() ? Address::any(family) : *found;
}

} // namespace

void NodePlanner::upsert(const Node &node)
{
    Node &old = nodes_[node.name];

    for (const Prefix &prefix : old.pod_cidrs) {
        if (std::ranges::find(node.pod_cidrs, prefix) == node.pod_cidrs.end()) {
            claims_[prefix].erase(node.name);
            dirty_.insert(prefix);
        }
    }
    for (const Prefix &prefix : node.pod_cidrs) {
        const Address address = primary(node, prefix.family());
        if (address.is_unspecified() && node.name.name != self_.text()) {
            refusals_.push_back(
                fmt::format("Node {}: spec.podCIDRs: no way to {}: status.addresses has no {} InternalIP",
                            node.name.text(), prefix.text(), prefix.family() == Family::ipv4 ? "IPv4" : "IPv6"));
            if (claims_[prefix].erase(node.name) > 0)
                dirty_.insert(prefix);
            continue;
        }
        auto [claim, inserted] = claims_[prefix].try_emplace(node.name, address);
        if (!inserted && claim->second == address)
            continue;
        claim->second = address;
        dirty_.insert(prefix);
    }
    old = node;
}

void NodePlanner::remove(const ObjectName &name)
{
    const auto found = nodes_.find(name);
    if (found == nodes_.end())
        return;
    for (const Prefix &prefix : found->second.pod_cidrs) {
        claims_[prefix].erase(name);
        dirty_.insert(prefix);
    }
    nodes_.erase(found);
}

NodeChanges NodePlanner::take_changes()
{
    NodeChanges changes;

    for (const Prefix &prefix : dirty_) {
        const auto found = claims_.find(prefix);
        if (found == claims_.end() || found->second.empty()) {
            if (found != claims_.end())
                claims_.erase(found);
            losers_.erase(prefix);
            changes.deletes.push_back(prefix);
            continue;
        }
        // Of several claimants the first by name, so that all nodes agree.
        const auto &[name, address] = *found->second.begin();
        const bool own = name.name == self_.text();
        tell_losers(prefix, found->second);
        changes.upserts.push_back({prefix, own ? Address::any(prefix.family()) : address, Symbol(name.name)});
    }
    dirty_.clear();
    return changes;
}

void NodePlanner::tell_losers(const Prefix &prefix, const std::map<ObjectName, Address> &claimants)
{
    std::set<ObjectName> losers;
    for (auto claimant = std::next(claimants.begin()); claimant != claimants.end(); ++claimant) {
        losers.insert(claimant->first);
        if (!losers_[prefix].contains(claimant->first))
            refusals_.push_back(fmt::format("Node {}: spec.podCIDRs: {} belongs to Node {}", claimant->first.text(),
                                            prefix.text(), claimants.begin()->first.text()));
    }
    if (losers.empty())
        losers_.erase(prefix);
    else
        losers_[prefix] = std::move(losers);
}

const Node *NodePlanner::self() const
{
    const auto found = nodes_.find(ObjectName{{}, std::string(self_.text())});
    return found == nodes_.end() ? nullptr : &found->second;
}

} // namespace thruway
