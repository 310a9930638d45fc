// SPDX-License-Identifier: Apache-2.0
// Services and EndpointSlices to service plans, by cases.
#include "agent/planner/services.h"

#include <algorithm>
#include <catch2/catch_test_macros.hpp>
#include <map>
#include <random>

using namespace thruway;

namespace {

Address address(const std::string &text)
{
    return Address::parse(text).value();
}

ObjectName name(const std::string &text)
{
    return {Symbol("default"), text};
}

Service service(const std::string &text, const std::vector<std::string> &cluster_ips, std::vector<ServicePort> ports,
                ServiceType type = ServiceType::cluster_ip)
{
    Service made;
    made.name = name(text);
    made.type = type;
    for (const std::string &ip : cluster_ips)
        made.cluster_ips.push_back(address(ip));
    made.ports = std::move(ports);
    return made;
}

ServicePort port(const char *text, uint16_t number, uint16_t node_port = 0, Protocol protocol = Protocol::tcp)
{
    return {Symbol(text), protocol, number, node_port};
}

EndpointSlice slice(const std::string &text, const std::string &owner, std::vector<SlicePort> ports,
                    const std::vector<std::string> &addresses, uint8_t conditions = Endpoint::ready | Endpoint::serving)
{
    EndpointSlice made;
    made.name = name(text);
    made.service = owner;
    made.ports = std::move(ports);
    for (const std::string &ip : addresses) {
        made.endpoints.push_back({.address = address(ip), .conditions = conditions});
        made.family = made.endpoints.back().address.family();
    }
    return made;
}

SlicePort slice_port(const char *text, uint16_t number, Protocol protocol = Protocol::tcp)
{
    return {Symbol(text), protocol, number};
}

/// Plans as lines that can be read: "web/http IPv4 10.96.0.1:80/TCP -> 10.244.1.1:8080".
std::vector<std::string> lines(const ServiceChanges &changes)
{
    std::vector<std::string> all;
    for (const ServicePlan &plan : changes.upserts) {
        std::vector<std::string> frontends;
        std::vector<std::string> backends;
        for (const Frontend &frontend : plan.frontends)
            frontends.push_back(frontend.text());
        for (const Backend &backend : plan.backends)
            backends.push_back(endpoint_text(backend.address, backend.port));
        all.push_back(fmt::format("{}/{} {} {} -> {}", plan.key.service.name, plan.key.port.text(),
                                  plan.key.family == Family::ipv4 ? "IPv4" : "IPv6", fmt::join(frontends, " "),
                                  fmt::join(backends, " ")));
    }
    for (const ServiceKey &key : changes.deletes)
        all.push_back(fmt::format("{}/{} gone", key.service.name, key.port.text()));
    std::ranges::sort(all);
    return all;
}

using Lines = std::vector<std::string>;

} // namespace

TEST_CASE("a ClusterIP service gets the ready endpoints of its slices, sorted")
{
    ServicePlanner planner;
    planner.upsert(service("web", {"10.96.0.1"}, {port("http", 80)}));
    planner.upsert(slice("web-a", "web", {slice_port("http", 8080)}, {"10.244.1.2", "10.244.1.1"}));
    planner.upsert(slice("web-b", "web", {slice_port("http", 8080)}, {"10.244.2.1"}));
    planner.upsert(slice("web-c", "web", {slice_port("http", 8080)}, {"10.244.3.1"}, Endpoint::serving));
    CHECK(lines(planner.take_changes()) ==
          Lines{"web/http IPv4 10.96.0.1:80/TCP -> 10.244.1.1:8080 10.244.1.2:8080 10.244.2.1:8080"});
    CHECK(planner.take_changes().empty());
}

TEST_CASE("slices that come before their service wait for it")
{
    ServicePlanner planner;
    planner.upsert(slice("web-a", "web", {slice_port("http", 8080)}, {"10.244.1.1"}));
    CHECK(planner.take_changes().empty());
    planner.upsert(service("web", {"10.96.0.1"}, {port("http", 80)}));
    CHECK(lines(planner.take_changes()) == Lines{"web/http IPv4 10.96.0.1:80/TCP -> 10.244.1.1:8080"});
}

