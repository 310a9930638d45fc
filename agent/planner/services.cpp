// SPDX-License-Identifier: Apache-2.0
#include "agent/planner/services.h"

#include <algorithm>
#include <iterator>
#include <optional>

namespace thruway {
namespace {

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

std::vector<Address> of_family(const std::vector<Address> &addresses, Family family)
{
    std::vector<Address> all;
    std::ranges::copy_if(addresses, std::back_inserter(all),
                         [&](const Address &address) { return address.family() == family; });
    return all;
}

/// Who may dial the load balancer's addresses of this family: nothing if everybody may. A node that may also does by an
/// address of the load balancer that it has itself (kube-proxy, pkg/proxy/nftables/proxier.go).
std::optional<std::vector<Prefix>> allowed_sources(const Service &service, Family family, const Place &place)
{
    std::vector<Prefix> ranges;
    for (const Prefix &range : service.source_ranges) {
        if (range.family() != family)
            continue;
        if (range.length() == 0)
            return std::nullopt;
        ranges.push_back(range);
    }
    if (ranges.empty())
        return std::nullopt;
    const bool node_may = std::ranges::any_of(place.addresses, [&](const Address &address) {
        return std::ranges::any_of(ranges, [&](const Prefix &range) { return range.contains(address); });
    });
    if (node_may)
        for (const Address &address : of_family(service.balancer_ips, family))
            ranges.emplace_back(address, static_cast<unsigned>(address.size() * 8));
    std::ranges::sort(ranges);
    const auto [first, last] = std::ranges::unique(ranges);
    ranges.erase(first, last);
    return ranges;
}

} // namespace

bool ServicePlanner::set_place(Place place)
{
    if (place_ == place)
        return false;
    place_ = std::move(place);
    for (Owner &entry : services_) {
        entry.second.claims = true;
        dirty_.insert(&entry);
    }
    return true;
}

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
    const auto wish = [&](const Address &address, uint16_t number, tw_frontend_kind kind, size_t port) {
        const Frontend frontend{address, number, service.ports[port].protocol};
        if (std::ranges::none_of(all, [&](const Wish &w) { return w.port == port && w.entrance == frontend; }))
            all.push_back({{frontend, kind}, port});
    };
    for (const Address &address : service.cluster_ips) {
        // A ClusterIP that this node has is served here by something of its own: NodeLocal DNSCache.
        const Family family = address.family();
        for (size_t i = 0; i < service.ports.size(); i++) {
            const ServicePort &port = service.ports[i];
            if (std::ranges::find(place_.addresses, address) == place_.addresses.end())
                wish(address, port.port, TW_FRONTEND_CLUSTER, i);
            if (external(service) && port.node_port)
                wish(Address::any(family), port.node_port, TW_FRONTEND_NODE_PORT, i);
            // An address that is both is the balancer's: source ranges count.
            for (const Address &ip : of_family(service.balancer_ips, family))
                wish(ip, port.port, TW_FRONTEND_BALANCER, i);
            for (const Address &ip : of_family(service.external_ips, family))
                wish(ip, port.port, TW_FRONTEND_EXTERNAL, i);
        }
    }
    if (service.health_port)
        for (const Family family : {Family::ipv4, Family::ipv6})
            all.push_back({{{Address::any(family), service.health_port, Protocol::tcp}, TW_FRONTEND_NODE_PORT},
                           Wish::health_check});
    return all;
}

