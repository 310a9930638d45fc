// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "agent/kube/json.h"
#include "agent/state/objects.h"

namespace thruway {

/// A Pod (v1), all but its name. An address that cannot be read is skipped.
Pod read_pod(Field &root);

} // namespace thruway
