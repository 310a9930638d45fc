// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <string>
#include <string_view>

namespace thruway {

/// Where Events on Nodes are posted: a Node has no namespace of its own, an Event must have one.
inline constexpr std::string_view node_events_path = "/apis/events.k8s.io/v1/namespaces/default/events";

/// An Event that says on the Node that the agent has started, as kube-proxy does; `microseconds` since 1970.
std::string starting_event(const std::string &node, int64_t microseconds);

} // namespace thruway
