// SPDX-License-Identifier: Apache-2.0
#include "agent/observe/drops.h"

#include <bpf/libbpf.h>

namespace thruway {

Result<std::vector<DropCount>> read_drops(const Maps &maps)
{
    const auto cpus = static_cast<size_t>(libbpf_num_possible_cpus());
    std::vector<DropCount> drops;
    auto walked = maps.drops.each_raw([&](const void *key, const void *value) {
        uint32_t index = 0;
        std::memcpy(&index, key, sizeof(index));
        DropCount drop{static_cast<tw_drop>(index / TW_HOOKS), static_cast<tw_hook>(index % TW_HOOKS), 0, 0};
        for (size_t cpu = 0; cpu < cpus; cpu++) {
            tw_count count{};
            std::memcpy(&count, static_cast<const char *>(value) + cpu * sizeof(count), sizeof(count));
            drop.packets += count.packets;
            drop.bytes += count.bytes;
        }
        if (drop.packets > 0)
            drops.push_back(drop);
    });
    if (!walked)
        return std::unexpected(walked.error());
    return drops;
}

} // namespace thruway
