// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "agent/base/numbers.h"
#include "agent/datapath/grace.h"
#include "agent/datapath/layout.h"
#include "agent/planner/plan.h"

#include <deque>
#include <string>
#include <unordered_map>
#include <unordered_set>
#include <vector>

namespace thruway {

/// Applies service plans to the maps `frontends`, `vips`, `services`, `slots` and `backends`, and keeps
/// `service_cidrs`.
///
/// What a packet sees between two writes: backends are complete before a slot names them, slots before a service's
/// range names them, the service before a frontend does. A change of backends is one 8-byte store of the range. What a
/// packet may still be using (the old range, an index that nothing names any more) rests until every program that ran
/// at that time has ended. Nothing is written that is there already, so a restart with the same plans writes nothing.
class ServiceTables {
public:
    /// Learns what the maps hold, as the run before left it.
    static Result<ServiceTables> adopt(const Maps &maps, Arrays &arrays, GracePeriod &grace);

    /// Applies the changes. Returns a line for each service that could not be brought to what is wanted, because a map
    /// is full or refuses; that service stays as it was and is tried again with every later call.
    std::vector<std::string> apply(ServiceChanges changes);

    /// The addresses that the cluster takes for services, in the place of those before.
    Result<> set_cidrs(const std::vector<Prefix> &cidrs);

    /// Backends that UDP services have lost since the last call: nothing tells their clients, so their flows are to
    /// end. TCP ends by itself.
    std::vector<tw_purge> take_purges() { return std::exchange(purges_, {}); }

    /// Removes what no plan has claimed since adopt(). To be called once the sources have told everything.
    std::vector<std::string> sweep();

    /// Number of the service that this key has, 0 if none: index into `services` and `totals`.
    [[nodiscard]] uint32_t id_of(const ServiceKey &key) const;

    /// Calls `visit(key, id)` for each service.
    template<typename Visit>
    void each(Visit visit) const
    {
        for (const auto &[key, service] : services_)
            visit(key, service.id);
    }

    struct Fill {
        uint32_t services;
        uint32_t frontends;
        uint32_t backends;
        uint32_t slots;
    };
    [[nodiscard]] Fill fill() const;

private:
    struct Applied {
        uint32_t id = 0;
        std::vector<Entrance> frontends; // those in the map
        std::vector<Prefix> ranges;      // those in source_ranges
        std::vector<Backend> serving;    // of UDP: those that flows may go to
    };
    struct Failed {
        ServicePlan plan;
        std::string line;
    };
    /// What packets may still be using: reusable when its ticket has passed.
    struct Resting {
        uint64_t ticket;
        enum class What : uint8_t { service, slots, backend } what;
        uint32_t first;
        uint32_t count;
    };
    /// An address that frontends in the map have, and that is nobody's own: pings of it are answered while it is in
    /// `vips`. (An external IP may be a host's, of which the service has but a port.)
    struct Vip {
        uint32_t frontends = 0;
        uint32_t cluster = 0;             ///< of these, as a ClusterIP
        std::optional<tw_vip_kind> known; ///< what is in the map
    };
    struct Insertion {
        Entrance frontend;
        uint32_t id;
        ServiceKey key;
    };
    /// Finds a backend's index by what the mapped row says, so that no copy of the rows is kept.
    struct RowHash {
        using is_transparent = void;
        const Arrays *arrays;
        size_t operator()(uint32_t index) const { return (*this)(backend(index)); }
        size_t operator()(const Backend &backend) const { return std::hash<Backend>{}(backend); }
        [[nodiscard]] Backend backend(uint32_t index) const;
    };
    struct RowEqual {
        using is_transparent = void;
        RowHash rows;
        bool operator()(uint32_t a, uint32_t b) const { return a == b; }
        bool operator()(const Backend &a, uint32_t b) const { return a == rows.backend(b); }
        bool operator()(uint32_t a, const Backend &b) const { return rows.backend(a) == b; }
    };

    ServiceTables(const Maps &maps, Arrays &arrays, GracePeriod &grace);

    void adopt_service(uint32_t id);
    void adopt_range(tw_range &published);
    Result<> adopt_sources();
    Result<> adopt_cidrs();
    void claim_orphan(Applied &service, const ServicePlan &plan);
    Result<> apply_one(const ServicePlan &plan);
    Result<Applied *> find_or_make(const ServicePlan &plan);
    Result<> set_backends(tw_range &published, const std::vector<Backend> &backends);
    Result<> set_local(tw_service &row, const ServicePlan &plan);
    void purge_lost(Applied &service, const std::vector<Backend> &serving);
    [[nodiscard]] std::vector<Backend> backends_in(const tw_range &range) const;
    Result<> allow_sources(Applied &service, const std::vector<Prefix> &ranges);
    void forbid_sources(uint32_t id, std::vector<Prefix> &ranges, const std::vector<Prefix> &wanted);
    [[nodiscard]] bool holds(const tw_range &range, const std::vector<Backend> &backends) const;
    Result<uint32_t> use_backend(const Backend &backend);
    void drop_backend(uint32_t index);
    bool forget_backend(uint32_t index);
    void drop_range(const tw_range &range);
    void stage_frontends(const ServicePlan &plan, Applied &service);
    void remove(const ServiceKey &key);
    void free_service(uint32_t id);
    void erase_frontends();
    void insert_frontends(const std::unordered_map<ServiceKey, ServicePlan> &plans);
    void count_frontend(const Entrance &frontend);
    void uncount_frontend(const Entrance &frontend);
    void update_vips();
    void fail_plan(ServicePlan plan, std::string line);
    void reclaim();
    void rest_leaving();

    /// A number from the allocator; if none is left, waits for resting ones.
    template<typename Allocator, typename... Count>
    std::optional<uint32_t> allocate(Allocator &allocator, Count... count);

    const Maps *maps_;
    Arrays *arrays_;
    GracePeriod *grace_;
    IndexAllocator ids_;
    RangeAllocator ranges_;
    IndexAllocator backend_indices_;
    std::vector<uint32_t> references_; // how many slots name a backend
    std::unordered_set<uint32_t, RowHash, RowEqual> backends_;
    std::unordered_map<ServiceKey, Applied> services_;
    std::unordered_map<Frontend, uint32_t> orphans_; // left by the run before, not claimed yet
    std::unordered_map<uint32_t, std::vector<Prefix>> orphan_ranges_;
    std::unordered_set<uint32_t> orphan_ids_;
    std::vector<Entrance> to_erase_;
    std::vector<Insertion> to_insert_;
    std::unordered_map<ServiceKey, Failed> failed_;
    std::vector<std::string> lines_; // what the call under way has to tell
    std::vector<tw_purge> purges_;
    std::vector<Resting> leaving_; // by the apply() under way
    std::deque<Resting> resting_;
    uint32_t frontends_ = 0;
    std::unordered_map<Address, Vip> vips_;
    std::vector<Address> changed_vips_;
    std::unordered_set<Prefix> cidrs_;
};

} // namespace thruway
