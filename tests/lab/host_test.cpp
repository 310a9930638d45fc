// SPDX-License-Identifier: Apache-2.0
// What the nodes themselves dial, and what is served by processes of nodes, in each mode of socket translation.
#include "tests/lab/cluster.h"

#include <catch2/generators/catch_generators.hpp>

namespace thruway::lab {
namespace {

constexpr std::array transports{"tcp", "udp"};

/// The text of an address of each family, by family_index.
using Texts = std::array<std::string, 2>;

Texts node_address(unsigned node)
{
    return {fmt::format("172.20.0.{}", 10 + node), fmt::format("fd20::{}", 10 + node)};
}

Texts pod_address(const Lab &lab, const std::string &pod)
{
    const auto addresses = must(find_pod(lab, "default", pod)).addresses;
    return {addresses.at(0).text(), addresses.at(1).text()};
}

/// Calls `check(family, transport)` for each of both.
void each_kind(const std::function<void(Family, const std::string &)> &check)
{
    for (const Family family : {Family::ipv4, Family::ipv6})
        for (const char *transport : transports)
            check(family, transport);
}

TEST_CASE("nodes and pods reach services by cluster address and node port in every mode of socket translation")
{
    const std::string mode = GENERATE("host", "all");
    const Lab lab = thruway_lab({.agent_args = {"--sock", mode}});
    put(lab, {.number = 1, .pods = {"pod-2-1"}});
    INFO("sock: " << mode);

    each_kind([&](Family family, const std::string &transport) {
        const bool tcp = transport == "tcp";
        const WebService web{.number = 1, .pods = {}};
        const std::string cluster = web.cluster(family, tcp ? 80 : 53);
        const auto node_port = [&](unsigned node) { return WebService::node_port(node, family, tcp ? 30080 : 30053); };
        const auto node = [&](unsigned number) { return node_address(number).at(family_index(family)); };
        const auto pod = [&](const std::string &name) { return pod_address(lab, name).at(family_index(family)); };

        // A node, to a backend elsewhere and to one of its own; by its own node port and by another node's.
        CHECK(seen(lab, "node1", transport, cluster) == Seen{"pod-2-1", node(1)});
        CHECK(seen(lab, "node2", transport, cluster) == Seen{"pod-2-1", node(2)});
        CHECK(seen(lab, "node1", transport, node_port(1)) == Seen{"pod-2-1", node(1)});
        CHECK(seen(lab, "node2", transport, node_port(2)) == Seen{"pod-2-1", node(2)});
        CHECK(seen(lab, "node1", transport, node_port(3)) == Seen{"pod-2-1", node(3)});
        CHECK(seen(lab, "node1", transport, node_port(2)) == Seen{"pod-2-1", node(2)});
        // Pods are seen as themselves, whoever translates.
        CHECK(seen(lab, "pod-1-1", transport, cluster) == Seen{"pod-2-1", pod("pod-1-1")});
        CHECK(seen(lab, "pod-2-2", transport, cluster) == Seen{"pod-2-1", pod("pod-2-2")});
        CHECK(seen(lab, "pod-1-1", transport, node_port(1)) == Seen{"pod-2-1", pod("pod-1-1")});
        // A pod to itself: by the packet path as its node, by its socket it never leaves the pod.
        CHECK(seen(lab, "pod-2-1", transport, cluster) == Seen{"pod-2-1", mode == "all" ? pod("pod-2-1") : node(2)});
    });
    for (const Node &node : lab.topology().nodes)
        CHECK(nlohmann::json::parse(cli(lab, node.name, {"drops", "-o", "json"})).empty());
}

} // namespace
} // namespace thruway::lab
