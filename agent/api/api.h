// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "agent/agent.h"
#include "agent/base/http.h"

#include <memory>
#include <vector>

namespace thruway {

/// What the agent serves to others: the CNI plugin and the CLI on RUN_DIR/agent.sock, Prometheus and health checks on
/// TCP. Handlers run in threads of the servers and go through the loop for everything but the maps.
class Api {
public:
    /// A TCP address that is taken is logged, and the agent goes on without it; the socket has to work.
    static Result<Api> start(Loop &loop, Agent &agent);

private:
    std::vector<std::unique_ptr<HttpServer>> servers_;
};

} // namespace thruway
