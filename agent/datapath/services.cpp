// SPDX-License-Identifier: Apache-2.0
#include "agent/datapath/services.h"

#include "agent/datapath/keys.h"

#include <algorithm>
#include <arpa/inet.h>
#include <functional>

namespace thruway {
namespace {

Frontend from_raw(const tw_frontend &raw)
{
    return {Address(raw.address), ntohs(raw.port), static_cast<Protocol>(raw.protocol)};
}

bool has_vip(const Entrance &frontend)
{
    return frontend.kind == TW_FRONTEND_CLUSTER || frontend.kind == TW_FRONTEND_BALANCER;
}

tw_source_range source_range(uint32_t service, const Prefix &range)
{
    return {.bits = TW_SOURCE_RANGE_BITS + range.mapped_length(), .service = service, .address = range.address().raw()};
}

Prefix range_of(const tw_source_range &key)
{
    return Prefix::from_mapped(Address(key.address), key.bits - TW_SOURCE_RANGE_BITS);
}

} // namespace

Backend ServiceTables::RowHash::backend(uint32_t index) const
{
    const tw_backend &row = arrays->backends[index];
    return {Address(row.address), ntohs(row.port)};
}

ServiceTables::ServiceTables(const Maps &maps, Arrays &arrays, GracePeriod &grace)
    : maps_(&maps), arrays_(&arrays), grace_(&grace), ids_(1, maps.services.capacity()),
      ranges_(maps.slots.capacity() * 2), backend_indices_(0, maps.backends.capacity()),
      references_(maps.backends.capacity()), backends_(0, RowHash{&arrays}, RowEqual{RowHash{&arrays}})
{
}

Result<ServiceTables> ServiceTables::adopt(const Maps &maps, Arrays &arrays, GracePeriod &grace)
{
    ServiceTables tables(maps, arrays, grace);
    auto walked = maps.frontends.each<tw_frontend, uint32_t>([&](const tw_frontend &key, uint32_t value) {
        tables.orphans_.emplace(from_raw(key), value);
        tables.orphan_ids_.insert(service_of(value));
    });
    if (!walked)
        return std::unexpected(walked.error());
    for (const auto adopt : {&ServiceTables::adopt_sources, &ServiceTables::adopt_cidrs})
        if (auto adopted = (tables.*adopt)(); !adopted)
            return std::unexpected(adopted.error());
    for (const auto &[frontend, value] : tables.orphans_)
        tables.count_frontend({frontend, kind_of(value)});
    auto pinged = maps.vips.each<tw_address, uint32_t>([&](const tw_address &key, uint32_t kind) {
        tables.vips_[Address(key)].known = static_cast<tw_vip_kind>(kind);
    });
    if (!pinged)
        return std::unexpected(pinged.error());
    tables.changed_vips_.clear(); // those of the run before are looked at when everything is known
    for (const uint32_t id : tables.orphan_ids_)
        tables.adopt_service(id);
    return tables;
}

void ServiceTables::adopt_service(uint32_t id)
{
    if (!ids_.reserve(id))
        return;
    adopt_range(arrays_->services[id].cluster);
    adopt_range(arrays_->services[id].local);
}

void ServiceTables::adopt_range(tw_range &published)
{
    const tw_range range = published;
    bool sound = range.count == 0 || ranges_.reserve(range.base, range.count);
    for (uint32_t i = 0; sound && i < range.count; i++)
        sound = arrays_->slot(range.base + i) < arrays_->backends.size();
    if (!sound) { // not of our making: better no backend than a wrong one
        publish(published, {});
        return;
    }
    for (uint32_t i = 0; i < range.count; i++) {
        const uint32_t index = arrays_->slot(range.base + i);
        if (references_[index]++ == 0) {
            backend_indices_.reserve(index);
            backends_.insert(index);
        }
    }
}

/// Source ranges of numbers that no frontend names are those of a start that was cut short.
Result<> ServiceTables::adopt_sources()
{
    std::vector<tw_source_range> stray;
    auto walked = maps_->source_ranges.each<tw_source_range, uint32_t>([&](const tw_source_range &key, uint32_t) {
        if (orphan_ids_.contains(key.service))
            orphan_ranges_[key.service].push_back(range_of(key));
        else
            stray.push_back(key);
    });
    for (const tw_source_range &key : stray)
        if (auto erased = maps_->source_ranges.erase(key); !erased)
            return erased;
    return walked;
}

Result<> ServiceTables::adopt_cidrs()
{
    return maps_->service_cidrs.each<tw_cidr, uint32_t>(
        [&](const tw_cidr &cidr, uint32_t) { cidrs_.insert(prefix_of(cidr)); });
}

Result<> ServiceTables::set_cidrs(const std::vector<Prefix> &cidrs)
{
    return hold_keys(maps_->service_cidrs, cidrs_, cidrs, raw_of, std::mem_fn(&Prefix::text));
}

std::vector<std::string> ServiceTables::apply(ServiceChanges changes)
{
    std::unordered_map<ServiceKey, ServicePlan> plans;

    reclaim();
    for (const ServiceKey &key : changes.deletes) {
        failed_.erase(key);
        remove(key);
    }
    std::vector<ServiceKey> order; // what failed before must not take the room of what is new
    for (ServicePlan &plan : changes.upserts) {
        order.push_back(plan.key);
        plans.insert_or_assign(plan.key, std::move(plan));
    }
    for (const auto &[key, failed] : failed_)
        if (plans.try_emplace(key, failed.plan).second)
            order.push_back(key);
    for (const ServiceKey &key : order) {
        const ServicePlan &plan = plans.at(key);
        if (auto applied = apply_one(plan); !applied)
            fail_plan(plan, applied.error().text());
        else
            failed_.erase(key);
    }
    erase_frontends();
    insert_frontends(plans);
    update_vips();
    rest_leaving();
    return std::exchange(lines_, {});
}

void ServiceTables::fail_plan(ServicePlan plan, std::string line)
{
    Failed &failed = failed_[plan.key];
    line = fmt::format("{}: {}", plan.key.text(), line);
    if (failed.line != line) // told once, tried again with every change
        lines_.push_back(line);
    failed = {std::move(plan), std::move(line)};
}

Result<> ServiceTables::apply_one(const ServicePlan &plan)
{
    if (plan.frontends.empty()) {
        remove(plan.key);
        return {};
    }
    auto service = find_or_make(plan);
    if (!service)
        return std::unexpected(service.error());
    Applied &applied = **service;
    tw_service &row = arrays_->services[applied.id];
    if (auto allowed = allow_sources(applied, plan.source_ranges); !allowed)
        return allowed;
    if (auto set = set_backends(row.cluster, plan.backends); !set)
        return set;
    if (auto set = set_local(row, plan); !set)
        return set;
    forbid_sources(applied.id, applied.ranges, plan.source_ranges);
    if (plan.key.protocol == Protocol::udp)
        purge_lost(applied, plan.serving);
    stage_frontends(plan, applied);
    return {};
}

/// The policies, and the backends that they need: those are there before a packet is told to take them, and as long.
Result<> ServiceTables::set_local(tw_service &row, const ServicePlan &plan)
{
    const uint32_t flags = TW_SERVICE_USED | (plan.internal_local ? TW_SERVICE_INTERNAL_LOCAL : 0) |
                           (plan.external_local ? TW_SERVICE_EXTERNAL_LOCAL : 0) |
                           (plan.filtered ? TW_SERVICE_FILTERED : 0);
    const bool needed = plan.internal_local || plan.external_local;
    Result<> set;
    if (needed)
        set = set_backends(row.local, plan.local);
    if (set) {
        publish(row.flags, flags);
        publish(row.affinity_seconds, plan.affinity);
    }
    return needed || !set ? set : set_backends(row.local, {});
}

Result<> ServiceTables::allow_sources(Applied &service, const std::vector<Prefix> &ranges)
{
    for (const Prefix &range : ranges) {
        if (std::ranges::binary_search(service.ranges, range))
            continue;
        if (auto allowed = maps_->source_ranges.insert(source_range(service.id, range), 1U); !allowed)
            return fail_within(range.text(), allowed.error());
        service.ranges.insert(std::ranges::lower_bound(service.ranges, range), range);
    }
    return {};
}

/// Takes away of the ranges that the service of this number has those that are not wanted any more.
void ServiceTables::forbid_sources(uint32_t id, std::vector<Prefix> &ranges, const std::vector<Prefix> &wanted)
{
    std::erase_if(ranges, [&](const Prefix &range) {
        if (std::ranges::binary_search(wanted, range))
            return false;
        auto erased = maps_->source_ranges.erase(source_range(id, range));
        if (!erased)
            lines_.push_back(fmt::format("{}: {}", range.text(), erased.error().text()));
        return erased.has_value();
    });
}

/// The service's number: its own, that of the run before (whoever has one of its frontends), or a new one.
Result<ServiceTables::Applied *> ServiceTables::find_or_make(const ServicePlan &plan)
{
    if (const auto found = services_.find(plan.key); found != services_.end())
        return &found->second;
    for (const Frontend &frontend : plan.frontends) {
        const auto orphan = orphans_.find(frontend);
        if (orphan == orphans_.end() || orphan_ids_.erase(service_of(orphan->second)) == 0)
            continue;
        Applied &service = services_[plan.key];
        service.id = service_of(orphan->second);
        claim_orphan(service, plan);
        return &service;
    }
    const auto id = allocate(ids_);
    if (!id)
        return fail("map services is full ({} entries)", arrays_->services.size());
    tw_service &row = arrays_->services[*id];
    row = {};
    row.flags = TW_SERVICE_USED;
    arrays_->totals[*id] = {};
    Applied &service = services_[plan.key];
    service.id = *id;
    return &service;
}

/// What the run before has left to this service.
void ServiceTables::claim_orphan(Applied &service, const ServicePlan &plan)
{
    for (const Entrance &own : plan.frontends) {
        const auto same = orphans_.find(own);
        if (same != orphans_.end() && same->second == own.value(service.id)) {
            service.frontends.push_back(own);
            orphans_.erase(same);
        }
    }
    if (auto ranges = orphan_ranges_.extract(service.id))
        service.ranges = std::move(ranges.mapped());
    std::ranges::sort(service.ranges);
    if (plan.key.protocol != Protocol::udp)
        return;
    const tw_service &row = arrays_->services[service.id];
    service.serving = backends_in(row.cluster);
    for (const Backend &backend : backends_in(row.local))
        service.serving.push_back(backend);
}

std::vector<Backend> ServiceTables::backends_in(const tw_range &range) const
{
    const RowHash rows{arrays_};
    std::vector<Backend> backends;
    for (uint32_t i = 0; i < range.count; i++)
        backends.push_back(rows.backend(arrays_->slot(range.base + i)));
    return backends;
}

bool ServiceTables::holds(const tw_range &range, const std::vector<Backend> &backends) const
{
    if (range.count != backends.size())
        return false;
    const RowHash rows{arrays_};
    for (uint32_t i = 0; i < range.count; i++)
        if (rows.backend(arrays_->slot(range.base + i)) != backends[i])
            return false;
    return true;
}

Result<> ServiceTables::set_backends(tw_range &published, const std::vector<Backend> &backends)
{
    const tw_range old = published;
    tw_range range{};

    if (holds(old, backends))
        return {};
    if (!backends.empty()) {
        const auto base = allocate(ranges_, static_cast<uint32_t>(backends.size()));
        if (!base)
            return fail("map slots is full ({} entries)", arrays_->slots.size() * 2);
        range = {*base, static_cast<uint32_t>(backends.size())};
        for (uint32_t i = 0; i < range.count; i++) {
            auto index = use_backend(backends[i]);
            if (!index) {
                while (i > 0)
                    drop_backend(arrays_->slot(range.base + --i));
                ranges_.release(range.base, range.count);
                return std::unexpected(index.error());
            }
            arrays_->slot(range.base + i) = *index;
        }
    }
    publish(published, range);
    drop_range(old);
    return {};
}

/// Flows to backends that do not serve any more are to end.
void ServiceTables::purge_lost(Applied &service, const std::vector<Backend> &serving)
{
    for (const Backend &backend : service.serving)
        if (!std::ranges::binary_search(serving, backend))
            purges_.push_back({.address = backend.address.raw(),
                               .service = service.id,
                               .port = htons(backend.port),
                               .protocol = IPPROTO_UDP});
    service.serving = serving;
}

Result<uint32_t> ServiceTables::use_backend(const Backend &backend)
{
    if (const auto found = backends_.find(backend); found != backends_.end()) {
        references_[*found]++;
        return *found;
    }
    const auto index = allocate(backend_indices_);
    if (!index)
        return fail("map backends is full ({} entries)", arrays_->backends.size());
    tw_backend &row = arrays_->backends[*index];
    row = {};
    row.address = backend.address.raw();
    row.port = htons(backend.port);
    publish(row.flags, static_cast<uint16_t>(TW_BACKEND_SERVING));
    references_[*index] = 1;
    backends_.insert(*index);
    return *index;
}

/// It goes with the end of the round, if nothing of it has come to use the backend by then: one that passes from one
/// range to another stays the same to clients that are to stay with it.
void ServiceTables::drop_backend(uint32_t index)
{
    if (--references_[index] == 0)
        leaving_.push_back({0, Resting::What::backend, index, 1});
}

void ServiceTables::drop_range(const tw_range &range)
{
    if (range.count == 0)
        return;
    for (uint32_t i = 0; i < range.count; i++)
        drop_backend(arrays_->slot(range.base + i));
    leaving_.push_back({0, Resting::What::slots, range.base, range.count});
}

void ServiceTables::stage_frontends(const ServicePlan &plan, Applied &service)
{
    for (const Entrance &frontend : service.frontends)
        if (std::ranges::find(plan.frontends, frontend) == plan.frontends.end())
            to_erase_.push_back(frontend);
    for (const Entrance &frontend : plan.frontends) {
        if (std::ranges::find(service.frontends, frontend) != service.frontends.end())
            continue;
        if (const auto orphan = orphans_.extract(frontend)) { // the run before gave it to another service
            Entrance gone = frontend;
            gone.kind = kind_of(orphan.mapped());
            to_erase_.push_back(gone);
        }
        to_insert_.push_back({frontend, service.id, plan.key});
    }
    service.frontends = plan.frontends;
}

void ServiceTables::remove(const ServiceKey &key)
{
    const auto found = services_.find(key);
    if (found == services_.end())
        return;
    to_erase_.insert(to_erase_.end(), found->second.frontends.begin(), found->second.frontends.end());
    if (key.protocol == Protocol::udp)
        purges_.push_back({.service = found->second.id, .protocol = IPPROTO_UDP});
    forbid_sources(found->second.id, found->second.ranges, {});
    free_service(found->second.id);
    services_.erase(found);
}

/// Gives up what the service uses. The row itself stays as it is until its number is used again: packets may be in it.
void ServiceTables::free_service(uint32_t id)
{
    drop_range(arrays_->services[id].cluster);
    drop_range(arrays_->services[id].local);
    leaving_.push_back({0, Resting::What::service, id, 1});
}

void ServiceTables::erase_frontends()
{
    for (const Entrance &frontend : std::exchange(to_erase_, {})) {
        if (auto erased = maps_->frontends.erase(frontend.raw()); !erased)
            lines_.push_back(fmt::format("{}: {}", frontend.text(), erased.error().text()));
        else
            uncount_frontend(frontend);
    }
}

void ServiceTables::count_frontend(const Entrance &frontend)
{
    frontends_++;
    if (!has_vip(frontend))
        return;
    Vip &vip = vips_[frontend.address];
    vip.frontends++;
    vip.cluster += frontend.kind == TW_FRONTEND_CLUSTER;
    changed_vips_.push_back(frontend.address);
}

void ServiceTables::uncount_frontend(const Entrance &frontend)
{
    frontends_--;
    if (!has_vip(frontend))
        return;
    Vip &vip = vips_[frontend.address];
    vip.frontends--;
    vip.cluster -= frontend.kind == TW_FRONTEND_CLUSTER;
    changed_vips_.push_back(frontend.address);
}

/// Has `vips` hold the addresses that frontends are on, and no others.
void ServiceTables::update_vips()
{
    std::vector<tw_address> fresh;
    std::vector<uint32_t> kinds;
    for (const Address &address : std::exchange(changed_vips_, {})) {
        const auto found = vips_.find(address);
        if (found == vips_.end())
            continue;
        Vip &vip = found->second;
        std::optional<tw_vip_kind> wanted;
        if (vip.frontends > 0)
            wanted = vip.cluster > 0 ? TW_VIP_CLUSTER : TW_VIP_BALANCER;
        const auto known = std::exchange(vip.known, wanted);
        if (known && known != wanted) // a value never changes while packets may read it
            if (auto erased = maps_->vips.erase(address.raw()); !erased)
                lines_.push_back(fmt::format("{}: {}", address.text(), erased.error().text()));
        if (wanted && known != wanted) {
            fresh.push_back(address.raw());
            kinds.push_back(*wanted);
        }
        if (!wanted)
            vips_.erase(found);
    }
    if (auto inserted = maps_->vips.insert(std::span<const tw_address>(fresh), std::span<const uint32_t>(kinds));
        !inserted)
        lines_.push_back(fmt::format("pings of some frontends stay unanswered: {}", inserted.error().text()));
}

void ServiceTables::insert_frontends(const std::unordered_map<ServiceKey, ServicePlan> &plans)
{
    std::vector<tw_frontend> keys;
    std::vector<uint32_t> ids;
    keys.reserve(to_insert_.size());
    ids.reserve(to_insert_.size());
    for (const Insertion &insertion : to_insert_) {
        keys.push_back(insertion.frontend.raw());
        ids.push_back(insertion.frontend.value(insertion.id));
    }
    const std::vector<Insertion> insertions = std::exchange(to_insert_, {});
    if (maps_->frontends.insert(std::span<const tw_frontend>(keys), std::span<const uint32_t>(ids))) {
        for (const Insertion &insertion : insertions)
            count_frontend(insertion.frontend);
        return;
    }
    // Some are in, some are not: find out one by one, and whose they are.
    for (size_t i = 0; i < insertions.size(); i++) {
        auto inserted = maps_->frontends.insert(keys[i], ids[i]);
        if (inserted || inserted.error().code() == EEXIST) {
            count_frontend(insertions[i].frontend);
            continue;
        }
        const ServiceKey &key = insertions[i].key;
        std::erase(services_[key].frontends, insertions[i].frontend);
        if (const auto plan = plans.find(key); plan != plans.end())
            fail_plan(plan->second, fmt::format("{}: {}", insertions[i].frontend.text(), inserted.error().text()));
    }
}

std::vector<std::string> ServiceTables::sweep()
{
    for (const auto &[frontend, value] : orphans_)
        to_erase_.push_back({frontend, kind_of(value)});
    orphans_.clear();
    for (const uint32_t id : orphan_ids_) {
        forbid_sources(id, orphan_ranges_[id], {});
        free_service(id);
    }
    orphan_ranges_.clear();
    orphan_ids_.clear();
    erase_frontends();
    for (const auto &[address, vip] : vips_)
        changed_vips_.push_back(address);
    update_vips();
    rest_leaving();
    return std::exchange(lines_, {});
}

/// False if it is in use after all, or gone already: it may have been dropped, used, and dropped again.
bool ServiceTables::forget_backend(uint32_t index)
{
    if (references_[index] > 0 || backends_.erase(index) == 0)
        return false;
    publish(arrays_->backends[index].flags, uint16_t{0});
    return true;
}

void ServiceTables::rest_leaving()
{
    if (leaving_.empty())
        return;
    const uint64_t ticket = grace_->ticket();
    for (Resting &resting : leaving_) {
        if (resting.what == Resting::What::backend && !forget_backend(resting.first))
            continue;
        resting.ticket = ticket;
        resting_.push_back(resting);
    }
    leaving_.clear();
}

void ServiceTables::reclaim()
{
    while (!resting_.empty() && grace_->passed(resting_.front().ticket)) {
        const Resting resting = resting_.front();
        resting_.pop_front();
        switch (resting.what) {
        case Resting::What::service:
            publish(arrays_->services[resting.first].flags, 0U);
            ids_.release(resting.first);
            break;
        case Resting::What::slots:
            ranges_.release(resting.first, resting.count);
            break;
        case Resting::What::backend:
            backend_indices_.release(resting.first);
            break;
        }
    }
}

template<typename Allocator, typename... Count>
std::optional<uint32_t> ServiceTables::allocate(Allocator &allocator, Count... count)
{
    if (auto number = allocator.allocate(count...))
        return number;
    erase_frontends(); // what has lost its last frontend in this very call may be the room that is needed
    rest_leaving();
    if (!resting_.empty())
        grace_->wait(resting_.back().ticket);
    reclaim();
    return allocator.allocate(count...);
}

uint32_t ServiceTables::id_of(const ServiceKey &key) const
{
    const auto found = services_.find(key);
    return found == services_.end() ? 0 : found->second.id;
}

ServiceTables::Fill ServiceTables::fill() const
{
    return {ids_.used(), frontends_, backend_indices_.used(), ranges_.used()};
}

} // namespace thruway
