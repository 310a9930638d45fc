// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "agent/node/netlink.h"

#include <unordered_map>
#include <vector>

namespace thruway {

/// Our routes in the kernel's main table (route_protocol): what is wanted, and what is there. Other routes are left
/// alone.
class KernelRoutes {
public:
    explicit KernelRoutes(Netlink &netlink) : netlink_(&netlink) {}

    /// Takes note of what the kernel has, and puts back what is missing from it. Returns what failed.
    Result<> refresh(const std::vector<Route> &present);

    /// Wants a route, in the place of an earlier one to the same destination.
    Result<> want(const Route &route);
    Result<> drop(const Prefix &destination);

    /// Removes what is there and not wanted.
    Result<> sweep();

private:
    Result<> put_in_place(const Route &route);

    Netlink *netlink_;
    std::unordered_map<Prefix, Route> wanted_;
    std::unordered_map<Prefix, Route> present_;
};

} // namespace thruway
