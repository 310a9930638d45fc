// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "agent/state/objects.h"

#include <array>
#include <string_view>

namespace thruway {

/// Objects of one kind as the API server serves them, and which of them are asked for.
struct Resource {
    Kind kind = Kind::service;
    std::string_view group; ///< empty: the core group
    std::string_view plural;
    std::string_view path;
    std::string_view selectors; ///< of the query, encoded as URLs want it; what they leave out never arrives
    bool young = false;         ///< not every API server has it: one that does not has none of its objects
};

/// What the agent watches: nothing that it does not use. Selectors are those of kube-proxy (its server.go), and leave
/// out headless Services, too, which it does since 1.36.
inline constexpr std::array<Resource, 4> resources{{
    {Kind::service, "", "services", "/api/v1/services",
     "&labelSelector=%21service.kubernetes.io%2Fservice-proxy-name&fieldSelector=spec.clusterIP%21%3DNone"},
    {Kind::endpoint_slice, "discovery.k8s.io", "endpointslices", "/apis/discovery.k8s.io/v1/endpointslices",
     "&labelSelector=%21service.kubernetes.io%2Fheadless"},
    {Kind::node, "", "nodes", "/api/v1/nodes", ""},
    // v1 since Kubernetes 1.33
    {Kind::service_cidr, "networking.k8s.io", "servicecidrs", "/apis/networking.k8s.io/v1/servicecidrs", "", true},
}};

} // namespace thruway
