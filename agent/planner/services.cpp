// SPDX-License-Identifier: Apache-2.0
#include "agent/planner/services.h"

#include <algorithm>

namespace thruway {
namespace {

bool can_serve(Protocol protocol)
{
    return protocol != Protocol::sctp;
}

/// Of two Services that want one frontend the older has it; names decide between equals, so that the order in which
/// they came does not.
bool goes_before(const Service &a, const Service &b)
{
    return std::tie(a.created, a.name) < std::tie(b.created, b.name);
}

bool external(const Service &service)
{
    return service.type == ServiceType::node_port || service.type == ServiceType::load_balancer;
}

/// The ready endpoints of a port, from all slices of the family that name it.
std::vector<Backend> ready_backends(const std::vector<const EndpointSlice *> &slices, const ServiceKey &key)
{
    std::vector<Backend> backends;

    for (const EndpointSlice *slice : slices) {
        if (slice->family != key.family)
            continue;
        for (const SlicePort &port : slice->ports) {
            if (port.name != key.port || port.protocol != key.protocol)
                continue;
            for (const Endpoint &endpoint : slice->endpoints)
                if (endpoint.conditions & Endpoint::ready)
                    backends.push_back({endpoint.address, port.port});
        }
    }
    std::ranges::sort(backends);
    const auto [first, last] = std::ranges::unique(backends);
    backends.erase(first, last);
    return backends;
}

} // namespace

void ServicePlanner::upsert(Service service)
{
    Owner &entry = owner(service.name);
    entry.second.service = std::move(service);
    entry.second.claims = true;
    dirty_.insert(&entry);
}

void ServicePlanner::remove_service(const ObjectName &name)
{
    if (auto found = services_.find(name); found != services_.end()) {
        found->second.service.reset();
        found->second.claims = true;
        dirty_.insert(&*found);
    }
}

void ServicePlanner::upsert(EndpointSlice slice)
{
    auto [found, inserted] = slices_.try_emplace(slice.name);
    if (!inserted && found->second.service != slice.service)
        detach(found->second);
    const bool attached = !inserted && found->second.service == slice.service;
    found->second = std::move(slice);
    Owner &entry = owner({found->second.name.space, found->second.service});
    if (!attached)
        entry.second.slices.push_back(&found->second);
    dirty_.insert(&entry);
}

void ServicePlanner::remove_slice(const ObjectName &name)
{
    if (auto found = slices_.find(name); found != slices_.end()) {
        detach(found->second);
        slices_.erase(found);
    }
}

void ServicePlanner::detach(const EndpointSlice &slice)
{
    Owner &entry = owner({slice.name.space, slice.service});
    std::erase(entry.second.slices, &slice);
    dirty_.insert(&entry);
}

ServiceChanges ServicePlanner::take_changes()
{
    ServiceChanges changes;
    Dirty changed;

    claim(changed);
    for (Owner *entry : changed) {
        plan(*entry, changes);
        if (!entry->second.service && entry->second.slices.empty())
            services_.erase(services_.find(entry->first));
    }
    return changes;
}

std::vector<std::string> ServicePlanner::take_refusals()
{
    return std::exchange(refusals_, {});
}

std::vector<ServicePlanner::Wish> ServicePlanner::wishes(const Service &service) const
{
    std::vector<Wish> all;

    if (!service.proxied)
        return all;
    for (const Address &address : service.cluster_ips) {
        for (size_t i = 0; i < service.ports.size(); i++) {
            const ServicePort &port = service.ports[i];
            if (!can_serve(port.protocol))
                continue;
            all.push_back({{address, port.port, port.protocol}, i});
            if (external(service) && port.node_port)
                all.push_back({{Address::any(address.family()), port.node_port, port.protocol}, i});
        }
    }
    return all;
}

/// Settles who has which frontend. Services that have changed first give back what they had, all of them, and only then
/// ask again: in between, what is held and waited for is the others', whose order has not changed.
void ServicePlanner::claim(Dirty &changed)
{
    for (Owner *entry : dirty_)
        if (entry->second.claims)
            for (const Wish &wish : entry->second.wishes)
                release(*entry, wish.frontend, changed);
    for (Owner *entry : dirty_) {
        changed.insert(entry);
        if (!std::exchange(entry->second.claims, false))
            continue;
        entry->second.wishes = entry->second.service ? wishes(*entry->second.service) : std::vector<Wish>{};
        for (const Wish &wish : entry->second.wishes)
            take(*entry, wish.frontend, changed);
    }
    dirty_.clear();
}

void ServicePlanner::take(Owner &entry, const Frontend &frontend, Dirty &changed)
{
    auto [found, free] = owners_.try_emplace(frontend, &entry);
    if (free || found->second == &entry)
        return;
    Owner *other = found->second;
    if (goes_before(*entry.second.service, *other->second.service)) {
        found->second = &entry;
        waiting_.emplace(frontend, other);
        changed.insert(other);
        return;
    }
    auto [first, last] = waiting_.equal_range(frontend);
    if (std::none_of(first, last, [&](const auto &waiter) { return waiter.second == &entry; }))
        waiting_.emplace(frontend, &entry);
}

void ServicePlanner::release(Owner &entry, const Frontend &frontend, Dirty &changed)
{
    auto [first, last] = waiting_.equal_range(frontend);
    if (const auto mine = std::find_if(first, last, [&](const auto &w) { return w.second == &entry; }); mine != last) {
        waiting_.erase(mine);
        return;
    }
    const auto found = owners_.find(frontend);
    if (found == owners_.end() || found->second != &entry)
        return;
    auto heir = last;
    for (auto waiter = first; waiter != last; ++waiter) {
        if (!waiter->second->second.service) // removed in this very round: about to give its place up
            continue;
        if (heir == last || goes_before(*waiter->second->second.service, *heir->second->second.service))
            heir = waiter;
    }
    if (heir == last) {
        owners_.erase(found);
        return;
    }
    found->second = heir->second;
    changed.insert(heir->second);
    waiting_.erase(heir);
}

bool ServicePlanner::has(const Owner &entry, const Wish &wish) const
{
    if (owners_.at(wish.frontend) != &entry)
        return false;
    const auto first = std::ranges::find(entry.second.wishes, wish.frontend, &Wish::frontend);
    return first->port == wish.port;
}

void ServicePlanner::plan(Owner &entry, ServiceChanges &changes)
{
    std::vector<ServiceKey> told;

    if (entry.second.service && entry.second.service->proxied) {
        const Service &service = *entry.second.service;
        for (const Address &address : service.cluster_ips) {
            for (size_t i = 0; i < service.ports.size(); i++) {
                const ServicePort &port = service.ports[i];
                ServicePlan plan;
                plan.key = {service.name, port.name, port.protocol, address.family()};
                if (!can_serve(port.protocol) || std::ranges::find(told, plan.key) != told.end())
                    continue;
                for (const Wish &wish : entry.second.wishes)
                    if (wish.port == i && wish.frontend.address.family() == address.family() && has(entry, wish))
                        plan.frontends.push_back(wish.frontend);
                plan.backends = ready_backends(entry.second.slices, plan.key);
                told.push_back(plan.key);
                changes.upserts.push_back(std::move(plan));
            }
        }
    }
    for (const ServiceKey &key : entry.second.told)
        if (std::ranges::find(told, key) == told.end())
            changes.deletes.push_back(key);
    entry.second.told = std::move(told);
    tell_faults(entry);
}

void ServicePlanner::tell_faults(Owner &entry)
{
    std::vector<std::string> faults;

    if (entry.second.service && entry.second.service->proxied) {
        const Service &service = *entry.second.service;
        for (size_t i = 0; i < service.ports.size(); i++)
            if (!can_serve(service.ports[i].protocol))
                faults.push_back(fmt::format("Service {}: spec.ports[{}].protocol: {} is not supported",
                                             service.name.text(), i, protocol_name(service.ports[i].protocol)));
        for (const Wish &wish : entry.second.wishes) {
            if (has(entry, wish))
                continue;
            const bool node_port = wish.frontend.address.is_unspecified();
            const Owner *holder = owners_.at(wish.frontend);
            faults.push_back(fmt::format(
                "Service {}: spec.ports[{}].{}: {} belongs to {}", service.name.text(), wish.port,
                node_port ? "nodePort" : "port",
                node_port ? fmt::format("{}/{}", wish.frontend.port, protocol_name(wish.frontend.protocol))
                          : wish.frontend.text(),
                holder == &entry ? "another of its ports" : fmt::format("Service {}", holder->first.text())));
        }
    }
    for (const std::string &fault : faults)
        if (std::ranges::find(entry.second.faults, fault) == entry.second.faults.end())
            refusals_.push_back(fault);
    entry.second.faults = std::move(faults);
}

size_t ServicePlanner::service_count() const
{
    return static_cast<size_t>(
        std::ranges::count_if(services_, [](const auto &e) { return e.second.service.has_value(); }));
}

const Service *ServicePlanner::service(const ObjectName &name) const
{
    const auto found = services_.find(name);
    return found != services_.end() && found->second.service ? &*found->second.service : nullptr;
}

std::vector<const EndpointSlice *> ServicePlanner::slices_of(const ObjectName &name) const
{
    const auto found = services_.find(name);
    return found != services_.end() ? found->second.slices : std::vector<const EndpointSlice *>{};
}

} // namespace thruway
