// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "tools/lab/lab.h"

#include <string>

namespace thruway::lab {

/// A lab's nodes, pods, addresses and agents, for a person and for a program.
Result<std::string> status_table(const Lab &lab);
Result<std::string> status_json(const Lab &lab);

} // namespace thruway::lab
