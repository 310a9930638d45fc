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

} // namespace
} // namespace thruway::lab
