// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "tools/lab/lab.h"
#include "tools/lab/presence.h"

#include <chrono>
#include <string>
#include <vector>

/// The Thruway agents of a lab's nodes. They follow the lab's manifests and live in their node's namespaces and cgroup.
namespace thruway::lab {

/// Starts the agent with the lab's agent_args and then `more`, and does not wait. One that runs already is an error.
Result<> start_agent(const Lab &lab, const std::string &node, const std::vector<std::string> &more = {});

/// Waits until the agent's health page says that it is ready. On failure tells how its log ends.
Result<> wait_agent_ready(const Lab &lab, const std::string &node, std::chrono::milliseconds timeout,
                          const Interrupted &interrupted = {});

/// Ends the agent in order (SIGTERM), and waits.
Result<> stop_agent(const Lab &lab, const std::string &node);

/// Ends it as a crash does (SIGKILL), and waits.
Result<> kill_agent(const Lab &lab, const std::string &node);

/// The agent's process, false if it does not run.
Result<Presence> find_agent(const Lab &lab, const std::string &node);

/// Whether the agent's health page says that it is ready now.
bool agent_ready(const Lab &lab, const std::string &node);

} // namespace thruway::lab
