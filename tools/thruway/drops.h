// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "agent/observe/drops.h"
#include "tools/thruway/listing.h"
#include "tools/thruway/site.h"

namespace thruway::cli {

/// The row of a reason and direction, as `drops` has it.
Row drop_row(const DropCount &drop);

/// `drops`
Listing drop_list(const Site &site);

} // namespace thruway::cli
