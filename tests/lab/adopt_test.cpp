// SPDX-License-Identifier: Apache-2.0
// Thruway comes to a live node: what plain routing and another service proxy have carried goes on, and what is new is
// ours.
#include "tests/lab/cluster.h"
#include "tests/lab/firewall.h"
#include "tests/lab/hold_client.h"

#include <thread>

namespace thruway::lab {
namespace {

using nlohmann::json;

/// Ends the agents and takes everything of theirs out of the packets' way but interfaces, addresses and routes: what
/// remains is a cluster of plain routing.
void take_off(const Lab &lab)
{
    for (const Node &node : lab.topology().nodes) {
        must(stop_agent(lab, node.name));
        const Output output =
            must(lab.run(node.name, {"sh", "-ec",
                                     "find " + lab.folder().bpffs(node.name).native() +
                                         " -mindepth 1 ! -name '*.debug' -delete; for device in $(ip -o link show type "
                                         "veth | cut -d: -f2 | cut -d@ -f1); do "
                                         "tc qdisc del dev $device clsact 2>/dev/null || true; done"}));
        INFO(output.err);
        REQUIRE(output.exit.good());
    }
}

/// What kube-proxy would make of the service: DNAT of new connections, the rest by conntrack, and masquerade for
/// clients from outside.
void put_up_proxy(const Lab &lab, const WebService &web)
{
    const std::string backend4 = must(find_pod(lab, "default", web.pods.at(0))).addresses.at(0).text();
    const std::string backend6 = must(find_pod(lab, "default", web.pods.at(0))).addresses.at(1).text();
    for (const Node &node : lab.topology().nodes)
        nft(lab, node.name,
            fmt::format("table inet proxy {{ chain before {{ type nat hook prerouting priority dstnat; "
                        "ip daddr 10.96.0.1 tcp dport 80 dnat ip to {0}:8080; "
                        "ip6 daddr fd00:96::1 tcp dport 80 dnat ip6 to [{1}]:8080; "
                        "ip daddr {2} tcp dport 30080 dnat ip to {0}:8080; "
                        "ip6 daddr {3} tcp dport 30080 dnat ip6 to [{1}]:8080; }}; "
                        "chain after {{ type nat hook postrouting priority srcnat; "
                        "ip saddr 172.21.0.0/16 masquerade; ip6 saddr fd21::/64 masquerade; }}; }}",
                        backend4, backend6, node.addresses.at(0).text(), node.addresses.at(1).text()));
}

/// How many connections to services the node's datapath has made.
uint64_t connections(const Lab &lab, const std::string &node)
{
    uint64_t all = 0;
    for (const auto &[path, value] :
         json::parse(cli(lab, node, {"service", "get", "default/web-1", "-o", "json"})).flatten().items())
        if (path.ends_with("/connections"))
            all += value.get<uint64_t>();
    return all;
}

TEST_CASE("an agent that comes to a live node breaks no connection, and new ones are ours")
{
    const Lab lab = thruway_lab();
    const WebService web{.pods = {"pod-2-1"}};
    put(lab, web);
    take_off(lab);
    put_up_firewalls(lab);
    put_up_proxy(lab, web);

    std::vector<Hold> holds;
    const auto hold = [&](const std::string &place, const std::string &target) {
        holds.emplace_back(lab, place, std::vector<std::string>{target, "--connections", "10", "--rate", "20"});
    };
    for (const Family family : {Family::ipv4, Family::ipv6}) {
        const auto direct = [&](const std::string &pod) {
            return endpoint_text(must(find_pod(lab, "default", pod)).addresses.at(family_index(family)), 8080);
        };
        hold("pod-1-1", web.cluster(family, 80));                // to another node
        hold("pod-2-2", web.cluster(family, 80));                // to its own
        hold("client", WebService::node_port(3, family, 30080)); // by a node without the backend
        hold("client", WebService::node_port(2, family, 30080)); // by the one with it
        hold("pod-1-2", direct("pod-3-1"));
        hold("pod-3-2", direct("pod-3-1"));
    }
    for (const Node &node : lab.topology().nodes)
        must(start_agent(lab, node.name));
    for (const Node &node : lab.topology().nodes)
        must(wait_agent_ready(lab, node.name, std::chrono::seconds(20)));
    std::this_thread::sleep_for(std::chrono::seconds(2));

    // The proxy's rules are still there; that the datapath counts connections of the service shows whose they are.
    CHECK(seen(lab, "pod-1-1", "tcp", web.cluster(Family::ipv4, 80)).name == "pod-2-1");
    for (const char *node : {"node1", "node3"})
        CHECK(connections(lab, node) > 0);
    for (Hold &each : holds) {
        const json report = each.finish(0);
        CHECK(report["established"] == 10);
        CHECK(report["lost"] == 0);
        CHECK(report["short_failed"] == 0);
    }
    check_untripped(lab);
}

} // namespace
} // namespace thruway::lab
