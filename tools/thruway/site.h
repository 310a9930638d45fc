// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "agent/datapath/layout.h"

#include <string>

namespace thruway::cli {

/// A node as what an agent has pinned and saved shows it, whether that agent runs or not. Only for reading.
struct Site {
    std::string run_dir;
    std::string bpffs;
    Maps maps;
    Arrays arrays;

    /// Fails if no agent has run here, or one of a release whose maps have another layout.
    static Result<Site> open(const std::string &run_dir, const std::string &bpffs);
};

} // namespace thruway::cli
