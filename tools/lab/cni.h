// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "tools/lab/pods.h"

#include <vector>

/// Calls of the CNI plugin thruway-cni as a container runtime on the pod's node makes them.
namespace thruway::lab {

/// Returns the addresses that the pod got.
Result<std::vector<Address>> cni_add(const Lab &lab, const Pod &pod);

Result<> cni_delete(const Lab &lab, const Pod &pod);

} // namespace thruway::lab