TEST_CASE("a NodePort service has a frontend on every node address, in each of its families")
{
    ServicePlanner planner;
    planner.upsert(service("web", {"10.96.0.1", "fd00:96::1"}, {port("http", 80, 30080)}, ServiceType::node_port));
    planner.upsert(slice("web-4", "web", {slice_port("http", 8080)}, {"10.244.1.1"}));
    planner.upsert(slice("web-6", "web", {slice_port("http", 8080)}, {"fd00:10:244:1::1"}));
    CHECK(lines(planner.take_changes()) ==
          Lines{"web/http IPv4 10.96.0.1:80/TCP 0.0.0.0:30080/TCP -> 10.244.1.1:8080",
                "web/http IPv6 [fd00:96::1]:80/TCP [::]:30080/TCP -> [fd00:10:244:1::1]:8080"});
}

TEST_CASE("a node port of a ClusterIP service counts for nothing")
{
    ServicePlanner planner;
    planner.upsert(service("web", {"10.96.0.1"}, {port("http", 80, 30080)}));
    CHECK(lines(planner.take_changes()) == Lines{"web/http IPv4 10.96.0.1:80/TCP -> "});
}

TEST_CASE("ports are matched by name and protocol, and one name may mean several numbers")
{
    ServicePlanner planner;
    planner.upsert(service("dns", {"10.96.0.10"}, {port("dns", 53, 0, Protocol::udp), port("dns-tcp", 53)}));
    planner.upsert(
        slice("dns-a", "dns", {slice_port("dns", 5353, Protocol::udp), slice_port("dns-tcp", 5353)}, {"10.244.1.1"}));
    planner.upsert(
        slice("dns-b", "dns", {slice_port("dns", 1053, Protocol::udp), slice_port("metrics", 9153)}, {"10.244.2.1"}));
    CHECK(lines(planner.take_changes()) == Lines{"dns/dns IPv4 10.96.0.10:53/UDP -> 10.244.1.1:5353 10.244.2.1:1053",
                                                 "dns/dns-tcp IPv4 10.96.0.10:53/TCP -> 10.244.1.1:5353"});
}

TEST_CASE("an endpoint that stands in two slices counts once")
{
    ServicePlanner planner;
    planner.upsert(service("web", {"10.96.0.1"}, {port("", 80)}));
    planner.upsert(slice("web-a", "web", {slice_port("", 8080)}, {"10.244.1.1", "10.244.1.2"}));
    planner.upsert(slice("web-b", "web", {slice_port("", 8080)}, {"10.244.1.2"}));
    CHECK(lines(planner.take_changes()) == Lines{"web/ IPv4 10.96.0.1:80/TCP -> 10.244.1.1:8080 10.244.1.2:8080"});
}

TEST_CASE("a slice that goes, changes or moves to another service changes just those services")
{
    ServicePlanner planner;
    for (const char *text : {"a", "b", "c"})
        planner.upsert(service(text, {fmt::format("10.96.0.{}", text[0] - 'a' + 1)}, {port("", 80)}));
    planner.upsert(slice("s", "a", {slice_port("", 8080)}, {"10.244.1.1"}));
    planner.take_changes();

    planner.upsert(slice("s", "b", {slice_port("", 8080)}, {"10.244.1.1"}));
    CHECK(lines(planner.take_changes()) ==
          Lines{"a/ IPv4 10.96.0.1:80/TCP -> ", "b/ IPv4 10.96.0.2:80/TCP -> 10.244.1.1:8080"});
    planner.remove_slice(name("s"));
    CHECK(lines(planner.take_changes()) == Lines{"b/ IPv4 10.96.0.2:80/TCP -> "});
    planner.remove_slice(name("s"));
    CHECK(planner.take_changes().empty());
}

TEST_CASE("a service, a port or a family that goes takes its plans along")
{
    ServicePlanner planner;
    planner.upsert(service("web", {"10.96.0.1", "fd00:96::1"}, {port("http", 80), port("https", 443)}));
    CHECK(planner.take_changes().upserts.size() == 4);
    planner.upsert(service("web", {"10.96.0.1"}, {port("http", 80)}));
    CHECK(lines(planner.take_changes()) ==
          Lines{"web/http IPv4 10.96.0.1:80/TCP -> ", "web/http gone", "web/https gone", "web/https gone"});
    planner.remove_service(name("web"));
    CHECK(lines(planner.take_changes()) == Lines{"web/http gone"});
    CHECK(planner.service_count() == 0);
}

TEST_CASE("services that are not proxied have no plans")
{
    ServicePlanner planner;
    Service headless = service("web", {}, {port("http", 80)});
    headless.proxied = false;
    planner.upsert(headless);
    CHECK(planner.take_changes().empty());

    planner.upsert(service("web", {"10.96.0.1"}, {port("http", 80)}));
    CHECK(planner.take_changes().upserts.size() == 1);
    planner.upsert(headless); // a label was added: left to another proxy from now on
    CHECK(lines(planner.take_changes()) == Lines{"web/http gone"});
}

