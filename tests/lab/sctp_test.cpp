// SPDX-License-Identifier: Apache-2.0
// SCTP between real endpoints (tools/lab/sctp.h), which make and check every checksum themselves.
#include "tests/lab/cluster.h"

#include <algorithm>
#include <array>
#include <fcntl.h>
#include <poll.h>
#include <unistd.h>

namespace thruway::lab {
namespace {

std::string at(const std::string &address, uint16_t port)
{
    return endpoint_text(*Address::parse(address), port);
}

/// A server at port 8080 of both addresses of a pod, waited for until it listens.
Process serve(const Lab &lab, const std::string &pod)
{
    std::array<int, 2> ends{};
    REQUIRE(::pipe2(ends.data(), O_CLOEXEC) == 0);
    const Fd listening(ends[0]);
    Fd out(ends[1]);
    std::vector<std::string> argv{program(), "sctp-serve", "--name", pod};
    for (const Family family : families)
        argv.push_back(at(address_of(lab, pod, family), 8080));
    Process server = must(Process::start(lab.keeper(), must(lab.place(pod)), {.argv = argv, .out = out.get()}));
    out.reset();
    pollfd line{.fd = listening.get(), .events = POLLIN, .revents = 0};
    REQUIRE(::poll(&line, 1, 10'000) == 1);
    char first = 0;
    REQUIRE(::read(listening.get(), &first, 1) == 1);
    return server;
}

/// A Service of a load balancer, port 80, with frontends of every kind.
struct AssociationService {
    unsigned number = 1; ///< also of its node port, 30080 and up
    std::string policy = "Cluster";
    std::vector<std::string> pods;

    [[nodiscard]] std::string name() const { return fmt::format("sctp-{}", number); }
    [[nodiscard]] uint16_t node_port() const { return static_cast<uint16_t>(30'079 + number); }
    [[nodiscard]] std::string cluster(Family family) const { return address(family, "10.96.0.", "fd00:96::"); }
    [[nodiscard]] std::string external(Family family) const { return address(family, "203.0.113.", "2001:db8:1::"); }
    [[nodiscard]] std::string balancer(Family family) const { return address(family, "198.51.100.", "2001:db8:2::"); }
    [[nodiscard]] std::string manifest(const Lab &lab) const;

private:
    [[nodiscard]] std::string address(Family family, const char *v4, const char *v6) const
    {
        return fmt::format("{}{}", family == Family::ipv4 ? v4 : v6, number);
    }
};

std::string AssociationService::manifest(const Lab &lab) const
{
    const auto both = [&](std::string (AssociationService::*kind)(Family) const) {
        return fmt::format("[{}, \"{}\"]", (this->*kind)(Family::ipv4), (this->*kind)(Family::ipv6));
    };
    std::string text =
        fmt::format(R"(apiVersion: v1
kind: Service
metadata: {{name: {}, namespace: default}}
spec:
  type: LoadBalancer
  externalTrafficPolicy: {}
  clusterIP: {}
  clusterIPs: {}
  ipFamilies: [IPv4, IPv6]
  externalIPs: {}
  ports: [{{name: sctp, port: 80, protocol: SCTP, nodePort: {}}}]
status: {{loadBalancer: {{ingress: [{{ip: {}}}, {{ip: "{}"}}]}}}}
)",
                    name(), policy, cluster(Family::ipv4), both(&AssociationService::cluster),
                    both(&AssociationService::external), node_port(), balancer(Family::ipv4), balancer(Family::ipv6));
    for (const Family family : families) {
        std::string endpoints;
        for (const std::string &pod : pods)
            endpoints += fmt::format("{{addresses: [\"{}\"], nodeName: {}}}, ", address_of(lab, pod, family),
                                     must(find_pod(lab, "default", pod)).node);
        text += fmt::format(R"(---
apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata: {{name: {0}-{1}, namespace: default, labels: {{kubernetes.io/service-name: {0}}}}}
addressType: {2}
ports: [{{name: sctp, port: 8080, protocol: SCTP}}]
endpoints: [{3}]
)",
                            name(), family_index(family), family == Family::ipv4 ? "IPv4" : "IPv6", endpoints);
    }
    return text;
}

/// Shows the service to the agents and waits until all nodes have its backends.
void put(const Lab &lab, const AssociationService &service)
{
    must(lab.put_manifest(service.name(), service.manifest(lab)));
    for (const Node &node : lab.topology().nodes)
        eventually(fmt::format("{} has {}", node.name, service.name()), [&] {
            const Output output =
                try_cli(lab, node.name, {"backend", "list", "--service", "default/" + service.name(), "-o", "json"});
            return output.exit.good() &&
                   nlohmann::json::parse(output.out).size() == families.size() * service.pods.size();
        });
}

/// Leads what others send to addresses outside of the cluster to a node.
void route_to(const Lab &lab, const std::string &node, const std::string &address, Family family)
{
    check_runs(lab, "fabric", {"ip", "route", "add", address, "via", address_of(lab, node, family)});
}

/// What `thruway-lab sctp-dial` at a place was told: {"name", "client_address", ...} or {"error"}.
nlohmann::json dialled(const Lab &lab, const std::string &place, const std::string &target,
                       const std::vector<std::string> &more = {})
{
    std::vector<std::string> argv{program(), "sctp-dial", target, "-o", "json"};
    argv.insert(argv.end(), more.begin(), more.end());
    const Output output = must(lab.run(place, argv));
    INFO(output.err);
    return nlohmann::json::parse(output.out);
}

/// An association from the place to the target stands, carries messages both ways and is shut down by both sides'
/// consent; the server is this one and sees the client by this address. Messages of 60,000 bytes are many chunks and
/// packets.
void check_serves(const Lab &lab, const std::string &place, const std::string &target, const std::string &server,
                  const std::string &seen)
{
    for (const char *size : {"1", "60000"}) {
        const auto answer = dialled(lab, place, target, {"--messages", "3", "--size", size, "--timeout", "5000"});
        INFO(fmt::format("{} -> {}, {} bytes: {}", place, target, size, answer.dump()));
        REQUIRE(answer.value("name", "") == server);
        REQUIRE(answer.value("client_address", "") == seen);
    }
}

void check_no_drops(const Lab &lab)
{
    for (const Node &node : lab.topology().nodes)
        CHECK(nlohmann::json::parse(cli(lab, node.name, {"drops", "-o", "json"})).empty());
}

TEST_CASE("SCTP: pods and nodes reach a Service's port on its pods' other one, and pods each other")
{
    const Lab lab = thruway_lab({.nodes = 2});
    const AssociationService service{.pods = {"pod-2-1"}};
    const Process server = serve(lab, "pod-2-1");
    put(lab, service);
    for (const Family family : families) {
        const std::string target = at(service.cluster(family), 80);
        for (const std::string place : {"pod-1-1", "pod-2-2", "node1", "node2"})
            check_serves(lab, place, target, "pod-2-1", address_of(lab, place, family));
        check_serves(lab, "pod-2-1", target, "pod-2-1", address_of(lab, "node2", family));
        for (const std::string place : {"pod-1-1", "pod-2-2", "client"})
            check_serves(lab, place, at(address_of(lab, "pod-2-1", family), 8080), "pod-2-1",
                         address_of(lab, place, family));
    }
    check_no_drops(lab);
}

TEST_CASE("SCTP: clients outside reach a Service by node ports, external IPs and load balancers' addresses")
{
    const Lab lab = thruway_lab({.nodes = 2});
    const AssociationService any{.number = 1, .pods = {"pod-2-1"}};
    const AssociationService local{.number = 2, .policy = "Local", .pods = {"pod-2-1"}};
    const Process server = serve(lab, "pod-2-1");
    put(lab, any);
    put(lab, local);
    for (const Family family : families) {
        const auto of = [&](const std::string &place) { return address_of(lab, place, family); };
        for (const std::string &address : {any.external(family), any.balancer(family)})
            route_to(lab, "node1", address, family);
        for (const std::string &address : {local.external(family), local.balancer(family)})
            route_to(lab, "node2", address, family);
        // Masqueraded: the answer has to come back by the node that the client has dialled.
        for (const std::string node : {"node1", "node2"})
            check_serves(lab, "client", at(of(node), any.node_port()), "pod-2-1", of(node));
        check_serves(lab, "client", at(any.external(family), 80), "pod-2-1", of("node1"));
        check_serves(lab, "client", at(any.balancer(family), 80), "pod-2-1", of("node1"));
        for (const std::string &target :
             {at(of("node2"), local.node_port()), at(local.external(family), 80), at(local.balancer(family), 80)})
            check_serves(lab, "client", target, "pod-2-1", of("client"));
    }
    check_no_drops(lab);
}

TEST_CASE("rule 31: a Service without endpoints aborts what SCTP clients begin, within a second")
{
    const Lab lab = thruway_lab({.nodes = 2});
    const AssociationService service;
    put(lab, service);
    for (const Family family : families) {
        const auto check = [&](const std::string &place, const std::string &target) {
            INFO(place << " -> " << target);
            CHECK(dialled(lab, place, target) == nlohmann::json{{"error", "refused"}});
        };
        for (const std::string place : {"pod-1-1", "node1"})
            check(place, at(service.cluster(family), 80));
        check("client", at(address_of(lab, "node1", family), service.node_port()));
    }
}

TEST_CASE("rule 34: an association outlives its backend's place in the Service, and the port's next one goes elsewhere")
{
    const Lab lab = thruway_lab({.nodes = 2});
    AssociationService service{.pods = {"pod-2-1"}};
    const Process first = serve(lab, "pod-2-1");
    const Process second = serve(lab, "pod-2-2");
    const Fd null(::open("/dev/null", O_WRONLY | O_CLOEXEC));
    for (const Family family : families) {
        const std::string target = at(service.cluster(family), 80);
        service.pods = {"pod-2-1"};
        put(lab, service);
        const Command dial{.argv = {program(), "sctp-dial", target, "--source-port", "5000", "--messages", "20",
                                    "--pause", "100", "--timeout", "5000"},
                           .out = null.get()};
        Process talking = must(Process::start(lab.keeper(), must(lab.place("pod-1-1")), dial));
        eventually("the association stands", [&] {
            const auto flows = nlohmann::json::parse(cli(lab, "node1", {"flow", "list", "-o", "json"}));
            return std::ranges::any_of(flows, [&](const auto &flow) {
                return flow.at("state") == "established" &&
                       flow.at("destination").at("address") == service.cluster(family);
            });
        });
        service.pods = {"pod-2-2"};
        put(lab, service);
        CHECK(must(talking.wait(std::chrono::seconds(10))).good());
        CHECK(dialled(lab, "pod-1-1", target, {"--source-port", "5000", "--timeout", "5000"}).value("name", "") ==
              "pod-2-2");
    }
}

} // namespace
} // namespace thruway::lab
