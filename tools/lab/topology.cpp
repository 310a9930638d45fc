// SPDX-License-Identifier: Apache-2.0
#include "tools/lab/topology.h"

#include <fmt/format.h>

namespace thruway::lab {
namespace {

template<typename... Args>
Address address(fmt::format_string<Args...> format, Args &&...args)
{
    return literal_address(fmt::format(format, std::forward<Args>(args)...));
}

/// The number stands in the addresses as a person reads it, in IPv6 too: node12 is 172.20.0.22 and fd20::22, its pods
/// are in 10.244.12.0/24 and fd00:10:244:12::/64.
Node node_of(FabricKind fabric, unsigned number)
{
    Node node;
    node.name = fmt::format("node{}", number);
    node.pod_cidrs = {Prefix(address("10.244.{}.0", number), 24), Prefix(address("fd00:10:244:{}::", number), 64)};
    if (fabric == FabricKind::switched) {
        node.addresses = {address("172.20.0.{}", 10 + number), address("fd20::{}", 10 + number)};
        node.gateways = {address("172.20.0.1"), address("fd20::1")};
    } else {
        node.addresses = {address("172.20.{}.2", number), address("fd20:0:0:{}::2", number)};
        node.gateways = {address("172.20.{}.1", number), address("fd20:0:0:{}::1", number)};
    }
    return node;
}

} // namespace

Address literal_address(std::string_view text)
{
    return Address::parse(text).value();
}

Topology topology_of(const Options &options)
{
    Topology topology;
    for (unsigned number = 1; number <= options.nodes; number++)
        topology.nodes.push_back(node_of(options.fabric, number));
    topology.client = {.name = "client",
                       .addresses = {address("172.21.0.2"), address("fd21::2")},
                       .gateways = {address("172.21.0.1"), address("fd21::1")}};
    topology.all_pods = {Prefix(address("10.244.0.0"), 16), Prefix(address("fd00:10:244::"), 48)};
    return topology;
}

} // namespace thruway::lab
