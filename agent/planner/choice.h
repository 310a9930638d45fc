// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "agent/planner/plan.h"
#include "agent/state/objects.h"

#include <vector>

namespace thruway {

/// Where this agent is, as far as the choice of endpoints depends on it.
struct Place {
    Symbol node;
    Symbol zone;                    ///< empty if unknown
    std::vector<Address> addresses; ///< of the node

    friend bool operator==(const Place &, const Place &) = default;
};

/// The endpoints of one Service port, by whom they are for. Each list is sorted and has no duplicates.
struct Choice {
    std::vector<Backend> cluster; ///< traffic policy Cluster; empty only if there is no endpoint anywhere
    std::vector<Backend> local;   ///< traffic policy Local
    std::vector<Backend> serving; ///< all that may go on with what they have, whatever policy and hints say
};

/// Chooses among the endpoints of all slices of a Service, as kube-proxy does (pkg/proxy/topology.go,
/// endpointslicecache.go): ready ones; if there are none, those that serve while they terminate. Hints count for
/// `cluster` only, and only if each ready endpoint has some. What several slices say of one address and port counts
/// once: who does not terminate stands before who does, whatever the order of the slices.
Choice choose_endpoints(const std::vector<const EndpointSlice *> &slices, const ServiceKey &key, const Place &place);

/// How many endpoints of this node are ready for some port of the Service: addresses, not ports of them, in the family
/// that has more. What a load balancer is told of this node (kube-proxy's LocalReadyEndpoints): those that linger still
/// get what comes, but nothing new should.
uint32_t count_ready_here(const std::vector<const EndpointSlice *> &slices, const Service &service, const Place &place);

} // namespace thruway
