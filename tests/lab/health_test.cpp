// SPDX-License-Identifier: Apache-2.0
// What load balancers and operators are told by HTTP (rules 38 to 40), asked as they ask.
#include "tests/lab/cluster.h"

namespace thruway::lab {
namespace {

struct Answer {
    std::string status; ///< "200", "503"; "000" if there was none
    std::string text;   ///< headers and body
};

Answer get(const Lab &lab, const std::string &place, const std::string &target)
{
    const Output output =
        must(lab.run(place, {"curl", "-sgi", "--noproxy", "*", "-m", "3", "-w", "\n%{http_code}", "http://" + target}));
    return {output.out.substr(output.out.rfind('\n') + 1), output.out};
}

void expect(const Lab &lab, const std::string &target, const std::string &status)
{
    eventually(fmt::format("{} answers {}", target, status),
               [&] { return get(lab, "client", target).status == status; });
}

constexpr uint16_t check_port = 30'500;

/// The service as a load balancer's with policy Local, whose health is asked for at 30500.
std::string balanced(const Lab &lab, const WebService &service)
{
    std::string text = service.manifest(lab);
    const std::string_view type = "type: NodePort";
    return text.replace(
        text.find(type), type.size(),
        fmt::format("type: LoadBalancer\n  externalTrafficPolicy: Local\n  healthCheckNodePort: {}", check_port));
}

TEST_CASE("rule 38: a load balancer learns from each node's health check port whether it has endpoints")
{
    const Lab lab = thruway_lab();
    const auto at = [](unsigned node, Family family) { return WebService::node_port(node, family, check_port); };
    WebService web{.pods = {"pod-1-1", "pod-1-2", "pod-2-1"}};
    must(lab.put_manifest("web", balanced(lab, web)));
    for (const Family family : {Family::ipv4, Family::ipv6}) {
        expect(lab, at(1, family) + "/healthz", "200");
        expect(lab, at(3, family) + "/healthz", "503");
        const Answer two = get(lab, "client", at(1, family) + "/any/path");
        CHECK(two.text.contains("X-Load-Balancing-Endpoint-Weight: 2\r\n"));
        CHECK(two.text.contains("\"localEndpoints\": 2"));
        CHECK(get(lab, "client", at(3, family)).text.contains("\"localEndpoints\": 0"));
    }

    SECTION("an endpoint that goes takes the node out; traffic may still come")
    {
        web.pods = {"pod-1-1", "pod-2-1"};
        std::string text = balanced(lab, web);
        const std::string_view mine = "nodeName: node2";
        for (size_t at_mine = text.find(mine); at_mine != std::string::npos; at_mine = text.find(mine, at_mine + 1))
            text.replace(at_mine, mine.size(),
                         "nodeName: node2, conditions: {ready: false, serving: true, terminating: true}");
        must(lab.put_manifest("web", text));
        expect(lab, at(2, Family::ipv4), "503");
        CHECK(seen(lab, "client", "tcp", WebService::node_port(2, Family::ipv4, 30'080)).name == "pod-2-1");
        CHECK(get(lab, "client", at(1, Family::ipv4)).text.contains("X-Load-Balancing-Endpoint-Weight: 1\r\n"));
    }
    SECTION("the port goes with its Service")
    {
        must(lab.put_manifest("web", web.manifest(lab)));
        expect(lab, at(1, Family::ipv4), "000");
        expect(lab, at(1, Family::ipv6), "000");
    }
    SECTION("an agent that is started again serves it again")
    {
        must(kill_agent(lab, "node1"));
        CHECK(get(lab, "client", at(1, Family::ipv4)).status == "000");
        must(start_agent(lab, "node1"));
        expect(lab, at(1, Family::ipv4), "200");
    }
}

TEST_CASE("rule 38: a health check port that a process of the node has is told once, and served when it is free")
{
    const Lab lab = thruway_lab();
    const WebService web{.pods = {"pod-1-1"}};
    {
        const Process other =
            must(lab.start("node1", {program(), "echo", "--name", "other", "--tcp", std::to_string(check_port)}));
        eventually("the other one serves", [&] {
            return ask_from(lab, "node1", "tcp", fmt::format("127.0.0.1:{}", check_port)).contains("name");
        });
        must(lab.put_manifest("web", balanced(lab, web)));
        expect_line(lab, "Service default/web-1: spec.healthCheckNodePort 30500: cannot listen on [::]:30500: Address "
                         "already in use\n");
        CHECK(seen(lab, "client", "tcp", WebService::node_port(1, Family::ipv4, 30'080)).name == "pod-1-1");
    }
    expect(lab, WebService::node_port(1, Family::ipv4, check_port), "200");
    expect_line(lab, "listening on [::]:30500 now\n");
}

TEST_CASE("rule 38: two Services with one health check port: one line, and the older has it")
{
    const Lab lab = thruway_lab();
    const WebService one{.pods = {"pod-1-1"}};
    const WebService two{.number = 2, .pods = {"pod-1-2"}};
    must(lab.put_manifest("one", balanced(lab, one)));
    must(lab.put_manifest("two", balanced(lab, two)));
    expect_line(lab, "Service default/web-2: spec.healthCheckNodePort: 30500/TCP belongs to Service default/web-1\n");
    CHECK(get(lab, "client", WebService::node_port(1, Family::ipv4, check_port)).text.contains("\"name\": \"web-1\""));
    must(lab.remove_manifest("one"));
    eventually("the heir is asked", [&] {
        return get(lab, "client", WebService::node_port(1, Family::ipv4, check_port))
            .text.contains("\"name\": \"web-2\"");
    });
}

constexpr const char *health = "172.20.0.11:10256";

/// node1's own object, with more in its metadata and spec.
void put_node(const Lab &lab, const std::string &metadata, const std::string &taints)
{
    const auto file = lab.folder().manifest("node-node1");
    auto node = nlohmann::json::parse(must(read_file(file)));
    node["metadata"].update(nlohmann::json::parse(metadata));
    node["spec"]["taints"] = nlohmann::json::parse(taints);
    must(lab.put_manifest("node-node1", node.dump()));
}

TEST_CASE("rule 39: a node that the autoscaler is about to delete, or that is being deleted, is not ready but alive")
{
    const Lab lab = thruway_lab({.nodes = 1, .pods = 0});
    const std::string healthz = fmt::format("{}/healthz", health);
    const Answer good = get(lab, "client", healthz);
    CHECK(good.status == "200");
    CHECK(good.text.contains("\"lastUpdated\":"));
    CHECK(good.text.contains("\"nodeEligible\":true"));
    CHECK(get(lab, "client", "[fd20::11]:10256/healthz").status == "200");

    put_node(lab, "{}", R"([{"key": "ToBeDeletedByClusterAutoscaler", "effect": "NoSchedule"}])");
    expect(lab, healthz, "503");
    CHECK(get(lab, "client", healthz).text.contains("\"nodeEligible\":false"));
    CHECK(get(lab, "client", fmt::format("{}/livez", health)).status == "200");
    put_node(lab, "{}", "[]");
    expect(lab, healthz, "200");
    put_node(lab, R"({"deletionTimestamp": "2026-03-01T12:30:00Z"})", "[]");
    expect(lab, healthz, "503");
}

TEST_CASE("rule 40: operators are told mode, settings and metrics at the node's own address only")
{
    const Lab lab = thruway_lab({.nodes = 1, .pods = 0});
    const auto at = [&](const std::string &path) { return get(lab, "node1", "127.0.0.1:10249" + path); };
    CHECK(at("/healthz").text.contains("\r\n\r\nok\n"));
    CHECK(at("/proxyMode").text.contains("\r\n\r\nthruway\n"));
    const Answer settings = at("/configz");
    CHECK(settings.text.contains("Content-Type: application/json"));
    CHECK(settings.text.contains("\"node\":\"node1\""));
    CHECK(at("/nowhere").status == "404");
    CHECK(get(lab, "client", "172.20.0.11:10249/metrics").status == "000");
}

/// What a metric says; empty if it is not there.
std::string metric(const Lab &lab, const std::string &name)
{
    const std::string text = get(lab, "node1", "127.0.0.1:10249/metrics").text;
    const auto line = text.find("\n" + name + " ");
    if (line == std::string::npos)
        return {};
    const auto value = line + name.size() + 2;
    return text.substr(value, text.find('\n', value) - value);
}

TEST_CASE("metrics have kube-proxy's names and meanings")
{
    const Lab lab = thruway_lab({.nodes = 2, .pods = 1});
    const WebService web{.pods = {"pod-2-1"}};
    must(lab.put_manifest("web", balanced(lab, web)));
    expect(lab, WebService::node_port(1, Family::ipv4, check_port), "503");
    CHECK(metric(lab, "kubeproxy_sync_proxy_rules_service_changes_total") == "1");
    CHECK(metric(lab, "kubeproxy_sync_proxy_rules_service_changes_pending") == "0");
    CHECK(metric(lab, "kubeproxy_sync_proxy_rules_endpoint_changes_total") == "2");
    CHECK(metric(lab, "kubeproxy_sync_proxy_rules_endpoint_changes_pending") == "0");
    for (const char *family : {"IPv4", "IPv6"}) {
        const auto labelled = [&](const char *name, const char *more = "") {
            return metric(lab, fmt::format("kubeproxy_{}{{ip_family=\"{}\"{}}}", name, family, more));
        };
        CHECK(labelled("sync_proxy_rules_no_local_endpoints_total", ",traffic_policy=\"external\"") == "2");
        CHECK(labelled("sync_proxy_rules_no_local_endpoints_total", ",traffic_policy=\"internal\"") == "0");
        const double queued = std::stod(labelled("sync_proxy_rules_last_queued_timestamp_seconds"));
        const double synced = std::stod(labelled("sync_proxy_rules_last_timestamp_seconds"));
        CHECK(queued > 0);
        CHECK(synced >= queued);
        CHECK(std::stod(labelled("sync_proxy_rules_duration_seconds_count")) >= 2);
        CHECK_FALSE(labelled("network_programming_duration_seconds_count").empty());
    }
    const auto answered = [&](const char *code) {
        return std::stod(metric(lab, fmt::format("kubeproxy_proxy_healthz_total{{code=\"{}\"}}", code)));
    };
    const double before = answered("200");
    CHECK(get(lab, "client", fmt::format("{}/healthz", health)).status == "200");
    CHECK(answered("200") == before + 1);
    CHECK(metric(lab, "kubeproxy_proxy_livez_total{code=\"503\"}") == "0");
}

TEST_CASE("a node port that a process of the node has is told once, and works all the same")
{
    const Lab lab = thruway_lab({.nodes = 2, .pods = 1});
    const Process other =
        must(lab.start("node1", {program(), "echo", "--name", "other", "--tcp", "30080", "--udp", "30099"}));
    eventually("the other one serves",
               [&] { return ask_from(lab, "node1", "tcp", "127.0.0.1:30080").contains("name"); });
    const WebService web{.pods = {"pod-2-1"}};
    put(lab, web);
    expect_line(lab, "(thruway-lab) has a socket there, which nobody on another machine reaches now\n");
    CHECK(must(read_file(lab.folder().agent_log("node1")))
              .contains("Service default/web-1: node port 30080/TCP: process "));
    CHECK_FALSE(must(read_file(lab.folder().agent_log("node2"))).contains("node port"));
    CHECK(metric(lab, "thruway_node_ports_taken_total") == "1");
    for (const Family family : {Family::ipv4, Family::ipv6}) {
        CHECK(seen(lab, "client", "tcp", WebService::node_port(1, family, 30'080)).name == "pod-2-1");
        CHECK(seen(lab, "client", "udp", WebService::node_port(1, family, 30'053)).name == "pod-2-1");
    }

    // An endpoint that changes is no new port.
    put(lab, {.pods = {"pod-1-1"}});
    CHECK(metric(lab, "thruway_node_ports_taken_total") == "1");
}

} // namespace
} // namespace thruway::lab
