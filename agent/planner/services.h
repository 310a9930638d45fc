// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "agent/planner/choice.h"
#include "agent/planner/plan.h"
#include "agent/state/objects.h"

#include <optional>
#include <string>
#include <unordered_map>
#include <unordered_set>
#include <vector>

namespace thruway {

/// Compiles Services and EndpointSlices into service plans. Pure: the same objects give the same plans, in whatever
/// order they came. Incremental: a change costs what its own service is large.
class ServicePlanner {
public:
    /// Says where this agent is; true if that is news. Then all services are planned anew: nodes seldom move.
    bool set_place(Place place);

    void upsert(Service service);
    void upsert(EndpointSlice slice);
    void remove_service(const ObjectName &name);
    void remove_slice(const ObjectName &name);

    /// What has to change since the last call.
    ServiceChanges take_changes();

    /// Lines about what was refused since the last call: an address and port that an older Service already has.
    /// Each fault is told once.
    std::vector<std::string> take_refusals();

    /// How many objects are held.
    [[nodiscard]] size_t service_count() const;
    [[nodiscard]] size_t slice_count() const { return slices_.size(); }

    /// The Service and its slices, for listings; null and empty if there is none.
    [[nodiscard]] const Service *service(const ObjectName &name) const;
    [[nodiscard]] std::vector<const EndpointSlice *> slices_of(const ObjectName &name) const;

    /// Calls `visit` with each Service.
    template<typename Visit>
    void each_service(Visit visit) const
    {
        for (const auto &[name, entry] : services_)
            if (entry.service)
                visit(*entry.service);
    }

    template<typename Visit>
    void each_slice(Visit visit) const
    {
        for (const auto &[name, slice] : slices_)
            visit(slice);
    }

private:
    /// A frontend that a Service asks for, and the port that asks.
    struct Wish {
        static constexpr size_t health_check = SIZE_MAX; ///< no port: a port of the node for its health check

        Entrance entrance;
        size_t port; ///< index into Service::ports
    };

    /// A Service, or the name of one that slices wait for.
    struct Entry {
        std::optional<Service> service;
        bool claims = false; ///< the Service has changed since it last claimed its frontends
        std::vector<const EndpointSlice *> slices;
        std::vector<Wish> wishes;        ///< as last claimed
        std::vector<ServiceKey> told;    ///< keys of the plans last given out
        HealthCheck health;              ///< as last given out
        std::vector<std::string> faults; ///< lines last told
    };
    using Entries = std::unordered_map<ObjectName, Entry>;
    using Owner = Entries::value_type; ///< nodes of the map never move
    using Dirty = std::unordered_set<Owner *>;

    Owner &owner(const ObjectName &name) { return *services_.try_emplace(name).first; }
    void detach(const EndpointSlice &slice);
    [[nodiscard]] std::vector<Wish> wishes(const Service &service) const;
    void claim(Dirty &changed);
    void take(Owner &owner, const Frontend &frontend, Dirty &changed);
    void release(Owner &owner, const Frontend &frontend, Dirty &changed);
    /// True if the wish is granted: the frontend is this Service's, and no earlier port of it has it.
    [[nodiscard]] bool has(const Owner &owner, const Wish &wish) const;
    [[nodiscard]] ServicePlan plan_port(const Owner &owner, size_t port, const ServiceKey &key) const;
    void plan(Owner &owner, ServiceChanges &changes);
    [[nodiscard]] HealthCheck plan_health(const Owner &owner) const;
    [[nodiscard]] static std::string field_of(const Wish &wish);
    void tell_faults(Owner &owner);

    Place place_;
    Entries services_;
    std::unordered_map<ObjectName, EndpointSlice> slices_;
    Dirty dirty_;
    std::unordered_map<Frontend, Owner *> owners_;
    std::unordered_multimap<Frontend, Owner *> waiting_; ///< who wants what an older Service has
    std::vector<std::string> refusals_;
};

} // namespace thruway