/// Settles who has which frontend. Services that have changed first give back what they had, all of them, and only then
/// ask again: in between, what is held and waited for is the others', whose order has not changed.
void ServicePlanner::claim(Dirty &changed)
{
    for (Owner *entry : dirty_)
        if (entry->second.claims)
            for (const Wish &wish : entry->second.wishes)
                release(*entry, wish.entrance, changed);
    for (Owner *entry : dirty_) {
        changed.insert(entry);
        if (!std::exchange(entry->second.claims, false))
            continue;
        entry->second.wishes = entry->second.service ? wishes(*entry->second.service) : std::vector<Wish>{};
        for (const Wish &wish : entry->second.wishes)
            take(*entry, wish.entrance, changed);
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
    if (owners_.at(wish.entrance) != &entry)
        return false;
    const auto first = std::ranges::find(entry.second.wishes, wish.entrance, &Wish::entrance);
    return first->port == wish.port;
}

ServicePlan ServicePlanner::plan_port(const Owner &entry, size_t port, const ServiceKey &key) const
{
    const Service &service = *entry.second.service;
    ServicePlan plan;
    plan.key = key;
    bool balanced = false;
    for (const Wish &wish : entry.second.wishes) {
        if (wish.port != port || wish.entrance.address.family() != key.family || !has(entry, wish))
            continue;
        plan.frontends.push_back(wish.entrance);
        balanced |= wish.entrance.kind == TW_FRONTEND_BALANCER;
    }
    Choice choice = choose_endpoints(entry.second.slices, key, place_);
    plan.backends = std::move(choice.cluster);
    plan.internal_local = service.internal_local;
    plan.external_local = service.external_local;
    if (service.internal_local || service.external_local)
        plan.local = std::move(choice.local);
    if (key.protocol == Protocol::udp)
        plan.serving = std::move(choice.serving);
    if (auto sources = balanced ? allowed_sources(service, key.family, place_) : std::nullopt) {
        plan.filtered = true;
        plan.source_ranges = std::move(*sources);
    }
    plan.affinity = service.affinity;
    return plan;
}

void ServicePlanner::plan(Owner &entry, ServiceChanges &changes)
{
    std::vector<ServiceKey> told;

    if (entry.second.service && entry.second.service->proxied) {
        const Service &service = *entry.second.service;
        for (const Address &address : service.cluster_ips) {
            for (size_t i = 0; i < service.ports.size(); i++) {
                const ServicePort &port = service.ports[i];
                const ServiceKey key{service.name, port.name, port.protocol, address.family()};
                if (std::ranges::find(told, key) != told.end())
                    continue;
                told.push_back(key);
                changes.upserts.push_back(plan_port(entry, i, key));
            }
        }
    }
    for (const ServiceKey &key : entry.second.told)
        if (std::ranges::find(told, key) == told.end())
            changes.deletes.push_back(key);
    entry.second.told = std::move(told);
    if (const HealthCheck health = plan_health(entry); health != entry.second.health) {
        changes.health_checks.emplace_back(entry.first, health);
        entry.second.health = health;
    }
    tell_faults(entry);
}

/// None unless the port is this Service's in both families, since one server is for both.
HealthCheck ServicePlanner::plan_health(const Owner &entry) const
{
    const auto granted = std::ranges::count_if(
        entry.second.wishes, [&](const Wish &wish) { return wish.port == Wish::health_check && has(entry, wish); });
    if (granted < 2)
        return {};
    const Service &service = *entry.second.service;
    return {service.health_port, count_ready_here(entry.second.slices, service, place_)};
}

/// The field that has the wish's port.
std::string ServicePlanner::field_of(const Wish &wish)
{
    if (wish.port == Wish::health_check)
        return "spec.healthCheckNodePort";
    return fmt::format("spec.ports[{}].{}", wish.port, wish.entrance.address.is_unspecified() ? "nodePort" : "port");
}

void ServicePlanner::tell_faults(Owner &entry)
{
    std::vector<std::string> faults;

    if (entry.second.service && entry.second.service->proxied) {
        const Service &service = *entry.second.service;
        for (const Wish &wish : entry.second.wishes) {
            if (has(entry, wish))
                continue;
            const bool node_port = wish.entrance.address.is_unspecified();
            const Owner *holder = owners_.at(wish.entrance);
            std::string fault = fmt::format(
                "Service {}: {}: {} belongs to {}", service.name.text(), field_of(wish),
                node_port ? fmt::format("{}/{}", wish.entrance.port, protocol_name(wish.entrance.protocol))
                          : wish.entrance.text(),
                holder == &entry ? "another of its ports" : fmt::format("Service {}", holder->first.text()));
            if (std::ranges::find(faults, fault) == faults.end()) // the same in the other family
                faults.push_back(std::move(fault));
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
