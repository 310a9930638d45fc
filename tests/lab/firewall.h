// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "tests/lab/cluster.h"

/// Host firewalls of a lab's nodes.
namespace thruway::lab {

/// Loads an nftables ruleset in a node.
void nft(const Lab &lab, const std::string &node, const std::string &rules);

/// A stateful firewall in each node as administrators have them; what it holds for invalid is counted and dropped.
void put_up_firewalls(const Lab &lab);

/// No packet of any node was taken for invalid by its firewall, and none was dropped by the datapath.
void check_untripped(const Lab &lab);

} // namespace thruway::lab
