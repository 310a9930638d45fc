// SPDX-License-Identifier: Apache-2.0
#include "tools/thruway/maps.h"

#include "tools/thruway/views.h"

#include <algorithm>
#include <bpf/libbpf.h>

namespace thruway::cli {
namespace {

Result<Row> map_row(const Site &site, const Map &map)
{
    Row row{{"name", map.name()}};
    if (const char *type = libbpf_bpf_map_type_str(static_cast<bpf_map_type>(map.type())))
        row["type"] = type;
    row["key_size"] = map.key_size();
    row["value_size"] = map.value_size();
    if (map.type() != BPF_MAP_TYPE_SK_STORAGE) { // has as many entries as there are sockets, and they cannot be walked
        auto view = view_of(site, map.name());
        if (!view)
            return std::unexpected(view.error());
        auto entries = view->count();
        if (!entries)
            return std::unexpected(entries.error());
        row["entries"] = *entries;
        row["capacity"] = view->capacity;
    }
    if (auto memory = map.memory())
        row["memory_bytes"] = *memory;
    return row;
}

/// "/cluster/base" -> "CLUSTER.BASE"
std::string header_of(const std::string &field)
{
    std::string header = field.substr(1);
    std::ranges::transform(header, header.begin(), [](unsigned char c) { return c == '/' ? '.' : std::toupper(c); });
    return header;
}

} // namespace

Listing map_list(const Site &site)
{
    return {.columns = {column("NAME", "/name"), column("TYPE", "/type"), column("KEY SIZE", "/key_size"),
                        column("VALUE SIZE", "/value_size"), column("ENTRIES", "/entries"),
                        column("CAPACITY", "/capacity"), column("MEMORY BYTES", "/memory_bytes")},
            .produce = [&site](const Sink &sink) -> Result<> {
                for (const Maps::Member &member : Maps::members) {
                    auto row = map_row(site, site.maps.*member.map);
                    if (!row)
                        return std::unexpected(row.error());
                    sink(*row);
                }
                return {};
            }};
}

Result<Listing> map_dump(const Site &site, const std::string &map, bool all)
{
    auto view = view_of(site, map);
    if (!view)
        return std::unexpected(view.error());
    Listing listing;
    for (const std::string &field : view->fields)
        listing.columns.push_back(column(header_of(field), field));
    listing.produce = [each = view->each, all](const Sink &sink) { return each(all, sink); };
    return listing;
}

} // namespace thruway::cli
