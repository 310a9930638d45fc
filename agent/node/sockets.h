// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "agent/base/error.h"
#include "agent/datapath/programs.h"

#include <vector>

namespace thruway {

/// Ends the node's UDP sockets that are connected to a backend which their service has lost: they would talk to it for
/// ever. Their owners' next calls fail (ECONNABORTED), and a new connect() gets a backend that serves. Returns how many
/// there were. Fails if the kernel cannot end sockets (CONFIG_INET_DIAG_DESTROY, CONFIG_INET_UDP_DIAG).
Result<unsigned> end_lost_sockets(const Datapath &datapath, const std::vector<tw_purge> &lost);

} // namespace thruway
