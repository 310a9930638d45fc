// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "agent/state/source.h"

#include <string>

namespace thruway {

/// Where an Event is posted: in the namespace of what it is about. A Node has none, an Event must have one, and
/// "default" is where kubectl looks.
std::string event_path(const Event &event);

/// The Event as the API takes it from the agent on this node; `microseconds` since 1970.
std::string event_body(const Event &event, const std::string &node, int64_t microseconds);

} // namespace thruway
