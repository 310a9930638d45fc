// SPDX-License-Identifier: Apache-2.0
// Bad input: one clear line each, and the rest goes on.
#include "tests/lab/cluster.h"

#include <algorithm>
#include <set>

namespace thruway::lab {
namespace {

using std::chrono::milliseconds;

/// Runs an agent on node1 that is expected to refuse, and gives its last line.
std::string refusal(const Lab &lab, const std::vector<std::string> &arguments, int code)
{
    std::vector<std::string> argv{program_folder() / "thruway-agent"};
    argv.insert(argv.end(), arguments.begin(), arguments.end());
    const Output output = must(lab.run("node1", argv, std::chrono::seconds(5)));
    INFO(output.err);
    CHECK(output.exit.code == code);
    CHECK(output.out.empty());
    const std::string text = output.err.substr(0, output.err.size() - 1);
    return text.substr(text.rfind('\n') + 1);
}

std::vector<std::string> good_arguments(const Lab &lab)
{
    const std::string base = lab.folder().root();
    return {"--node",    "node1",
            "--source",  fmt::format("file:{}/manifests", base),
            "--run-dir", base + "/other-run",
            "--bpffs",   lab.folder().bpffs("node1") / "other",
            "--cgroup",  lab.node_cgroup("node1")};
}

std::vector<std::string> with(std::vector<std::string> arguments, const std::string &flag, const std::string &value)
{
    const auto found = std::ranges::find(arguments, flag);
    if (found == arguments.end()) {
        arguments.push_back(flag);
        arguments.push_back(value);
    } else {
        *std::next(found) = value;
    }
    return arguments;
}

TEST_CASE("an agent that cannot run says in one line what to mend")
{
    const Lab lab = thruway_lab({.nodes = 1, .pods = 0});
    const auto good = good_arguments(lab);
    const std::string run_dir = lab.folder().run_dir("node1");

    CHECK(refusal(lab, {}, 2) == "thruway-agent: node: the name of this node is needed (--node)");
    CHECK(refusal(lab, {"--nodes", "x"}, 2).starts_with("thruway-agent: The following argument"));
    CHECK(refusal(lab, with(good, "--source", "etcd"), 2) ==
          "thruway-agent: source: must be kube or file:DIR, is \"etcd\"");
    CHECK(refusal(lab, with(good, "--config", "/nowhere"), 2) ==
          "thruway-agent: cannot read /nowhere: No such file or directory");
    CHECK(refusal(lab, with(good, "--sock", "pods"), 2) ==
          "thruway-agent: --sock: must be off, host or all, is \"pods\"");
    CHECK(refusal(lab, with(good, "--uplink", "eth7"), 1) ==
          "thruway-agent: uplink: cannot find interface eth7: No such device");
    CHECK(refusal(lab, with(good, "--bpffs", "/tmp/thruway"), 1) ==
          "thruway-agent: bpffs: /tmp is no bpffs: mount one with \"mount -t bpf bpf /tmp\"");
    CHECK(refusal(lab, with(good, "--cgroup", "/tmp"), 1) ==
          "thruway-agent: cannot attach sock_connect4 to cgroup /tmp: it is no cgroup2 folder");
    CHECK(refusal(lab, with(good, "--run-dir", run_dir), 1) ==
          fmt::format("thruway-agent: {}/agent.lock is in use by another thruway-agent", run_dir));
    CHECK(refusal(lab, with(good, "--bpffs", lab.folder().bpffs("node1")), 1) ==
          fmt::format("thruway-agent: {} is in use by another thruway-agent", lab.folder().bpffs("node1").string()));

    std::vector<std::string> as_nobody{"setpriv", "--reuid=65534", "--regid=65534", "--clear-groups",
                                       program_folder() / "thruway-agent"};
    as_nobody.insert(as_nobody.end(), good.begin(), good.end());
    const Output output = must(lab.run("node1", as_nobody));
    CHECK(output.exit.code == 1);
    CHECK(output.err == "thruway-agent: must run as root: it loads programs into the kernel\n");
}

TEST_CASE("objects that cannot be are told by name and field, once, and the others are served")
{
    const Lab lab = thruway_lab({.nodes = 1});
    const WebService web{.pods = {"pod-1-1"}};
    put(lab, web);

    must(lab.put_manifest("broken", "kind: Service\n  bad indent: [\n"));
    expect_line(lab, "broken.yaml: line 2, column 13: mapping values are not allowed in this context\n");
    must(lab.put_manifest("widget", "apiVersion: v1\nkind: Widget\nmetadata: {name: x}\n"));
    expect_line(lab, "widget.yaml: kind \"Widget\" of \"v1\" is not used\n");
    must(lab.put_manifest("portless",
                          "apiVersion: v1\nkind: Service\nmetadata: {name: portless}\nspec: {clusterIP: 10.96.0.9}\n"));
    expect_line(lab, "Service default/portless: spec.ports: missing\n");
    must(lab.put_manifest("slice",
                          "apiVersion: discovery.k8s.io/v1\nkind: EndpointSlice\n"
                          "metadata: {name: s, labels: {kubernetes.io/service-name: web-1}}\naddressType: IPv4\n"
                          "ports: [{name: tcp, port: 8080}]\n"
                          "endpoints: [{addresses: [10.244.1.300]}, {addresses: [10.244.1.3]}]\n"));
    expect_line(lab, "EndpointSlice default/s: endpoints[0].addresses[0]: \"10.244.1.300\" is not an IP address\n");
    must(lab.put_manifest("collision",
                          "apiVersion: v1\nkind: Service\nmetadata: {name: zz-late}\n"
                          "spec: {type: NodePort, clusterIP: 10.96.0.8, ports: [{port: 80, nodePort: 30080}]}\n"));
    expect_line(lab, "Service default/zz-late: spec.ports[0].nodePort: 30080/TCP belongs to Service default/web-1\n");

    // The good endpoint of the slice with a bad one serves; so does all that was there.
    std::set<std::string> names;
    for (int i = 0; i < 30; i++)
        names.insert(seen(lab, "pod-1-1", "tcp", web.cluster(Family::ipv4, 80)).name);
    CHECK(names == std::set<std::string>{"pod-1-1", "pod-1-2"});
    CHECK(seen(lab, "client", "tcp", WebService::node_port(1, Family::ipv4, 30080)).name.starts_with("pod-1-"));
}

TEST_CASE("a map that is full is told with the object that did not fit, and the others are served")
{
    const ConfigFile config("sizes: {services: 6}\n"); // number 0 is nobody's: room for five
    const Lab lab = thruway_lab({.nodes = 1, .agent_args = config.arguments()});
    put(lab, {.number = 1, .pods = {"pod-1-1"}}); // four: two ports in two families
    must(lab.put_manifest("web-2", WebService{.number = 2, .pods = {"pod-1-2"}}.manifest(lab)));
    expect_line(lab, "Service default/web-2 port udp/UDP (IPv6): map services is full (6 entries)\n");
    CHECK(seen(lab, "pod-1-2", "tcp", "10.96.0.1:80").name == "pod-1-1");

    must(lab.remove_manifest("web-1")); // room again
    eventually("web-2 is served", [&] { return ask_from(lab, "pod-1-1", "tcp", "10.96.0.2:80").contains("name"); });
    eventually("in both families", [&] { return ask_from(lab, "pod-1-1", "udp", "[fd00:96::2]:53").contains("name"); });
}

} // namespace
} // namespace thruway::lab
