// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "tools/thruway/listing.h"
#include "tools/thruway/site.h"
#include "tools/thruway/trace_ends.h"

#include <optional>
#include <string>

namespace thruway::cli {

struct TraceRequest {
    TraceEnd source;
    TraceEnd destination;
    std::optional<std::string> protocol; ///< "tcp", "udp", "sctp" or "icmp"
    std::optional<std::string> uplink;   ///< by which packets from outside come in
};

/// `trace`: the walk of a packet through the programs of this node, which stay as they are. Sets `dropped` if that is
/// how it ends.
Listing trace(const Site &site, const TraceRequest &request, bool &dropped);

} // namespace thruway::cli
