// SPDX-License-Identifier: Apache-2.0
// What nodes themselves dial, and what is served by processes of nodes, in each mode of socket translation, with a host
// firewall that takes offence at every packet whose connection it has seen only half of.
#include "tests/lab/cluster.h"
#include "tests/lab/firewall.h"

#include <catch2/generators/catch_generators.hpp>
#include <filesystem>
#include <fstream>

namespace thruway::lab {
namespace {

/// An echo server that is a process of the node.
Process serve_on(const Lab &lab, const std::string &node)
{
    Process server = must(lab.start(node, {program(), "echo", "--name", node, "--tcp", "8080", "--udp", "8080"}));
    eventually(node + " serves", [&] { return ask_from(lab, node, "tcp", "127.0.0.1:8080").contains("name"); });
    return server;
}

/// What a service's frontends and its clients are called in one family, for one transport.
struct Kind {
    const Lab &lab;
    Family family;
    std::string transport;

    [[nodiscard]] std::string cluster(unsigned service) const
    {
        return WebService{.number = service, .pods = {}}.cluster(family, transport == "tcp" ? 80 : 53);
    }
    [[nodiscard]] std::string node_port(unsigned service, unsigned node) const
    {
        const unsigned base = transport == "tcp" ? 30'079 : 30'052;
        return WebService::node_port(node, family, static_cast<uint16_t>(base + service));
    }
    [[nodiscard]] std::string node(unsigned number) const
    {
        return must(lab.node(fmt::format("node{}", number))).addresses.at(family_index(family)).text();
    }
    [[nodiscard]] std::string client() const { return lab.topology().client.addresses.at(family_index(family)).text(); }
    [[nodiscard]] std::string pod(const std::string &name) const
    {
        return must(find_pod(lab, "default", name)).addresses.at(family_index(family)).text();
    }
    [[nodiscard]] Seen seen(const std::string &place, const std::string &target) const
    {
        return lab::seen(lab, place, transport, target);
    }
};

void each_kind(const Lab &lab, const std::function<void(const Kind &)> &check)
{
    for (const Family family : {Family::ipv4, Family::ipv6})
        for (const char *transport : {"tcp", "udp"})
            check({lab, family, transport});
}

TEST_CASE("nodes reach pods by cluster address and node port in every mode of socket translation")
{
    const std::string mode = GENERATE("off", "host", "all");
    const Lab lab = thruway_lab({.agent_args = {"--sock", mode}});
    put_up_firewalls(lab);
    put(lab, {.pods = {"pod-2-1"}});

    each_kind(lab, [&](const Kind &kind) {
        INFO("sock: " << mode);
        // To a backend elsewhere and to one of their own; by their own node port and by another node's.
        CHECK(kind.seen("node1", kind.cluster(1)) == Seen{"pod-2-1", kind.node(1)});
        CHECK(kind.seen("node2", kind.cluster(1)) == Seen{"pod-2-1", kind.node(2)});
        CHECK(kind.seen("node1", kind.node_port(1, 1)) == Seen{"pod-2-1", kind.node(1)});
        CHECK(kind.seen("node2", kind.node_port(1, 2)) == Seen{"pod-2-1", kind.node(2)});
        CHECK(kind.seen("node1", kind.node_port(1, 3)) == Seen{"pod-2-1", kind.node(3)});
        CHECK(kind.seen("node1", kind.node_port(1, 2)) == Seen{"pod-2-1", kind.node(2)});
        // Pods are seen as themselves, whoever translates.
        CHECK(kind.seen("pod-1-1", kind.cluster(1)) == Seen{"pod-2-1", kind.pod("pod-1-1")});
        CHECK(kind.seen("pod-2-2", kind.cluster(1)) == Seen{"pod-2-1", kind.pod("pod-2-2")});
        CHECK(kind.seen("pod-1-1", kind.node_port(1, 1)) == Seen{"pod-2-1", kind.pod("pod-1-1")});
        // A pod to itself: by the packet path as its node; by its socket it never leaves the pod. (Clients here connect
        // their UDP sockets, which only nodes have translated there.)
        const bool by_socket = mode == "all" && kind.transport == "tcp";
        CHECK(kind.seen("pod-2-1", kind.cluster(1)) == Seen{"pod-2-1", by_socket ? kind.pod("pod-2-1") : kind.node(2)});
    });
    check_untripped(lab);
}

TEST_CASE("rule 11: where it is configured nodes reach node ports on their loopback, and pods have one of their own")
{
    const ConfigFile config("localhost-node-ports: true\n");
    std::vector<std::string> arguments = config.arguments();
    arguments.insert(arguments.end(), {"--sock", GENERATE("host", "all")});
    const Lab lab = thruway_lab({.nodes = 2, .agent_args = arguments});
    put(lab, {.pods = {"pod-2-1"}});

    each_kind(lab, [&](const Kind &kind) {
        const std::string loopback = fmt::format("{}:{}", kind.family == Family::ipv4 ? "127.0.0.1" : "[::1]",
                                                 kind.transport == "tcp" ? 30080 : 30053);
        CHECK(kind.seen("node1", loopback) == Seen{"pod-2-1", kind.node(1)});
        CHECK_FALSE(ask_from(lab, "pod-1-1", kind.transport, loopback).contains("name"));
    });
}

/// A client of a UDP service with a connected socket: it talks to the backend `before`, makes the file `go` + its
/// place, and when `go` appears ends well if `after` answers it within five seconds. It may connect anew if it is told
/// to.
Process start_connected_client(const Lab &lab, const std::string &place, const std::string &target,
                               const std::string &go)
{
    return must(lab.start(place, {"python3", "-c",
                                  fmt::format(R"(
import os, socket, sys, time
host, port = "{0}".rsplit(":", 1)
family = socket.AF_INET6 if "[" in host else socket.AF_INET
def connect():
    s = socket.socket(family, socket.SOCK_DGRAM)
    s.settimeout(0.2)
    s.connect((host.strip("[]"), int(port)))
    return s
s = connect()
s.send(b"hello")
if b"pod-2-1" not in s.recv(1000):
    sys.exit("another backend")
open("{1}.{2}", "w").close()
while not os.path.exists("{1}"):
    time.sleep(0.01)
end = time.monotonic() + 5
while time.monotonic() < end:
    try:
        s.send(b"hello")
        if b"pod-2-2" in s.recv(1000):
            sys.exit(0)
    except TimeoutError:
        pass
    except OSError as error:
        if {3}:
            sys.exit(f"a pod's socket was ended: {{error}}")
        s = connect()
sys.exit("stuck")
)",
                                              target, go, place, place.starts_with("pod") ? "True" : "False")}));
}

TEST_CASE("rule 35: a UDP socket that is connected to a service is not stuck on a backend that is gone")
{
    const std::string mode = GENERATE("host", "all");
    const Lab lab = thruway_lab({.nodes = 2, .agent_args = {"--sock", mode}});
    put(lab, {.pods = {"pod-2-1"}});
    const std::string go = fmt::format("/tmp/{}.go", unique_name());
    const std::vector<std::string> places{"node1", "node2", "pod-1-1", "pod-2-2"};
    for (const Family family : {Family::ipv4, Family::ipv6}) {
        INFO("sock: " << mode);
        put(lab, {.pods = {"pod-2-1"}});
        std::vector<Process> clients;
        for (const std::string &place : places)
            clients.push_back(start_connected_client(lab, place, WebService{.pods = {}}.cluster(family, 53), go));
        for (const std::string &place : places)
            eventually(place + " is connected", [&] { return std::filesystem::remove(go + "." + place); });
        put(lab, {.pods = {"pod-2-2"}});
        std::ofstream(go).close();
        for (Process &client : clients)
            CHECK(must(client.wait(std::chrono::seconds(8))).good());
        std::filesystem::remove(go);
    }
}

TEST_CASE("processes of nodes serve pods, nodes and the outside in every mode of socket translation")
{
    const std::string mode = GENERATE("off", "host", "all");
    const Lab lab = thruway_lab({.pods = 1, .agent_args = {"--sock", mode}});
    put_up_firewalls(lab);
    const Process server = serve_on(lab, "node2");
    put(lab, {.pods = {}, .nodes = {2}});

    each_kind(lab, [&](const Kind &kind) {
        INFO("sock: " << mode);
        CHECK(kind.seen("pod-1-1", kind.cluster(1)) == Seen{"node2", kind.pod("pod-1-1")});
        CHECK(kind.seen("pod-2-1", kind.cluster(1)) == Seen{"node2", kind.pod("pod-2-1")});
        CHECK(kind.seen("pod-2-1", kind.node_port(1, 2)) == Seen{"node2", kind.pod("pod-2-1")});
        CHECK(kind.seen("node1", kind.cluster(1)) == Seen{"node2", kind.node(1)});
        CHECK(kind.seen("node2", kind.cluster(1)) == Seen{"node2", kind.node(2)});
        CHECK(kind.seen("node1", kind.node_port(1, 1)) == Seen{"node2", kind.node(1)});
        CHECK(kind.seen("node2", kind.node_port(1, 2)) == Seen{"node2", kind.node(2)});
        CHECK(kind.seen("node1", kind.node_port(1, 2)) == Seen{"node2", kind.node(1)});
        // By a node that does not serve as that node; by the one that does as the client itself, as kube-proxy has it.
        CHECK(kind.seen("client", kind.node_port(1, 3)) == Seen{"node2", kind.node(3)});
        CHECK(kind.seen("client", kind.node_port(1, 2)) == Seen{"node2", kind.client()});
    });
    check_untripped(lab);
}

TEST_CASE("a host firewall rules over what nodes serve and dial through services as over everything else")
{
    const std::string mode = GENERATE("off", "host");
    const Lab lab = thruway_lab({.nodes = 2, .pods = 0, .agent_args = {"--sock", mode}});
    const Process server = serve_on(lab, "node2");
    put(lab, {.pods = {}, .nodes = {2}});
    const std::string cluster = WebService{.pods = {}}.cluster(Family::ipv4, 80);
    const std::string node_port = WebService::node_port(2, Family::ipv4, 30080);
    const auto error = [&](const std::string &place, const std::string &target) {
        return ask_from(lab, place, "tcp", target).value("error", "none");
    };
    CHECK(error("client", node_port) == "none");
    CHECK(error("node1", cluster) == "none");

    // A port that is closed to the outside is closed by its node port, too.
    nft(lab, "node2",
        "table inet guard { chain input { type filter hook input priority 0; "
        "ip saddr 172.21.0.0/16 tcp dport 8080 drop; }; }");
    CHECK(error("client", "172.20.0.12:8080") == "timeout");
    CHECK(error("client", node_port) == "timeout");
    CHECK(error("node1", cluster) == "none");

    // What the node may not dial it may not dial through a service: the firewall sees the backend if the socket was
    // translated, else the service.
    nft(lab, "node1",
        fmt::format("table inet guard {{ chain output {{ type filter hook output priority 0; "
                    "ip daddr {} tcp dport {} drop; }}; }}",
                    mode == "off" ? "10.96.0.1" : "172.20.0.12", mode == "off" ? 80 : 8080));
    CHECK(error("node1", cluster) != "none");
    CHECK(error("node1", WebService::node_port(2, Family::ipv4, 30080)) == "none");
}

} // namespace
} // namespace thruway::lab
