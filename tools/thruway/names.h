// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "agent/node/pods.h"
#include "agent/planner/services.h"

#include <map>
#include <optional>
#include <string>
#include <unordered_map>
#include <vector>

namespace thruway::cli {

/// Whose an address is.
struct Owner {
    bool is_node = false; ///< else a pod's
    ObjectName name;
};

/// One port of a Service, of both families.
struct PortName {
    ObjectName service;
    Symbol port;
    Protocol protocol = Protocol::tcp;

    friend bool operator==(const PortName &, const PortName &) = default;
    friend auto operator<=>(const PortName &, const PortName &) = default;
};

PortName port_name(const ServiceKey &key);

/// What the objects and pod interfaces that an agent has saved say about the addresses in the maps. The agent's own
/// planner tells which Service a frontend belongs to, so the two cannot disagree.
class Names {
public:
    Names() = default;
    Names(std::vector<Object> objects, std::vector<PodInterface> pods);

    /// Reads what lies in an agent's run directory. What does not is a name less, and no error.
    static Names read(const std::string &run_dir);

    /// The pod or node that has the address; null if none is known.
    [[nodiscard]] const Owner *owner(const Address &address) const;

    /// The Service port in one family that a frontend leads to; null if no saved Service asks for it.
    [[nodiscard]] const ServiceKey *service_at(const Frontend &frontend) const;

    /// The Service, and what the agent wants of it in the maps.
    [[nodiscard]] const Service *service(const ObjectName &name) const { return planner_.service(name); }
    [[nodiscard]] std::vector<const EndpointSlice *> slices_of(const ObjectName &service) const
    {
        return planner_.slices_of(service);
    }
    [[nodiscard]] const std::vector<ServicePlan> &plans() const { return plans_; }

    /// Calls `visit` with each Service.
    template<typename Visit>
    void each_service(Visit visit) const
    {
        planner_.each_service(visit);
    }

    /// The pods of this name, of one namespace or of all, with their addresses. One in its node's network has none.
    [[nodiscard]] std::map<ObjectName, std::vector<Address>> pods_called(const std::optional<Symbol> &space,
                                                                         std::string_view name) const;

    [[nodiscard]] const std::vector<Node> &nodes() const { return nodes_; }
    [[nodiscard]] const std::vector<PodInterface> &pods() const { return pods_; }

    /// Fails unless there is such a Service; the error says which others have a name like it.
    [[nodiscard]] Result<> expect_service(const ObjectName &name) const;

private:
    void own(const std::vector<Address> &addresses, const Owner &owner);
    void plan_services();

    ServicePlanner planner_;
    std::vector<ServicePlan> plans_;
    std::vector<Node> nodes_;
    std::vector<PodInterface> pods_;
    std::unordered_map<Frontend, ServiceKey> services_;
    std::unordered_map<Address, Owner> owners_;
};

} // namespace thruway::cli
