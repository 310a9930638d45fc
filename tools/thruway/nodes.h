// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "tools/thruway/listing.h"
#include "tools/thruway/tables.h"

#include <vector>

namespace thruway::cli {

/// A row for each node with the ways to its pods, and one for each pod CIDR of a node that is not known by name.
std::vector<Row> node_rows(const std::vector<NodeEntry> &entries, const std::vector<Node> &nodes);

/// `node list`
Listing node_list(const Site &site);

} // namespace thruway::cli
