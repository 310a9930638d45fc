// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "agent/base/error.h"
#include "tools/lab/lab.h"

namespace thruway::lab {

/// Makes the router ready in the keeper's network namespace, with the bridge of a switched fabric, and the client.
///
/// The wires are veth pairs as the kernel makes them, with checksum and segmentation offload on; agents find them
/// unfit for native XDP. With Options::xdp frames are as a wire carries them, with complete checksums, and the router's
/// ends take what XDP sends.
Result<> build_fabric(const Lab &lab);

/// Makes a node: network namespace, uplink eth0, folders, bpffs, control groups and manifest.
Result<> build_node(const Lab &lab, const Node &node);

} // namespace thruway::lab
