// SPDX-License-Identifier: Apache-2.0
#include "agent/kube/node_event.h"

#include <ctime>
#include <fmt/chrono.h>
#include <nlohmann/json.hpp>

namespace thruway {

std::string starting_event(const std::string &node, int64_t microseconds)
{
    const std::time_t seconds = microseconds / 1'000'000;
    const std::string time = fmt::format("{:%Y-%m-%dT%H:%M:%S}.{:06}Z", fmt::gmtime(seconds), microseconds % 1'000'000);
    // "kubectl describe node" looks for a uid that is the name (kubectl pkg/describe), which is what kube-proxy writes.
    const nlohmann::json event{
        {"apiVersion", "events.k8s.io/v1"},
        {"kind", "Event"},
        {"metadata", {{"name", fmt::format("{}.{:x}", node, microseconds)}, {"namespace", "default"}}},
        {"eventTime", time},
        {"type", "Normal"},
        {"reason", "Starting"},
        {"action", "StartThruway"},
        {"note", "Thruway " THRUWAY_VERSION " follows the cluster on this node."},
        {"reportingController", "thruway"},
        {"reportingInstance", "thruway-" + node},
        {"regarding", {{"apiVersion", "v1"}, {"kind", "Node"}, {"name", node}, {"uid", node}}}};
    return event.dump();
}

} // namespace thruway
