// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "tools/bench/report.h"

namespace thruway::bench {

/// The size of a cluster: EndpointSlices of up to 10 endpoints, one object a file.
struct ClusterSize {
    unsigned services = 0;
    unsigned endpoints = 0; ///< per service
};

/// What an agent takes to bring a cluster of this size into the maps, what a changed slice takes from the rename of its
/// file to the store that sends packets elsewhere, and what memory it holds meanwhile. Runs an agent in a lab.
Result<> measure_control_plane(const ClusterSize &size, Report &report);

} // namespace thruway::bench
