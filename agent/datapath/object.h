// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "agent/base/error.h"
#include "agent/datapath/layout.h"
#include "datapath.skel.h"

#include <array>
#include <memory>

namespace thruway {

struct SkeletonCloser {
    void operator()(datapath *skeleton) const { datapath__destroy(skeleton); }
};
using Skeleton = std::unique_ptr<datapath, SkeletonCloser>;

/// The BPF programs that this binary carries, to be given maps and constants and then loaded.
Result<Skeleton> open_object();

/// Verifies and loads them with these constants. Map `steps` is for a dry run only: without it, anything that would
/// write to it must be dead code, or the kernel refuses the programs.
Result<> load_object(datapath &skeleton, const tw_config &config);

using ProgramsDigest = std::array<uint8_t, sizeof(tw_layout::programs)>;

/// What loaded programs are made of: code, constants, and the very maps they use.
ProgramsDigest digest_of(const tw_config &config, const Maps &maps);

} // namespace thruway
