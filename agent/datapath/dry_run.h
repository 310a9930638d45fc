// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "agent/base/error.h"
#include "agent/base/fd.h"
#include "agent/datapath/layout.h"
#include "agent/datapath/links.h"

#include <span>
#include <string>
#include <thruway/steps.h>
#include <vector>

namespace thruway {

/// What a dry run made of a packet.
struct Walk {
    int verdict = 0; ///< as the program returned it: see bpf/lib/kernel.h
    std::vector<uint8_t> frame;
    std::vector<tw_step> steps;
};

/// The programs that run here, loaded once more: the same code with the same constants on the same maps, but for `dry`.
/// Nothing is pinned or attached, and nothing is written but records of what was decided.
class DryRun {
public:
    /// Fails if what runs here is of another build than this program: its answers would be about other code.
    static Result<DryRun> load(const std::string &bpffs, const Maps &maps);

    /// What the program of a device (not one of the cgroup's) would do with this frame on the interface.
    Result<Walk> run(HookIndex hook, unsigned ifindex, std::span<const uint8_t> frame);

private:
    std::vector<Fd> programs_; // as `hooks` has them
    MappedArray<tw_steps> steps_;
};

} // namespace thruway