TEST_CASE("of two services that want one node port the older has it, and the other gets it when that one goes")
{
    Service older = service("older", {"10.96.0.1"}, {port("", 80, 30080)}, ServiceType::node_port);
    Service newer = service("newer", {"10.96.0.2"}, {port("", 80, 30080)}, ServiceType::node_port);
    older.created = 100;
    newer.created = 200;
    const std::string fault =
        "Service default/newer: spec.ports[0].nodePort: 30080/TCP belongs to Service default/older";
    const Lines settled{"newer/ IPv4 10.96.0.2:80/TCP -> ", "older/ IPv4 10.96.0.1:80/TCP 0.0.0.0:30080/TCP -> "};

    SECTION("whichever comes first")
    {
        ServicePlanner planner;
        planner.upsert(older);
        planner.take_changes();
        planner.upsert(newer);
        CHECK(lines(planner.take_changes()) == Lines{settled[0]});
        CHECK(planner.take_refusals() == Lines{fault});

        planner.upsert(newer); // told once
        planner.take_changes();
        CHECK(planner.take_refusals().empty());
    }
    SECTION("also if the other one had it already")
    {
        ServicePlanner planner;
        planner.upsert(newer);
        planner.take_changes();
        planner.upsert(older);
        CHECK(lines(planner.take_changes()) == settled);
        CHECK(planner.take_refusals() == Lines{fault});
    }
    SECTION("and it passes on")
    {
        ServicePlanner planner;
        planner.upsert(newer);
        planner.upsert(older);
        planner.take_changes();
        planner.remove_service(name("older"));
        CHECK(lines(planner.take_changes()) ==
              Lines{"newer/ IPv4 10.96.0.2:80/TCP 0.0.0.0:30080/TCP -> ", "older/ gone"});
    }
    SECTION("in one round with the removal of the older one")
    {
        ServicePlanner planner;
        planner.upsert(older);
        planner.take_changes();
        planner.remove_service(name("older"));
        planner.upsert(newer);
        CHECK(lines(planner.take_changes()) ==
              Lines{"newer/ IPv4 10.96.0.2:80/TCP 0.0.0.0:30080/TCP -> ", "older/ gone"});
        CHECK(planner.take_refusals().empty());
    }
}

TEST_CASE("one number may be a node port of TCP and of UDP")
{
    ServicePlanner planner;
    planner.upsert(service("web", {"10.96.0.1"}, {port("t", 80, 30080), port("u", 80, 30080, Protocol::udp)},
                           ServiceType::node_port));
    planner.take_changes();
    CHECK(planner.take_refusals().empty());
}

TEST_CASE("two ports of a service with the same number and protocol: the first has it, and the other is told of")
{
    ServicePlanner planner;
    planner.upsert(service("web", {"10.96.0.1"}, {port("a", 80), port("b", 80)}));
    CHECK(lines(planner.take_changes()) == Lines{"web/a IPv4 10.96.0.1:80/TCP -> ", "web/b IPv4  -> "});
    CHECK(planner.take_refusals() ==
          Lines{"Service default/web: spec.ports[1].port: 10.96.0.1:80/TCP belongs to another of its ports"});
}

