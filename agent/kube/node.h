// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "agent/kube/json.h"
#include "agent/kube/metadata.h"
#include "agent/state/objects.h"

namespace thruway {

/// A Node (v1), all but its name. An address or CIDR block that cannot be read is skipped.
Node read_node(Field &root, const Metadata &metadata);

} // namespace thruway
