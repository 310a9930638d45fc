// SPDX-License-Identifier: Apache-2.0
#include "agent/observe/snat.h"

#include <bpf/libbpf.h>

namespace thruway {

Result<tw_snat> read_snat(const Maps &maps)
{
    const auto cpus = static_cast<size_t>(libbpf_num_possible_cpus());
    tw_snat total{};
    auto walked = maps.snat.each_raw([&](const void *, const void *value) {
        for (size_t cpu = 0; cpu < cpus; cpu++) {
            tw_snat count{};
            std::memcpy(&count, static_cast<const char *>(value) + cpu * sizeof(count), sizeof(count));
            total.ports += count.ports;
            total.collisions += count.collisions;
            total.exhausted += count.exhausted;
        }
    });
    if (!walked)
        return std::unexpected(walked.error());
    return total;
}

} // namespace thruway
