// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "agent/base/http.h"

#include <cstdint>
#include <optional>

namespace thruway {

/// How it stands with the agent and its node.
struct Health {
    bool working = false;         ///< the agent does what it is for
    std::optional<bool> eligible; ///< the node is known and not leaving; nothing: not asked for
    int64_t updated = 0;          ///< when changes were last brought into the maps: µs since 1970, 0 never
    int64_t now = 0;
};

/// What load balancers and the kubelet are told, as kube-proxy tells them (pkg/proxy/healthcheck/proxy_health.go).
HttpResponse health_report(const Health &health);

} // namespace thruway
