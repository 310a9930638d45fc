// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "tools/cni/config.h"

#include <string>

namespace thruway::cni {

/// Makes the pod's interface and has the agent connect it. Returns the result as the specification wants it. On failure
/// nothing is left behind.
Outcome<std::string> add(const Call &call);

/// Takes the pod's interface away. What is gone already is no error.
Outcome<> del(const Call &call);

} // namespace thruway::cni
