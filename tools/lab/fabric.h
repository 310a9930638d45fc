// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "agent/base/error.h"
#include "tools/lab/lab.h"

namespace thruway::lab {

/// Makes the router ready in the keeper's network namespace, with the bridge of a switched fabric, and the client.
///
/// The wires are veth pairs as the kernel makes them, with checksum and segmentation offload on. A test that needs
/// frames as a wire carries them switches the sender's offload off itself.
Result<> build_fabric(const Lab &lab);

/// Makes a node: network namespace, uplink eth0, folders, bpffs, control groups and manifest.
Result<> build_node(const Lab &lab, const Node &node);

} // namespace thruway::lab
