// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "tools/lab/pods.h"

#include <vector>

/// Pods by veth pairs and kernel routes alone: dataplane none, the measure of what Thruway adds or saves. The interface
/// has the shape that Thruway gives it (one address a family, a gateway that is only a neighbour entry), so that the
/// two differ in who carries the packets and in nothing else.
namespace thruway::lab {

/// The first address of each of the node's pod CIDRs that no pod has. It is the caller's until plain_detach().
Result<std::vector<Address>> plain_reserve(const Lab &lab, const std::string &node);

Result<> plain_attach(const Lab &lab, const Pod &pod);

/// Works for a pod that is half attached, too, and gives back its addresses.
Result<> plain_detach(const Lab &lab, const Pod &pod);

} // namespace thruway::lab
