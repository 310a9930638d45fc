// SPDX-License-Identifier: Apache-2.0
#include "tools/thruway/tables.h"

#include <arpa/inet.h>
#include <array>
#include <iterator>
#include <map>
#include <net/if.h>

namespace thruway::cli {
namespace {

/// Calls `visit(slot)` for each slot of a range. A range that reaches beyond the table is not of an agent's making.
template<typename Visit>
void each_slot(const Arrays &arrays, const tw_range &range, Visit visit)
{
    const uint64_t end = uint64_t{range.base} + range.count;
    for (uint64_t at = range.base; at < end && at / 2 < arrays.slots.size(); at++)
        visit(static_cast<uint32_t>(at));
}

BackendEntry backend_entry(const Arrays &arrays, uint32_t index)
{
    const tw_backend &row = arrays.backends[index];
    return {index, {Address(row.address), ntohs(row.port)}};
}

} // namespace

std::vector<BackendEntry> backends_in(const Arrays &arrays, const tw_range &range)
{
    std::vector<BackendEntry> backends;
    each_slot(arrays, range, [&](uint32_t slot) {
        if (const uint32_t index = arrays.slot(slot); index < arrays.backends.size())
            backends.push_back(backend_entry(arrays, index));
    });
    return backends;
}

std::vector<BackendEntry> backends_of(const Arrays &arrays, uint32_t id)
{
    const tw_service row = arrays.services[id];
    std::vector<BackendEntry> backends = backends_in(arrays, row.cluster);
    std::ranges::move(backends_in(arrays, row.local), std::back_inserter(backends));
    const auto order = [](const BackendEntry &b) { return std::pair(b.at, b.index); };
    std::ranges::sort(backends, {}, order);
    const auto [first, last] = std::ranges::unique(backends, {}, order);
    backends.erase(first, last);
    return backends;
}

HopEntry read_way(const Arrays &arrays, uint32_t index)
{
    HopEntry way;
    if (index >= arrays.nexthops.size())
        return way;
    const tw_nexthop row = arrays.nexthops[index];
    way.ifindex = row.link.ifindex;
    way.interface = interface_name(way.ifindex);
    way.mtu = row.link.mtu;
    if (row.to.flags & TW_NEXTHOP_RESOLVED)
        way.mac = std::to_array(row.to.mac);
    if (row.gateway != 0 && row.gateway < arrays.addresses.size())
        way.gateway = Address(arrays.addresses[row.gateway]);
    return way;
}

Frontend frontend_of(const tw_frontend &raw)
{
    return {Address(raw.address), ntohs(raw.port), static_cast<Protocol>(raw.protocol)};
}

std::string interface_name(uint32_t ifindex)
{
    std::array<char, IF_NAMESIZE> name{};
    return ::if_indextoname(ifindex, name.data()) ? name.data() : "";
}

Result<std::vector<ServiceEntry>> read_services(const Site &site)
{
    auto frontends = sorted_entries<tw_frontend, uint32_t>(site.maps.frontends);
    if (!frontends)
        return std::unexpected(frontends.error());
    std::map<uint32_t, ServiceEntry> by_id;
    for (const auto &[frontend, value] : *frontends)
        if (const uint32_t id = service_of(value);
            id < site.arrays.services.size()) // a number beyond is not of an agent's making
            by_id[id].frontends.push_back(frontend_of(frontend));
    std::vector<ServiceEntry> services;
    services.reserve(by_id.size());
    for (auto &[id, service] : by_id) {
        std::ranges::sort(service.frontends);
        service.id = id;
        service.backends = backends_of(site.arrays, id);
        services.push_back(std::move(service));
    }
    return services;
}

std::vector<BackendEntry> read_backends(const Site &site)
{
    std::vector<BackendEntry> backends;
    for (uint32_t i = 0; i < site.arrays.backends.size(); i++)
        if (site.arrays.backends[i].flags & TW_BACKEND_SERVING)
            backends.push_back(backend_entry(site.arrays, i));
    return backends;
}

Result<std::vector<EndpointEntry>> read_endpoints(const Site &site)
{
    auto addresses = sorted_entries<tw_address, uint32_t>(site.maps.endpoints);
    if (!addresses)
        return std::unexpected(addresses.error());
    std::map<uint32_t, EndpointEntry> by_id;
    for (const auto &[address, id] : *addresses)
        by_id[id].addresses.emplace_back(address);
    std::vector<EndpointEntry> endpoints;
    endpoints.reserve(by_id.size());
    for (auto &[id, endpoint] : by_id) {
        endpoint.id = id;
        endpoint.way = read_way(site.arrays, id);
        endpoints.push_back(std::move(endpoint));
    }
    return endpoints;
}

Result<std::vector<NodeEntry>> read_nodes(const Site &site)
{
    auto cidrs = sorted_entries<tw_cidr, uint32_t>(site.maps.nodes);
    if (!cidrs)
        return std::unexpected(cidrs.error());
    std::vector<NodeEntry> nodes;
    nodes.reserve(cidrs->size());
    for (const auto &[cidr, index] : *cidrs)
        nodes.push_back({prefix_of(cidr), index == 0 ? std::nullopt : std::optional(read_way(site.arrays, index))});
    std::ranges::sort(nodes, {}, &NodeEntry::prefix);
    return nodes;
}

Result<std::vector<bool>> services_in_use(const Site &site)
{
    std::vector<bool> used(site.arrays.services.size());
    auto walked = site.maps.frontends.each<tw_frontend, uint32_t>([&](const tw_frontend &, uint32_t value) {
        if (const uint32_t id = service_of(value); id < used.size())
            used[id] = true;
    });
    if (!walked)
        return std::unexpected(walked.error());
    return used;
}

std::vector<bool> slots_in_use(const Arrays &arrays, const std::vector<bool> &services)
{
    std::vector<bool> used(size_t{arrays.slots.size()} * 2);
    for (uint32_t id = 0; id < services.size(); id++) {
        if (!services[id])
            continue;
        const tw_service row = arrays.services[id];
        for (const tw_range &range : {row.cluster, row.local})
            each_slot(arrays, range, [&](uint32_t slot) { used[slot] = true; });
    }
    return used;
}

} // namespace thruway::cli
