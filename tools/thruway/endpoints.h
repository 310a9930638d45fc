// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "tools/thruway/listing.h"
#include "tools/thruway/names.h"
#include "tools/thruway/tables.h"

#include <vector>

namespace thruway::cli {

/// A row for each endpoint in the maps, and for each pod interface that should be one and is not, sorted by name.
std::vector<Row> endpoint_rows(const std::vector<EndpointEntry> &endpoints, const Names &names);

/// `endpoint list`
Listing endpoint_list(const Site &site);

} // namespace thruway::cli
