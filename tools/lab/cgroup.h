// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "agent/base/error.h"

#include <filesystem>
#include <string_view>

namespace thruway::lab {

/// Where the lab's control groups are, under the cgroup2 file system wherever it is mounted: a folder thruway-lab-NAME
/// with one folder a node, and in it one for the node's pods, as all of a real node's are below one root.
Result<std::filesystem::path> lab_cgroup(std::string_view lab);

/// Removes a group and those below it. No process may be left in them.
Result<> remove_cgroup(const std::filesystem::path &path);

} // namespace thruway::lab
