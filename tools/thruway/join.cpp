// SPDX-License-Identifier: Apache-2.0
#include "tools/thruway/join.h"

#include <map>

namespace thruway::cli {
namespace {

/// The Service port that the frontends of a row belong to.
const ServiceKey *key_of(const ServiceEntry &entry, const Names &names)
{
    for (const Frontend &frontend : entry.frontends)
        if (const ServiceKey *key = names.service_at(frontend))
            return key;
    return nullptr;
}

void add_entry(JoinedService &joined, const ServiceEntry &entry)
{
    joined.ids.push_back(entry.id);
    joined.frontends.insert(joined.frontends.end(), entry.frontends.begin(), entry.frontends.end());
    for (const BackendEntry &backend : entry.backends)
        joined.backends.push_back({.entry = backend});
}

/// True if the maps hold all that is wanted. Both are sorted.
bool holds(const ServiceEntry &entry, const ServicePlan &plan)
{
    return std::ranges::includes(entry.frontends, plan.frontends) &&
           std::ranges::includes(entry.backends, plan.backends, {}, &BackendEntry::at);
}

/// Finds the slices' word on each backend: of several slices the one that calls it ready.
void find_endpoints(JoinedService &joined, const Names &names)
{
    std::unordered_map<Backend, JoinedBackend> known;
    for (const EndpointSlice *slice : names.slices_of(joined.name->service)) {
        for (const SlicePort &port : slice->ports) {
            if (port.name != joined.name->port || port.protocol != joined.name->protocol)
                continue;
            for (const Endpoint &endpoint : slice->endpoints) {
                JoinedBackend &found = known[{endpoint.address, port.port}];
                if (!found.endpoint || !(found.endpoint->conditions & Endpoint::ready))
                    found = {.endpoint = &endpoint, .pod = slice->pod_of(endpoint)};
            }
        }
    }
    for (JoinedBackend &backend : joined.backends) {
        if (const auto found = known.find(backend.entry.at); found != known.end()) {
            backend.endpoint = found->second.endpoint;
            backend.pod = found->second.pod;
        }
    }
}

} // namespace

std::vector<JoinedService> join_services(const std::vector<ServiceEntry> &entries, const Names &names)
{
    std::map<PortName, JoinedService> named;
    std::vector<JoinedService> nameless;
    std::unordered_map<ServiceKey, const ServiceEntry *> by_key;

    for (const ServiceEntry &entry : entries) {
        const ServiceKey *key = key_of(entry, names);
        add_entry(key ? named[port_name(*key)] : nameless.emplace_back(), entry);
        if (key)
            by_key.emplace(*key, &entry);
    }
    for (const ServicePlan &plan : names.plans()) {
        const auto entry = by_key.find(plan.key);
        if (entry == by_key.end() || !holds(*entry->second, plan))
            named[port_name(plan.key)].programmed = false;
    }

    std::vector<JoinedService> all;
    all.reserve(named.size() + nameless.size());
    for (auto &[name, joined] : named) {
        joined.name = name;
        joined.service = names.service(name.service);
        std::ranges::sort(joined.frontends);
        std::ranges::sort(joined.backends, {}, [](const JoinedBackend &b) { return b.entry.at; });
        find_endpoints(joined, names);
        all.push_back(std::move(joined));
    }
    std::ranges::move(nameless, std::back_inserter(all));
    return all;
}

ServiceNames names_by_id(const std::vector<JoinedService> &services)
{
    ServiceNames names;
    for (const JoinedService &service : services)
        for (const uint32_t id : service.ids)
            if (service.name)
                names.emplace(id, *service.name);
    return names;
}

} // namespace thruway::cli
