// SPDX-License-Identifier: Apache-2.0
#include "agent/node/routes.h"

namespace thruway {

Result<> KernelRoutes::refresh(const std::vector<Route> &present)
{
    present_.clear();
    for (const Route &route : present)
        present_.insert_or_assign(route.destination, route);
    Result<> result;
    for (const auto &[destination, route] : wanted_)
        if (auto put = put_in_place(route); !put)
            result = put;
    return result;
}

Result<> KernelRoutes::want(const Route &route)
{
    wanted_.insert_or_assign(route.destination, route);
    return put_in_place(route);
}

Result<> KernelRoutes::put_in_place(const Route &route)
{
    if (const auto found = present_.find(route.destination); found != present_.end() && found->second == route)
        return {};
    auto set = netlink_->set_route(route);
    if (set)
        present_.insert_or_assign(route.destination, route);
    return set;
}

Result<> KernelRoutes::drop(const Prefix &destination)
{
    wanted_.erase(destination);
    const auto found = present_.find(destination);
    if (found == present_.end())
        return {};
    auto deleted = netlink_->delete_route(found->second);
    if (deleted)
        present_.erase(found);
    return deleted;
}

Result<> KernelRoutes::sweep()
{
    Result<> result;
    std::vector<Prefix> stale;
    for (const auto &[destination, route] : present_)
        if (!wanted_.contains(destination))
            stale.push_back(destination);
    for (const Prefix &destination : stale)
        if (auto dropped = drop(destination); !dropped)
            result = dropped;
    return result;
}

} // namespace thruway
