// SPDX-License-Identifier: Apache-2.0
#include "agent/planner/choice.h"

#include <algorithm>
#include <set>
#include <tuple>

namespace thruway {
namespace {

/// An endpoint with the port that a slice gives it.
struct Candidate {
    Backend backend;
    const Endpoint *endpoint;
    const EndpointSlice *slice;

    [[nodiscard]] bool is(Endpoint::Condition condition) const { return (endpoint->conditions & condition) != 0; }
    [[nodiscard]] bool lingers() const { return is(Endpoint::serving) && is(Endpoint::terminating); }
    [[nodiscard]] const Hints &hints() const { return slice->hints.at(endpoint->hints); }

    /// Of several that are one backend the least counts.
    [[nodiscard]] auto order() const
    {
        return std::tuple(backend, is(Endpoint::terminating), !is(Endpoint::ready), !is(Endpoint::serving),
                          std::tie(slice->name.name));
    }
};

using Candidates = std::vector<Candidate>;

Candidates candidates_of(const std::vector<const EndpointSlice *> &slices, const ServiceKey &key)
{
    Candidates all;
    for (const EndpointSlice *slice : slices) {
        if (slice->family != key.family)
            continue;
        for (const SlicePort &port : slice->ports)
            if (port.name == key.port && port.protocol == key.protocol)
                for (const Endpoint &endpoint : slice->endpoints)
                    all.push_back({{endpoint.address, port.port}, &endpoint, slice});
    }
    std::ranges::sort(all, {}, &Candidate::order);
    const auto [first, last] = std::ranges::unique(all, {}, &Candidate::backend);
    all.erase(first, last);
    return all;
}

template<typename Wanted>
std::vector<Backend> backends_of(const Candidates &candidates, Wanted wanted)
{
    std::vector<Backend> backends;
    for (const Candidate &candidate : candidates)
        if (wanted(candidate))
            backends.push_back(candidate.backend);
    return backends;
}

/// The ready ones that their hints mean for `name`; none unless each of them has such hints.
std::vector<Backend> hinted(const Candidates &candidates, std::vector<Symbol> Hints::*list, Symbol name)
{
    const bool all = std::ranges::all_of(candidates, [&](const Candidate &candidate) {
        return !candidate.is(Endpoint::ready) || !(candidate.hints().*list).empty();
    });
    if (!all || name.empty())
        return {};
    return backends_of(candidates, [&](const Candidate &candidate) {
        return candidate.is(Endpoint::ready) &&
               std::ranges::find(candidate.hints().*list, name) != (candidate.hints().*list).end();
    });
}

/// Those of `where` that are ready; if none is, those that linger.
template<typename Where>
std::vector<Backend> usable(const Candidates &candidates, Where where)
{
    auto ready = backends_of(
        candidates, [&](const Candidate &candidate) { return where(candidate) && candidate.is(Endpoint::ready); });
    if (!ready.empty())
        return ready;
    return backends_of(candidates, [&](const Candidate &candidate) { return where(candidate) && candidate.lingers(); });
}

std::vector<Backend> cluster_of(const Candidates &candidates, const Place &place)
{
    if (auto near = hinted(candidates, &Hints::nodes, place.node); !near.empty())
        return near;
    if (auto near = hinted(candidates, &Hints::zones, place.zone); !near.empty())
        return near;
    return usable(candidates, [](const Candidate &) { return true; });
}

bool is_here(const Candidate &candidate, const Place &place)
{
    return !place.node.empty() && candidate.endpoint->node == place.node;
}

std::vector<Backend> local_of(const Candidates &candidates, const Place &place)
{
    return usable(candidates, [&](const Candidate &candidate) { return is_here(candidate, place); });
}

} // namespace

Choice choose_endpoints(const std::vector<const EndpointSlice *> &slices, const ServiceKey &key, const Place &place)
{
    const Candidates candidates = candidates_of(slices, key);
    return {cluster_of(candidates, place), local_of(candidates, place),
            backends_of(candidates, [](const Candidate &candidate) {
                return candidate.is(Endpoint::ready) || candidate.is(Endpoint::serving);
            })};
}

uint32_t count_ready_here(const std::vector<const EndpointSlice *> &slices, const Service &service, const Place &place)
{
    size_t most = 0;
    for (const Address &cluster_ip : service.cluster_ips) {
        std::set<Address> ready;
        for (const ServicePort &port : service.ports)
            for (const Candidate &candidate :
                 candidates_of(slices, {service.name, port.name, port.protocol, cluster_ip.family()}))
                if (candidate.is(Endpoint::ready) && is_here(candidate, place))
                    ready.insert(candidate.backend.address);
        most = std::max(most, ready.size());
    }
    return static_cast<uint32_t>(most);
}

} // namespace thruway
