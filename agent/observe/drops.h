// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "agent/datapath/layout.h"

#include <vector>

namespace thruway {

/// How often packets were dropped for a reason at a hook, over all CPUs.
struct DropCount {
    tw_drop reason;
    tw_hook hook;
    uint64_t packets;
    uint64_t bytes;
};

/// All reasons that have occurred.
Result<std::vector<DropCount>> read_drops(const Maps &maps);

} // namespace thruway
