// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "agent/datapath/flows.h"
#include "agent/node/netlink.h"
#include "tools/thruway/site.h"

#include <algorithm>
#include <optional>
#include <string>
#include <type_traits>
#include <utility>
#include <vector>

/// What the maps say, as plain values: whatever joins names to it needs no map, and can be tested without one.
namespace thruway::cli {

/// A row of `backends` that some service names.
struct BackendEntry {
    uint32_t index = 0;
    Backend at;
};

/// A row of `services` with what leads to it and what it leads to. Frontends and backends are sorted.
struct ServiceEntry {
    uint32_t id = 0;
    std::vector<Frontend> frontends;
    std::vector<BackendEntry> backends;
};

/// A row of `nexthops`.
struct HopEntry {
    uint32_t ifindex = 0;
    std::string interface; ///< empty if the kernel has none of this number
    uint16_t mtu = 0;
    std::optional<Mac> mac; ///< of the other side; none: not resolved
    std::optional<Address> gateway;
};

/// A pod of this node: an endpoint's id with all addresses that lead to it.
struct EndpointEntry {
    uint32_t id = 0;
    std::vector<Address> addresses;
    HopEntry way;
};

/// The way to the pods of a CIDR; none for those of this node.
struct NodeEntry {
    Prefix prefix;
    std::optional<HopEntry> way;
};

/// The backends that a range's slots name, in the range's order.
std::vector<BackendEntry> backends_in(const Arrays &arrays, const tw_range &range);

/// The backends of both ranges of a service, each once however many slots it has, sorted.
std::vector<BackendEntry> backends_of(const Arrays &arrays, uint32_t id);

/// The next hop of this index.
HopEntry read_way(const Arrays &arrays, uint32_t index);

/// Services that a frontend leads to, by id. One that nothing leads to is none that a packet could find.
Result<std::vector<ServiceEntry>> read_services(const Site &site);

/// All backends in use, by index.
std::vector<BackendEntry> read_backends(const Site &site);

Result<std::vector<EndpointEntry>> read_endpoints(const Site &site);
Result<std::vector<NodeEntry>> read_nodes(const Site &site);

/// Which rows of `services` a frontend leads to. Their flag tells less: it stays until a row's number is given out
/// anew.
Result<std::vector<bool>> services_in_use(const Site &site);

/// Which slots the ranges of these services cover.
std::vector<bool> slots_in_use(const Arrays &arrays, const std::vector<bool> &services);

/// The interface's name in this network namespace, empty if there is none.
std::string interface_name(uint32_t ifindex);

Frontend frontend_of(const tw_frontend &raw);

/// All entries of a hash or trie, each once, in an order that does not depend on how it is kept.
template<typename Key, typename Value>
Result<std::vector<std::pair<Key, Value>>> sorted_entries(const Map &map)
{
    using Entry = std::pair<Key, Value>;
    std::vector<Entry> entries;
    auto walked = map.each<Key, Value>([&](const Key &key, const Value &value) { entries.emplace_back(key, value); });
    if (!walked)
        return std::unexpected(walked.error());
    const auto compare = [](const Entry &a, const Entry &b) {
        if constexpr (std::is_integral_v<Key>)
            return a.first < b.first ? -1 : a.first > b.first;
        else
            return std::memcmp(&a.first, &b.first, sizeof(Key));
    };
    std::ranges::sort(entries, [&](const Entry &a, const Entry &b) { return compare(a, b) < 0; });
    // A walk begins anew when the entry that it stands on is deleted.
    const auto [first, last] =
        std::ranges::unique(entries, [&](const Entry &a, const Entry &b) { return compare(a, b) == 0; });
    entries.erase(first, last);
    return entries;
}

} // namespace thruway::cli
