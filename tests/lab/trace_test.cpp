// SPDX-License-Identifier: Apache-2.0
// `thruway trace` on real nodes: it says what then happens, and does nothing.
#include "tests/lab/cluster.h"

namespace thruway::lab {
namespace {

struct Trace {
    int code = 0;
    nlohmann::json steps;

    /// The first step of this kind; null if there is none.
    [[nodiscard]] nlohmann::json step(const std::string &kind) const
    {
        for (const auto &step : steps)
            if (step["step"] == kind)
                return step;
        return {};
    }
    [[nodiscard]] nlohmann::json verdict() const { return step("verdict"); }
};

Trace trace(const Lab &lab, const std::string &node, const std::vector<std::string> &arguments)
{
    std::vector<std::string> argv{program_folder() / "thruway",
                                  "--run-dir",
                                  lab.folder().run_dir(node),
                                  "--bpffs",
                                  lab.folder().bpffs(node),
                                  "trace",
                                  "-o",
                                  "json"};
    argv.insert(argv.end(), arguments.begin(), arguments.end());
    const Output output = must(lab.run(node, argv));
    INFO(output.out << output.err);
    REQUIRE(output.err.empty());
    return {output.exit.code, nlohmann::json::parse(output.out)};
}

} // namespace

TEST_CASE("a trace tells each path of a node whose agent is dead, and leaves nothing behind")
{
    const Lab lab = thruway_lab();
    put(lab, {.pods = {"pod-2-1"}});
    must(kill_agent(lab, "node1"));
    const auto traces_left = [&] {
        return cli(lab, "node1", {"flow", "list", "-o", "json"}) + cli(lab, "node1", {"drops", "-o", "json"}) +
               cli(lab, "node1", {"map", "dump", "totals", "-o", "json"});
    };
    const std::string before = traces_left();

    const Trace service = trace(lab, "node1", {"default/pod-1-1", "default/web-1"});
    CHECK(service.code == 0);
    CHECK(service.step("hook")["program"] == "from_pod");
    CHECK(service.step("flow")["result"] == "missing");
    CHECK(service.step("source")["endpoint"]["name"] == "pod-1-1");
    CHECK(service.step("frontend")["service"]["name"] == "web-1");
    CHECK(service.step("backend")["name"] == "pod-2-1");
    CHECK(service.step("route")["by"] == "pod_cidr");
    CHECK(service.verdict()["verdict"] == "sent");
    CHECK(service.verdict()["next_hop"]["name"] == "node2");
    CHECK(service.verdict()["next_hop"]["interface"] == "eth0");

    const Trace local = trace(lab, "node1", {"pod-1-1", "pod-1-2:8080", "--proto", "udp"});
    CHECK(local.code == 0);
    CHECK(local.verdict()["verdict"] == "delivered");
    CHECK(local.verdict()["next_hop"]["name"] == "pod-1-2");

    const Trace outside = trace(lab, "node1", {"198.51.100.7", "172.20.0.11:30080"});
    CHECK(outside.code == 0);
    CHECK(outside.step("hook")["program"] == "from_net");
    CHECK(outside.step("snat")["source"]["name"] == "node1");
    CHECK(outside.verdict()["next_hop"]["name"] == "node2");

    const Trace host = trace(lab, "node1", {"host", "default/web-1"});
    CHECK(host.code == 0);
    CHECK(host.step("socket")["backend"]["name"] == "pod-2-1");
    CHECK(host.step("packet")["source"]["name"] == "node1");
    CHECK(host.verdict()["next_hop"]["name"] == "node2");
    CHECK(trace(lab, "node1", {"host", "pod-1-1:8080"}).verdict()["next_hop"]["name"] == "pod-1-1");
    CHECK(trace(lab, "node1", {"pod-1-1", "172.20.0.11:10250"}).verdict()["verdict"] == "stack");

    const Trace dropped = trace(lab, "node1", {"pod-1-1", "10.244.1.250:80"});
    CHECK(dropped.code == 1);
    CHECK(dropped.verdict()["verdict"] == "dropped");
    CHECK(dropped.verdict()["reason"] == "no_endpoint");

    CHECK(traces_left() == before);
}

TEST_CASE("a trace from the node follows the traffic policy, and ends where no service is")
{
    const Lab lab = thruway_lab();
    const auto put_with = [&](const WebService &web, const std::string &policy) {
        std::string text = web.manifest(lab);
        text.insert(text.find("  ports:"), "  internalTrafficPolicy: " + policy + "\n");
        must(lab.put_manifest(web.name(), text));
    };
    const auto backend = [&](const std::string &target) {
        const Trace from_host = trace(lab, "node1", {"host", target});
        const auto socket = from_host.step("socket");
        return socket.is_null() ? "" : socket["backend"]["name"].get<std::string>();
    };
    const WebService web{.pods = {"pod-1-1", "pod-2-1"}}, far{.number = 2, .pods = {"pod-2-1"}};
    put(lab, web);
    put(lab, far);
    put_with(web, "Local");
    put_with(far, "Local");
    eventually("the policies count", [&] { return backend("default/web-2").empty(); });
    CHECK(backend("default/web-1") == "pod-1-1");
    CHECK(trace(lab, "node1", {"host", "default/web-2"}).verdict()["reason"] == "no_local_backend");
    put_with(web, "Cluster");
    must(lab.put_manifest("range", "apiVersion: networking.k8s.io/v1\nkind: ServiceCIDR\nmetadata: {name: range}\n"
                                   "spec: {cidrs: [10.96.0.0/16]}\n"));
    eventually("nobody's addresses are known for such",
               [&] { return trace(lab, "node1", {"host", "10.96.200.1:80"}).code == 1; });
    CHECK(trace(lab, "node1", {"host", "10.96.200.1:80"}).verdict()["reason"] == "unallocated");
    CHECK(trace(lab, "node1", {"pod-1-1", "10.96.200.1:80"}).verdict()["verdict"] == "stack");
    CHECK_FALSE(backend("default/web-1").empty());
}

TEST_CASE("a trace finds the flow of a connection by its source port")
{
    const Lab lab = thruway_lab();
    put(lab, {.pods = {"pod-2-1"}});
    ask_from(lab, "pod-1-1", "udp", "10.96.0.1:53");
    const auto flows = nlohmann::json::parse(cli(lab, "node1", {"flow", "list", "--port", "53", "-o", "json"}));
    REQUIRE(flows.size() == 1);
    const std::string port = std::to_string(flows[0]["source"]["port"].get<int>());

    const Trace stands = trace(lab, "node1", {"pod-1-1:" + port, "default/web-1:udp"});
    CHECK(stands.step("flow")["result"] == "found");
    CHECK(stands.step("flow")["state"] == "established");
    CHECK(stands.step("flow")["translated"]["destination"]["name"] == "pod-2-1");
    CHECK(stands.step("backend").is_null());
    CHECK(stands.verdict()["next_hop"]["name"] == "node2");
}

} // namespace thruway::lab
