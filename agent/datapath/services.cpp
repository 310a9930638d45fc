// SPDX-License-Identifier: Apache-2.0
#include "agent/datapath/services.h"

#include <algorithm>
#include <arpa/inet.h>

namespace thruway {
namespace {

Frontend from_raw(const tw_frontend &raw)
{
    return {Address(raw.address), ntohs(raw.port), static_cast<Protocol>(raw.protocol)};
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
    auto walked = maps.frontends.each<tw_frontend, uint32_t>([&](const tw_frontend &key, uint32_t id) {
        tables.orphans_.emplace(from_raw(key), id);
        tables.orphan_ids_.insert(id);
    });
    if (!walked)
        return std::unexpected(walked.error());
    for (const auto &[frontend, id] : tables.orphans_)
        tables.count_frontend(frontend);
    auto pinged = maps.vips.each<tw_address, uint32_t>(
        [&](const tw_address &key, uint32_t) { tables.vips_[Address(key)].answers = true; });
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
    tw_service &row = arrays_->services[id];
    const tw_range range = row.cluster;
    bool sound = range.count == 0 || ranges_.reserve(range.base, range.count);
    for (uint32_t i = 0; sound && i < range.count; i++)
        sound = arrays_->slot(range.base + i) < arrays_->backends.size();
    if (!sound) { // not of our making: better no backend than a wrong one
        publish(row.cluster, {});
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
    const uint32_t id = (*service)->id;
    const tw_range old = arrays_->services[id].cluster;
    if (auto set = set_backends(id, plan.backends); !set)
        return set;
    if (plan.key.protocol == Protocol::udp)
        purge_lost(id, old, plan.backends);
    stage_frontends(plan, **service);
    return {};
}

/// The service's number: its own, that of the run before (whoever has one of its frontends), or a new one.
Result<ServiceTables::Applied *> ServiceTables::find_or_make(const ServicePlan &plan)
{
    if (const auto found = services_.find(plan.key); found != services_.end())
        return &found->second;
    for (const Frontend &frontend : plan.frontends) {
        const auto orphan = orphans_.find(frontend);
        if (orphan == orphans_.end() || orphan_ids_.erase(orphan->second) == 0)
            continue;
        Applied &service = services_[plan.key];
        service.id = orphan->second;
        for (const Frontend &own : plan.frontends) {
            const auto same = orphans_.find(own);
            if (same != orphans_.end() && same->second == service.id) {
                service.frontends.push_back(own);
                orphans_.erase(same);
            }
        }
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

Result<> ServiceTables::set_backends(uint32_t id, const std::vector<Backend> &backends)
{
    tw_service &row = arrays_->services[id];
    const tw_range old = row.cluster;
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
                    undo_backend(arrays_->slot(range.base + --i));
                ranges_.release(range.base, range.count);
                return std::unexpected(index.error());
            }
            arrays_->slot(range.base + i) = *index;
        }
    }
    publish(row.cluster, range);
    drop_range(old);
    return {};
}

/// The old range still stands: what packets may be using rests.
void ServiceTables::purge_lost(uint32_t id, const tw_range &old, const std::vector<Backend> &backends)
{
    for (uint32_t i = 0; i < old.count; i++) {
        const tw_backend &row = arrays_->backends[arrays_->slot(old.base + i)];
        const Backend backend{Address(row.address), ntohs(row.port)};
        if (!std::ranges::binary_search(backends, backend))
            purges_.push_back({.address = row.address, .service = id, .port = row.port, .protocol = IPPROTO_UDP});
    }
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

void ServiceTables::drop_backend(uint32_t index)
{
    if (--references_[index] > 0)
        return;
    backends_.erase(index);
    publish(arrays_->backends[index].flags, uint16_t{0});
    leaving_.push_back({0, Resting::What::backend, index, 1});
}

/// Takes use_backend() back before any packet could see it: nothing has to rest.
void ServiceTables::undo_backend(uint32_t index)
{
    if (--references_[index] > 0)
        return;
    backends_.erase(index);
    publish(arrays_->backends[index].flags, uint16_t{0});
    backend_indices_.release(index);
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
    for (const Frontend &frontend : service.frontends)
        if (std::ranges::find(plan.frontends, frontend) == plan.frontends.end())
            to_erase_.push_back(frontend);
    for (const Frontend &frontend : plan.frontends) {
        if (std::ranges::find(service.frontends, frontend) != service.frontends.end())
            continue;
        if (orphans_.erase(frontend) > 0) // the run before gave it to another service
            to_erase_.push_back(frontend);
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
    free_service(found->second.id);
    services_.erase(found);
}

/// Gives up what the service uses. The row itself stays as it is until its number is used again: packets may be in it.
void ServiceTables::free_service(uint32_t id)
{
    drop_range(arrays_->services[id].cluster);
    leaving_.push_back({0, Resting::What::service, id, 1});
}

void ServiceTables::erase_frontends()
{
    for (const Frontend &frontend : std::exchange(to_erase_, {})) {
        if (auto erased = maps_->frontends.erase(frontend.raw()); !erased)
            lines_.push_back(fmt::format("{}: {}", frontend.text(), erased.error().text()));
        else
            uncount_frontend(frontend);
    }
}

void ServiceTables::count_frontend(const Frontend &frontend)
{
    frontends_++;
    if (frontend.address.is_unspecified())
        return;
    vips_[frontend.address].frontends++;
    changed_vips_.push_back(frontend.address);
}

void ServiceTables::uncount_frontend(const Frontend &frontend)
{
    frontends_--;
    if (frontend.address.is_unspecified())
        return;
    vips_[frontend.address].frontends--;
    changed_vips_.push_back(frontend.address);
}

/// Has the addresses that frontends are on answer pings, and no others.
void ServiceTables::update_vips()
{
    std::vector<tw_address> fresh;
    for (const Address &address : std::exchange(changed_vips_, {})) {
        const auto found = vips_.find(address);
        if (found == vips_.end())
            continue;
        Vip &vip = found->second;
        if (vip.frontends > 0) {
            if (!std::exchange(vip.answers, true))
                fresh.push_back(address.raw());
            continue;
        }
        if (vip.answers)
            if (auto erased = maps_->vips.erase(address.raw()); !erased)
                lines_.push_back(fmt::format("{}: {}", address.text(), erased.error().text()));
        vips_.erase(found);
    }
    const std::vector<uint32_t> values(fresh.size());
    if (auto inserted = maps_->vips.insert(std::span<const tw_address>(fresh), std::span<const uint32_t>(values));
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
        ids.push_back(insertion.id);
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
    for (const auto &[frontend, id] : orphans_)
        to_erase_.push_back(frontend);
    orphans_.clear();
    for (const uint32_t id : orphan_ids_)
        free_service(id);
    orphan_ids_.clear();
    erase_frontends();
    for (const auto &[address, vip] : vips_)
        changed_vips_.push_back(address);
    update_vips();
    rest_leaving();
    return std::exchange(lines_, {});
}

void ServiceTables::rest_leaving()
{
    if (leaving_.empty())
        return;
    const uint64_t ticket = grace_->ticket();
    for (Resting &resting : leaving_) {
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
