// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "agent/base/error.h"

#include <filesystem>

namespace thruway::cni {

/// Copies this program, and the folder NAME.lib beside it if there is one, into a folder of plugins, and then puts a
/// network configuration that names it into the other folder. Each file comes in one step: a container runtime may run
/// what is there at any moment.
Result<> install(const std::filesystem::path &plugins, const std::filesystem::path &configurations);

} // namespace thruway::cni
