// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "tests/model/service_model.h"

#include <string>

/// The model's objects as Kubernetes manifests: what the agent's own code reads in tests, and what people read of a
/// case that failed.
namespace thruway::reference {

constexpr const char *space = "shop"; ///< the namespace of all objects

std::string manifest(const Service &service);
std::string manifest(const Slice &slice);
std::string manifest(const Node &node);

/// "TCP from outside: 172.21.0.2 to 10.96.0.1 port 80".
std::string text(const Packet &packet);
std::string text(const Backend &backend);
std::string text(const Answer &answer);

} // namespace thruway::reference
