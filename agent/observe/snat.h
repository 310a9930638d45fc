// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "agent/datapath/layout.h"

namespace thruway {

/// What source translation has come to, over all CPUs.
Result<tw_snat> read_snat(const Maps &maps);

} // namespace thruway
