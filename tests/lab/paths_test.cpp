// SPDX-License-Identifier: Apache-2.0
// Real clients and servers on three nodes: who answers, and whom it sees.
#include "tests/lab/cluster.h"

#include <catch2/generators/catch_generators.hpp>
#include <set>

namespace thruway::lab {
namespace {

const std::string &host(const std::vector<std::string> &of_family, Family family)
{
    return of_family.at(family_index(family));
}

TEST_CASE("requests by every path reach a backend, which sees the client that it should", "[kernels]")
{
    const Lab lab = thruway_lab();
    const WebService web{.pods = {"pod-2-1"}};
    put(lab, web);
    const std::vector<std::string> node1{"172.20.0.11", "fd20::11"};
    const std::vector<std::string> node2{"172.20.0.12", "fd20::12"};
    const std::vector<std::string> node3{"172.20.0.13", "fd20::13"};

    for (const Family family : {Family::ipv4, Family::ipv6}) {
        for (const std::string transport : {"tcp", "udp"}) {
            const bool tcp = transport == "tcp";
            const std::string cluster = web.cluster(family, tcp ? 80 : 53);
            const auto node_port = [&](unsigned node) {
                return WebService::node_port(node, family, tcp ? 30080 : 30053);
            };
            const auto address = [&](const std::string &pod) {
                return must(find_pod(lab, "default", pod)).addresses.at(family_index(family)).text();
            };
            INFO(cluster << " " << transport);
            // A pod is seen as itself, on its own node and from another one.
            CHECK(seen(lab, "pod-1-1", transport, cluster) == Seen{"pod-2-1", address("pod-1-1")});
            CHECK(seen(lab, "pod-2-2", transport, cluster) == Seen{"pod-2-1", address("pod-2-2")});
            // To itself it must come as somebody else: its node.
            CHECK(seen(lab, "pod-2-1", transport, cluster) == Seen{"pod-2-1", host(node2, family)});
            // Hosts, to a backend elsewhere and to one of their own.
            CHECK(seen(lab, "node1", transport, cluster) == Seen{"pod-2-1", host(node1, family)});
            CHECK(seen(lab, "node2", transport, cluster) == Seen{"pod-2-1", host(node2, family)});
            CHECK(seen(lab, "node1", transport, node_port(1)) == Seen{"pod-2-1", host(node1, family)});
            // From outside, by a node without a backend and by one with it.
            CHECK(seen(lab, "client", transport, node_port(3)) == Seen{"pod-2-1", host(node3, family)});
            CHECK(seen(lab, "client", transport, node_port(2)) == Seen{"pod-2-1", host(node2, family)});
            // A pod by a node port, of its own node and of another one.
            CHECK(seen(lab, "pod-1-1", transport, node_port(1)) == Seen{"pod-2-1", address("pod-1-1")});
            CHECK(seen(lab, "pod-1-1", transport, node_port(3)) == Seen{"pod-2-1", host(node3, family)});
            // Without any service.
            const auto direct = [&](const std::string &pod) {
                return endpoint_text(must(Address::parse(address(pod))), 8080);
            };
            CHECK(seen(lab, "pod-1-1", transport, direct("pod-1-2")) == Seen{"pod-1-2", address("pod-1-1")});
            CHECK(seen(lab, "pod-1-1", transport, direct("pod-3-2")) == Seen{"pod-3-2", address("pod-1-1")});
            CHECK(seen(lab, "node1", transport, direct("pod-1-1")) == Seen{"pod-1-1", host(node1, family)});
            CHECK(seen(lab, "node1", transport, direct("pod-3-1")) == Seen{"pod-3-1", host(node1, family)});
            CHECK(seen(lab, "client", transport, direct("pod-3-1")).name == "pod-3-1");
        }
    }
    for (const Node &node : lab.topology().nodes)
        CHECK(nlohmann::json::parse(cli(lab, node.name, {"drops", "-o", "json"})).empty());
}

TEST_CASE("pods reach services and each other where every node is behind a router of its own")
{
    const Lab lab = thruway_lab({.nodes = 2, .fabric = FabricKind::routed});
    const WebService web{.pods = {"pod-2-1"}};
    put(lab, web);
    for (const Family family : {Family::ipv4, Family::ipv6}) {
        const std::string client = must(find_pod(lab, "default", "pod-1-1")).addresses.at(family_index(family)).text();
        CHECK(seen(lab, "pod-1-1", "tcp", web.cluster(family, 80)) == Seen{"pod-2-1", client});
        CHECK(seen(lab, "node1", "udp", web.cluster(family, 53)).name == "pod-2-1");
    }
}

TEST_CASE("a changed manifest changes where new requests go")
{
    const Lab lab = thruway_lab();
    WebService web{.pods = {"pod-2-1"}};
    put(lab, web);
    CHECK(seen(lab, "pod-1-1", "tcp", "10.96.0.1:80").name == "pod-2-1");
    web.pods = {"pod-3-1", "pod-3-2"};
    put(lab, web);
    std::set<std::string> names;
    for (int i = 0; i < 30; i++)
        names.insert(seen(lab, "pod-1-1", "tcp", "10.96.0.1:80").name);
    CHECK(names == std::set<std::string>{"pod-3-1", "pod-3-2"});

    must(lab.remove_manifest(web.name()));
    eventually("the service is gone",
               [&] { return nlohmann::json::parse(cli(lab, "node1", {"service", "list", "-o", "json"})).empty(); });
    CHECK(ask_from(lab, "pod-1-1", "tcp", "10.96.0.1:80").contains("error"));
}

TEST_CASE("a host socket that is translated says that it talks to the service")
{
    const Lab lab = thruway_lab({.nodes = 1});
    put(lab, {.pods = {"pod-1-1"}});
    const Output output = must(lab.run("node1", {"python3", "-c", R"(
import socket
for family, name in ((socket.AF_INET, "10.96.0.1"), (socket.AF_INET6, "fd00:96::1"), (socket.AF_INET6, "::ffff:10.96.0.1")):
    t = socket.create_connection((name, 80), 3) if name[0] != ":" else socket.socket(family)
    if name[0] == ":":
        t.connect((name, 80))
    print(t.getpeername()[0], t.getpeername()[1])
    u = socket.socket(family, socket.SOCK_DGRAM)
    u.settimeout(3)
    u.sendto(b"x", (name, 53))
    print(*u.recvfrom(100)[1][:2])
)"}));
    INFO(output.err);
    CHECK(output.out == "10.96.0.1 80\n10.96.0.1 53\nfd00:96::1 80\nfd00:96::1 53\n"
                        "::ffff:10.96.0.1 80\n::ffff:10.96.0.1 53\n");
}

TEST_CASE("large transfers arrive byte for byte, whatever joins and splits segments on the way")
{
    const unsigned mtu = GENERATE(1500U, 9000U);
    const Lab lab = thruway_lab({.mtu = mtu});
    const WebService web{.pods = {"pod-2-1"}};
    put(lab, web);
    for (const Family family : {Family::ipv4, Family::ipv6}) {
        const std::pair<std::string, std::string> paths[] = {
            {"pod-1-1", web.cluster(family, 80)},
            {"pod-2-2", web.cluster(family, 80)},
            {"pod-2-1", web.cluster(family, 80)},
            {"node1", web.cluster(family, 80)},
            {"client", WebService::node_port(3, family, 30080)},
            {"client", WebService::node_port(2, family, 30080)},
            {"pod-1-1",
             endpoint_text(must(find_pod(lab, "default", "pod-1-2")).addresses.at(family_index(family)), 8080)},
            {"pod-1-1",
             endpoint_text(must(find_pod(lab, "default", "pod-3-1")).addresses.at(family_index(family)), 8080)},
        };
        for (const auto &[place, target] : paths) {
            const Output output = must(lab.run(place, {program(), "bulk", target, "--bytes", "20000000"}));
            INFO(place << " -> " << target << ": " << output.out << output.err);
            CHECK(output.exit.good());
        }
    }
}

} // namespace
} // namespace thruway::lab
