// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "tools/lab/pods.h"
#include "tools/lab/topology.h"

#include <string>

/// Kubernetes objects of what the lab makes, as the control plane would show them.
namespace thruway::lab {

/// Under which name a pod's manifest is put.
std::string manifest_name(const Node &node);
std::string manifest_name(const Pod &pod);

std::string manifest_text(const Node &node);
std::string manifest_text(const Pod &pod);

} // namespace thruway::lab
