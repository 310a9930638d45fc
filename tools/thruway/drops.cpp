// SPDX-License-Identifier: Apache-2.0
#include "tools/thruway/drops.h"

namespace thruway::cli {

Row drop_row(const DropCount &drop)
{
    return {{"reason", drop_name(drop.reason)},
            {"direction", hook_name(drop.hook)},
            {"packets", drop.packets},
            {"bytes", drop.bytes},
            {"meaning", drop_meaning(drop.reason)}};
}

Listing drop_list(const Site &site)
{
    return {.columns = {column("REASON", "/reason"), column("DIRECTION", "/direction"), column("PACKETS", "/packets"),
                        column("BYTES", "/bytes"), column("MEANING", "/meaning")},
            .produce = [&site](const Sink &sink) -> Result<> {
                auto drops = read_drops(site.maps);
                if (!drops)
                    return std::unexpected(drops.error());
                for (const DropCount &drop : *drops)
                    sink(drop_row(drop));
                return {};
            }};
}

} // namespace thruway::cli
