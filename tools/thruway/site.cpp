// SPDX-License-Identifier: Apache-2.0
#include "tools/thruway/site.h"

#include <unistd.h>

namespace thruway::cli {
namespace {

/// Fails unless the maps are of the layout that this program knows.
Result<> check_layout(const std::string &bpffs)
{
    auto map = Map::open(bpffs + "/layout", "layout");
    if (!map) {
        const int code = map.error().code();
        if (code == ENOENT || code == ENOTDIR)
            return fail("no agent has run here: there are no maps in {} (--bpffs)", bpffs);
        if ((code == EPERM || code == EACCES) && ::geteuid() != 0)
            return fail("must run as root: it reads the maps in {}", bpffs);
        if (code == EACCES)
            return fail("no agent has run here: {} is not in a bpffs (--bpffs)", bpffs);
        return std::unexpected(map.error());
    }
    auto layout = MappedArray<tw_layout>::of(*map, false);
    if (!layout)
        return fail_within(fmt::format("{} holds maps of another release", bpffs), layout.error());
    const uint32_t version = (*layout)[0].version;
    if (version == 0)
        return fail("the maps in {} are not complete: the first start of the agent was cut short", bpffs);
    if (version != TW_LAYOUT_VERSION)
        return fail("{} holds maps of layout version {}, this thruway knows version {}: use the one that came with the "
                    "agent",
                    bpffs, version, TW_LAYOUT_VERSION);
    return {};
}

} // namespace

Result<Site> Site::open(const std::string &run_dir, const std::string &bpffs)
{
    if (auto checked = check_layout(bpffs); !checked)
        return std::unexpected(checked.error());
    auto maps = Maps::open(bpffs);
    if (!maps)
        return std::unexpected(maps.error());
    auto arrays = Arrays::of(*maps, false);
    if (!arrays)
        return std::unexpected(arrays.error());
    return Site{run_dir, bpffs, std::move(*maps), std::move(*arrays)};
}

} // namespace thruway::cli
