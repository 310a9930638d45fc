// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "agent/planner/plan.h"
#include "agent/state/objects.h"

#include <map>
#include <set>
#include <string>
#include <unordered_map>
#include <unordered_set>
#include <vector>

namespace thruway {

struct NodeChanges {
    std::vector<NodeRoute> upserts;
    std::vector<Prefix> deletes;

    [[nodiscard]] bool empty() const { return upserts.empty() && deletes.empty(); }
};

/// Compiles Nodes into routes to their pods. Pure and incremental, like ServicePlanner.
class NodePlanner {
public:
    explicit NodePlanner(Symbol node) : self_(node) {}

    void upsert(const Node &node);
    void remove(const ObjectName &name);

    /// What has to change since the last call.
    NodeChanges take_changes();

    /// Lines about pod CIDRs that cannot be routed, since the last call.
    std::vector<std::string> take_refusals() { return std::exchange(refusals_, {}); }

    /// This node's own object, null as long as it is unknown.
    [[nodiscard]] const Node *self() const;
    [[nodiscard]] const std::unordered_map<ObjectName, Node> &all() const { return nodes_; }

private:
    void tell_losers(const Prefix &prefix, const std::map<ObjectName, Address> &claimants);

    Symbol self_;
    std::unordered_map<ObjectName, Node> nodes_;
    std::unordered_map<Prefix, std::map<ObjectName, Address>> claims_; ///< who has this CIDR, and by which address
    std::unordered_map<Prefix, std::set<ObjectName>> losers_;          ///< who was told that another one has it
    std::unordered_set<Prefix> dirty_;
    std::vector<std::string> refusals_;
};

} // namespace thruway
