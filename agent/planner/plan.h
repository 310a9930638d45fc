// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "agent/state/objects.h"

#include <thruway/service.h>
#include <vector>

/// What the planner wants the datapath to hold: plain values, named by Kubernetes names. Which row of which map holds
/// them is the applier's business.
namespace thruway {

/// One Service port in one family: what shares a set of backends.
struct ServiceKey {
    ObjectName service;
    Symbol port;
    Protocol protocol = Protocol::tcp;
    Family family = Family::ipv4;

    /// "Service default/web port http/TCP (IPv4)".
    [[nodiscard]] std::string text() const;

    friend bool operator==(const ServiceKey &, const ServiceKey &) = default;
};

/// An address and port that clients dial. A NodePort has the unspecified address of its family.
struct Frontend {
    Address address;
    uint16_t port = 0;
    Protocol protocol = Protocol::tcp;

    [[nodiscard]] tw_frontend raw() const;
    [[nodiscard]] std::string text() const;

    friend bool operator==(const Frontend &, const Frontend &) = default;
    friend auto operator<=>(const Frontend &, const Frontend &) = default;
};

/// A frontend of a plan, with what its address is: that decides which traffic policy counts.
struct Entrance : Frontend {
    tw_frontend_kind kind = TW_FRONTEND_CLUSTER;

    /// Its value in `frontends`, for the service of this number.
    [[nodiscard]] uint32_t value(uint32_t service) const { return service | static_cast<uint32_t>(kind); }

    friend bool operator==(const Entrance &, const Entrance &) = default;
};

/// The service's number, and the kind of address, in a value of `frontends`.
constexpr uint32_t service_of(uint32_t frontend_value)
{
    return frontend_value & TW_FRONTEND_SERVICE;
}

constexpr tw_frontend_kind kind_of(uint32_t frontend_value)
{
    return static_cast<tw_frontend_kind>(frontend_value & TW_FRONTEND_KIND);
}

struct Backend {
    Address address;
    uint16_t port = 0;

    friend bool operator==(const Backend &, const Backend &) = default;
    friend auto operator<=>(const Backend &, const Backend &) = default;
};

/// Everything about one service. Backends and ranges are sorted, so that equal plans compare equal.
struct ServicePlan {
    ServiceKey key;
    std::vector<Entrance> frontends;   ///< the first is the ClusterIP, if this service has it
    std::vector<Backend> backends;     ///< for traffic policy Cluster
    std::vector<Backend> local;        ///< for traffic policy Local; empty if nobody asks for it
    std::vector<Backend> serving;      ///< of UDP: those whose flows may go on, whether new ones come to them or not
    std::vector<Prefix> source_ranges; ///< who may dial frontends of kind TW_FRONTEND_BALANCER; with `filtered`
    bool filtered = false;
    bool internal_local = false;
    bool external_local = false;
    uint32_t affinity = 0; ///< seconds, 0: none

    friend bool operator==(const ServicePlan &, const ServicePlan &) = default;
};

/// What load balancers are told of this node and a Service with a healthCheckNodePort.
struct HealthCheck {
    uint16_t port = 0;      ///< 0: they do not ask (any more)
    uint32_t endpoints = 0; ///< of the Service, ready on this node

    friend bool operator==(const HealthCheck &, const HealthCheck &) = default;
};

/// A change of what is wanted: services that are new or differ, and services that are gone.
struct ServiceChanges {
    std::vector<ServicePlan> upserts;
    std::vector<ServiceKey> deletes;
    std::vector<std::pair<ObjectName, HealthCheck>> health_checks;

    [[nodiscard]] bool empty() const { return upserts.empty() && deletes.empty() && health_checks.empty(); }
};

/// Pods of `prefix` live on the node that has this address; an unspecified address means this node.
struct NodeRoute {
    Prefix prefix;
    Address node;
    Symbol name;

    friend bool operator==(const NodeRoute &, const NodeRoute &) = default;
};

} // namespace thruway

template<>
struct std::hash<thruway::ServiceKey> {
    size_t operator()(const thruway::ServiceKey &key) const noexcept
    {
        const auto rest = static_cast<uint64_t>(key.port.id()) << 16 | static_cast<uint64_t>(key.protocol) << 8 |
                          static_cast<uint64_t>(key.family);
        return thruway::hash_mix(std::hash<thruway::ObjectName>{}(key.service), rest);
    }
};

template<>
struct std::hash<thruway::Frontend> {
    size_t operator()(const thruway::Frontend &frontend) const noexcept
    {
        return thruway::hash_mix(thruway::hash_of(frontend.address),
                                 static_cast<uint64_t>(frontend.port) << 8 | static_cast<uint64_t>(frontend.protocol));
    }
};

template<>
struct std::hash<thruway::Backend> {
    size_t operator()(const thruway::Backend &backend) const noexcept
    {
        return thruway::hash_mix(thruway::hash_of(backend.address), backend.port);
    }
};
