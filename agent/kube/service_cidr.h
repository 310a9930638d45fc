// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "agent/kube/json.h"
#include "agent/state/objects.h"

namespace thruway {

/// A ServiceCIDR (networking.k8s.io/v1), all but its name. A CIDR block that cannot be read is skipped.
ServiceCidr read_service_cidr(Field &root);

} // namespace thruway
