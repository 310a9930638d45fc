// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "agent/base/http_server.h"
#include "agent/planner/plan.h"

#include <functional>
#include <map>
#include <memory>
#include <unordered_map>
#include <vector>

namespace thruway {

/// Answers load balancers that ask at a Service's healthCheckNodePort whether this node serves it, as kube-proxy does
/// (pkg/proxy/healthcheck/service_health.go).
class HealthPorts {
public:
    /// Why a port cannot be served; it is tried again.
    using Refused = std::function<void(const ObjectName &service, uint16_t port, const Error &error)>;

    /// `healthy` says whether the agent does its work, whatever becomes of the node.
    HealthPorts(Loop &loop, std::function<bool()> healthy, Refused refused)
        : loop_(loop), healthy_(std::move(healthy)), refused_(std::move(refused))
    {
    }

    void apply(const std::vector<std::pair<ObjectName, HealthCheck>> &changes);

    /// Serves at these addresses, an unspecified one being all of both families, and at no others.
    void set_addresses(std::vector<Address> addresses);

private:
    struct Port {
        HealthCheck check;
        std::map<Address, std::unique_ptr<PatientServer>> servers;
    };

    void serve(const ObjectName &service, Port &port);
    std::unique_ptr<PatientServer> open(const ObjectName &service, Port &port, const Address &address);

    Loop &loop_;
    std::function<bool()> healthy_;
    Refused refused_;
    std::vector<Address> addresses_;
    std::unordered_map<ObjectName, Port> ports_;
};

/// What a load balancer is answered.
HttpResponse health_answer(const ObjectName &service, uint32_t endpoints, bool healthy);

} // namespace thruway
