// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "agent/kube/json.h"
#include "agent/kube/metadata.h"
#include "agent/state/objects.h"

namespace thruway {

/// A Service (v1), all but its name. Faults of one address skip it; any other, and the lack of ports or of any good
/// address where they are needed, refuse the Service. What kube-proxy leaves alone is marked, not refused.
Service read_service(Field &root, const Metadata &metadata);

} // namespace thruway