TEST_CASE("the same objects give the same plans in whatever order they come and go")
{
    const unsigned seed = std::random_device{}();
    INFO("seed " << seed);
    std::mt19937 random(seed);
    const auto pick = [&](unsigned n) { return static_cast<unsigned>(random()) % n; };

    for (int round = 0; round < 200; round++) {
        // A random history; what is left of it in the end is what counts.
        ServicePlanner lived;
        std::map<std::string, Service> services;
        std::map<std::string, EndpointSlice> slices;
        std::map<std::string, std::string> held; // key -> line, as an applier would hold it
        const auto hold = [&](const ServiceChanges &changes) {
            for (const ServiceKey &key : changes.deletes)
                held.erase(key.text());
            for (const ServicePlan &plan : changes.upserts)
                held[plan.key.text()] = lines({{plan}, {}}).front();
        };
        for (unsigned step = 0, steps = pick(60); step < steps; step++) {
            const std::string text = fmt::format("s{}", pick(4));
            switch (pick(4)) {
            case 0: {
                Service made = service(text, {fmt::format("10.96.0.{}", pick(3))},
                                       {port("p", 80, static_cast<uint16_t>(30'000 + pick(2)))},
                                       pick(2) ? ServiceType::node_port : ServiceType::cluster_ip);
                made.created = pick(3);
                services[text] = made;
                lived.upsert(made);
                break;
            }
            case 1:
                services.erase(text);
                lived.remove_service(name(text));
                break;
            case 2: {
                const EndpointSlice made =
                    slice(fmt::format("e{}", pick(5)), text, {slice_port("p", 8080)},
                          {fmt::format("10.244.0.{}", pick(9)), fmt::format("10.244.0.{}", pick(9))});
                slices[made.name.name] = made;
                lived.upsert(made);
                break;
            }
            default: {
                const std::string gone = fmt::format("e{}", pick(5));
                slices.erase(gone);
                lived.remove_slice(name(gone));
            }
            }
            if (pick(2))
                hold(lived.take_changes());
        }
        hold(lived.take_changes());

        ServicePlanner fresh;
        for (const auto &[text, made] : slices)
            fresh.upsert(made);
        for (const auto &[text, made] : services)
            fresh.upsert(made);
        Lines expected = lines(fresh.take_changes());
        Lines got;
        for (const auto &[key, line] : held)
            got.push_back(line);
        std::ranges::sort(got);
        REQUIRE(got == expected);
    }
}

namespace {

/// The one plan that has changed.
ServicePlan only_plan(ServicePlanner &planner)
{
    ServiceChanges changes = planner.take_changes();
    REQUIRE(changes.upserts.size() == 1);
    return changes.upserts.front();
}

Service balanced(const std::vector<std::string> &ranges)
{
    Service made = service("web", {"10.96.0.1"}, {port("", 80, 30080)}, ServiceType::load_balancer);
    made.external_ips = {address("192.0.2.1"), address("192.0.2.3"), address("fd00::1")};
    made.balancer_ips = {address("192.0.2.2"), address("192.0.2.1"), address("fd00::2")};
    for (const std::string &range : ranges)
        made.source_ranges.push_back(Prefix::parse(range).value());
    return made;
}

std::vector<std::string> texts(const std::vector<Prefix> &prefixes)
{
    std::vector<std::string> all;
    for (const Prefix &prefix : prefixes)
        all.push_back(prefix.text());
    return all;
}

} // namespace

TEST_CASE("external IPs and load balancer addresses of the service's families are frontends of their kinds, once each")
{
    ServicePlanner planner;
    planner.upsert(balanced({}));
    const ServicePlan plan = only_plan(planner);
    std::vector<std::pair<std::string, tw_frontend_kind>> frontends;
    for (const Entrance &entrance : plan.frontends)
        frontends.emplace_back(entrance.text(), entrance.kind);
    CHECK(frontends == std::vector<std::pair<std::string, tw_frontend_kind>>{
                           {"10.96.0.1:80/TCP", TW_FRONTEND_CLUSTER},
                           {"0.0.0.0:30080/TCP", TW_FRONTEND_NODE_PORT},
                           {"192.0.2.2:80/TCP", TW_FRONTEND_BALANCER},
                           {"192.0.2.1:80/TCP", TW_FRONTEND_BALANCER}, // both: source ranges count
                           {"192.0.2.3:80/TCP", TW_FRONTEND_EXTERNAL},
                       });
    CHECK(planner.take_refusals().empty());
}

TEST_CASE("rules 13, 14: source ranges are those of the family; all of them, or none, let everybody in")
{
    ServicePlanner planner;
    const auto planned = [&](const std::vector<std::string> &ranges) {
        planner.upsert(balanced(ranges));
        return only_plan(planner);
    };
    CHECK(!planned({}).filtered);
    CHECK(!planned({"fd00::/8"}).filtered);
    CHECK(!planned({"10.0.0.0/8", "0.0.0.0/0"}).filtered);
    const ServicePlan plan = planned({"10.1.0.0/16", "fd00::/8", "10.0.0.0/16", "10.1.0.0/16"});
    CHECK(plan.filtered);
    CHECK(texts(plan.source_ranges) == Lines{"10.0.0.0/16", "10.1.0.0/16"});
    // A node that may dial does so by an address of the load balancer that it has itself.
    planner.set_place({.node = Symbol("n"), .zone = {}, .addresses = {address("10.1.0.5")}});
    CHECK(texts(only_plan(planner).source_ranges) ==
          Lines{"10.0.0.0/16", "10.1.0.0/16", "192.0.2.1/32", "192.0.2.2/32"});
}

TEST_CASE("a ClusterIP that is an address of the node is left to it, and comes back when it is not any more")
{
    ServicePlanner planner;
    planner.upsert(service("dns", {"10.96.0.10"}, {port("", 53)}));
    CHECK(lines(planner.take_changes()) == Lines{"dns/ IPv4 10.96.0.10:53/TCP -> "});
    CHECK(planner.set_place({.node = Symbol("n"), .zone = {}, .addresses = {address("10.96.0.10")}}));
    CHECK(only_plan(planner).frontends.empty());
    CHECK(!planner.set_place({.node = Symbol("n"), .zone = {}, .addresses = {address("10.96.0.10")}}));
    CHECK(planner.take_changes().empty());
    CHECK(planner.set_place({.node = Symbol("n"), .zone = {}, .addresses = {}}));
    CHECK(lines(planner.take_changes()) == Lines{"dns/ IPv4 10.96.0.10:53/TCP -> "});
}

TEST_CASE("endpoints of this node are planned apart only for services that have a Local policy")
{
    ServicePlanner planner;
    planner.set_place({.node = Symbol("here"), .zone = {}, .addresses = {}});
    EndpointSlice two = slice("web-a", "web", {slice_port("", 8080)}, {"10.244.1.1", "10.244.2.1"});
    two.endpoints.front().node = Symbol("here");
    planner.upsert(two);
    Service web = service("web", {"10.96.0.1"}, {port("", 80)});
    planner.upsert(web);
    CHECK(only_plan(planner).local.empty());
    web.internal_local = true;
    planner.upsert(web);
    const ServicePlan plan = only_plan(planner);
    CHECK(plan.local == std::vector<Backend>{{address("10.244.1.1"), 8080}});
    CHECK(plan.backends.size() == 2);
}

namespace {

Service balanced(const std::string &text, uint16_t health_port, int64_t created = 0)
{
    Service made = service(text, {"10.96.0.1"}, {}, ServiceType::load_balancer);
    made.created = created;
    made.external_local = true;
    made.health_port = health_port;
    return made;
}

/// "web 30100 3"; port 0 is none.
Lines health(ServicePlanner &planner)
{
    Lines all;
    for (const auto &[service, check] : planner.take_changes().health_checks)
        all.push_back(fmt::format("{} {} {}", service.name, check.port, check.endpoints));
    std::ranges::sort(all);
    return all;
}

} // namespace

TEST_CASE("rule 38: a health check is told when it begins, when its count changes, and when it ends")
{
    ServicePlanner planner;
    planner.set_place({.node = Symbol("here"), .zone = {}, .addresses = {}});
    Service web = balanced("web", 30100);
    web.ports = {port("http", 80)};
    const auto with_endpoints = [](const std::vector<std::string> &addresses) {
        EndpointSlice made = slice("web-a", "web", {slice_port("http", 8080)}, addresses);
        for (Endpoint &endpoint : made.endpoints)
            endpoint.node = Symbol("here");
        return made;
    };
    planner.upsert(web);
    CHECK(health(planner) == Lines{"web 30100 0"});
    planner.upsert(with_endpoints({"10.244.1.1", "10.244.1.2"}));
    CHECK(health(planner) == Lines{"web 30100 2"});
    planner.upsert(with_endpoints({"10.244.1.1", "10.244.1.3"}));
    CHECK(health(planner).empty());
    planner.upsert(balanced("web", 0));
    CHECK(health(planner) == Lines{"web 0 0"});
    planner.upsert(web);
    CHECK(health(planner) == Lines{"web 30100 2"});
    planner.remove_service(name("web"));
    CHECK(health(planner) == Lines{"web 0 0"});
}

TEST_CASE("rule 38: of two Services with one healthCheckNodePort the older has it, and the other inherits it")
{
    ServicePlanner planner;
    planner.upsert(balanced("new", 30100, 2));
    CHECK(health(planner) == Lines{"new 30100 0"});
    planner.upsert(balanced("old", 30100, 1));
    CHECK(health(planner) == Lines{"new 0 0", "old 30100 0"});
    CHECK(planner.take_refusals() ==
          Lines{"Service default/new: spec.healthCheckNodePort: 30100/TCP belongs to Service default/old"});
    planner.remove_service(name("old"));
    CHECK(health(planner) == Lines{"new 30100 0", "old 0 0"});
    CHECK(planner.take_refusals().empty());
}

TEST_CASE("rule 38: a healthCheckNodePort and a node port cannot be one")
{
    ServicePlanner planner;
    const Service old = service("old", {"10.96.0.2"}, {port("http", 80, 30100)}, ServiceType::node_port);
    planner.upsert(old);
    planner.upsert(balanced("web", 30100, 1));
    CHECK(health(planner).empty());
    CHECK(planner.take_refusals() ==
          Lines{"Service default/web: spec.healthCheckNodePort: 30100/TCP belongs to Service default/old"});
}
