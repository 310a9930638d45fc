// SPDX-License-Identifier: Apache-2.0
// What changes, kills, restarts and absences of the agent cost those who talk: nothing.
#include "tests/lab/cluster.h"
#include "tests/lab/hold_client.h"

#include <random>
#include <set>
#include <thread>

namespace thruway::lab {
namespace {

using std::chrono::milliseconds;

/// Clients everywhere, each holding connections and opening others.
std::vector<Hold> clients(const Lab &lab, const WebService &web, const std::string &rate)
{
    const std::vector<std::string> options{"--connections", "10", "--rate",    rate,
                                           "--interval",    "20", "--timeout", "10000"};
    const std::pair<std::string, std::string> all[] = {
        {"pod-1-1", web.cluster(Family::ipv4, 80)},        {"pod-1-2", web.cluster(Family::ipv6, 80)},
        {"pod-2-2", web.cluster(Family::ipv4, 80)},        {"pod-3-2", web.cluster(Family::ipv4, 80)},
        {"node1", web.cluster(Family::ipv4, 80)},          {"node3", web.cluster(Family::ipv6, 80)},
        {"client", web.node_port(1, Family::ipv4, 30080)}, {"client", web.node_port(3, Family::ipv6, 30080)},
    };
    std::vector<Hold> held;
    for (const auto &[place, target] : all) {
        std::vector<std::string> arguments{target};
        arguments.insert(arguments.end(), options.begin(), options.end());
        held.emplace_back(lab, place, arguments);
    }
    return held;
}

/// All of them did well.
void check_unharmed(std::vector<Hold> &held)
{
    for (Hold &client : held) {
        const nlohmann::json report = client.finish(0);
        CHECK(report["established"] == 10);
        CHECK(report["lost"] == 0);
        CHECK(report["refused"] == 0);
        CHECK(report["short_failed"] == 0);
        CHECK(report["short_ok"] > 0);
    }
}

/// The maps that say what is wanted. Flows, counters and the like go on by themselves.
std::string maps_of(const Lab &lab, const std::string &node)
{
    std::string all;
    for (const char *map : {"layout", "frontends", "services", "slots", "backends", "endpoints", "node_addresses",
                            "addresses", "nodes", "gateways", "ifindexes", "nexthops", "generations"})
        all += fmt::format("{}:\n{}", map, cli(lab, node, {"map", "dump", map, "--all", "-o", "json"}));
    return all;
}

TEST_CASE("1,000 changes of backends lose no connection and refuse none")
{
    const Lab lab = thruway_lab();
    WebService web{.pods = {"pod-1-1", "pod-2-1", "pod-3-1", "pod-3-2"}};
    put(lab, web);
    std::vector<Hold> held = clients(lab, web, "30");

    const unsigned seed = std::random_device{}();
    INFO("seed " << seed);
    std::mt19937 random(seed);
    // Made beforehand, so that the changes come as fast as files can be renamed.
    std::vector<std::string> versions;
    for (unsigned set = 1; set < 16; set++) {
        WebService version{.pods = {}};
        for (unsigned bit = 0; bit < 4; bit++)
            if (set & 1U << bit)
                version.pods.push_back(web.pods[bit]);
        versions.push_back(version.manifest(lab));
    }
    for (int i = 0; i < 1000; i++) {
        must(lab.put_manifest(web.name(), versions[random() % versions.size()]));
        std::this_thread::sleep_for(milliseconds(3));
    }
    check_unharmed(held);
    put(lab, web);
    CHECK(seen(lab, "pod-1-1", "tcp", web.cluster(Family::ipv4, 80)).name.starts_with("pod-"));
}

TEST_CASE("agents that are killed in the middle of changes lose nothing, and end where a fresh one would")
{
    const Lab lab = thruway_lab();
    const WebService web{.pods = {"pod-2-1", "pod-3-1"}};
    put(lab, web);
    std::vector<Hold> held = clients(lab, web, "30");

    const unsigned seed = std::random_device{}();
    INFO("seed " << seed);
    std::mt19937 random(seed);
    WebService other{.number = 2, .pods = {}};
    for (int i = 0; i < 15; i++) {
        const std::string node = fmt::format("node{}", 1 + random() % 3);
        other.pods = {fmt::format("pod-{}-1", 1 + random() % 3)};
        must(lab.put_manifest(other.name(), other.manifest(lab)));
        std::this_thread::sleep_for(std::chrono::microseconds(random() % 3000));
        must(kill_agent(lab, node));
        std::this_thread::sleep_for(milliseconds(random() % 100));
        must(start_agent(lab, node));
        must(wait_agent_ready(lab, node, milliseconds(10'000)));
    }
    put(lab, other);
    check_unharmed(held);

    // The same backends everywhere, and nothing beside what is wanted.
    for (const Node &node : lab.topology().nodes) {
        const auto services = nlohmann::json::parse(cli(lab, node.name, {"service", "list", "-o", "json"}));
        CHECK(services.size() == 4);
        const auto frontends = nlohmann::json::parse(cli(lab, node.name, {"map", "dump", "frontends", "-o", "json"}));
        CHECK(frontends.size() == 16);
        const auto backends = nlohmann::json::parse(cli(lab, node.name, {"backend", "list", "-o", "json"}));
        CHECK(backends.size() == 2 * std::set<std::string>{"pod-2-1", "pod-3-1", other.pods[0]}.size());
    }
}

TEST_CASE("without an agent everything that stands goes on, new connections too")
{
    const Lab lab = thruway_lab();
    const WebService web{.pods = {"pod-2-1", "pod-3-1"}};
    put(lab, web);
    std::vector<Hold> held = clients(lab, web, "20");
    for (const Node &node : lab.topology().nodes)
        must(stop_agent(lab, node.name));
    std::this_thread::sleep_for(std::chrono::seconds(2));
    check_unharmed(held);
    CHECK(seen(lab, "client", "udp", WebService::node_port(1, Family::ipv4, 30053)).name.starts_with("pod-"));
    // The maps still say what there is, and the saved names how it is called.
    const auto services = nlohmann::json::parse(cli(lab, "node1", {"service", "list", "-o", "json"}));
    REQUIRE(services.size() == 2);
    CHECK(services[0]["name"] == "web-1");
    CHECK(services[0]["backends"].size() == 4);
}

TEST_CASE("a restart with nothing changed leaves the maps as they were and writes to none")
{
    const Lab lab = thruway_lab({.nodes = 2});
    put(lab, {.pods = {"pod-1-1", "pod-2-1"}});
    put(lab, {.number = 2, .pods = {"pod-1-2"}});
    const std::string before = maps_of(lab, "node1");
    must(kill_agent(lab, "node1"));

    const std::string trace = lab.folder().root() / "trace";
    const std::string run_dir = lab.folder().run_dir("node1");
    const Process agent = must(lab.start(
        "node1", {"strace", "-f", "-e", "trace=bpf", "-o", trace, program_folder() / "thruway-agent", "--node", "node1",
                  "--source", "file:" + lab.folder().manifests().string(), "--uplink", "eth0", "--run-dir", run_dir,
                  "--bpffs", lab.folder().bpffs("node1"), "--cgroup", lab.node_cgroup("node1")}));
    eventually("the agent is ready", [&] { return agent_ready(lab, "node1"); });
    CHECK(maps_of(lab, "node1") == before);

    const std::string calls = must(read_file(trace));
    CHECK(calls.find("BPF_OBJ_GET") != std::string::npos); // the trace is one
    for (const char *write : {"BPF_MAP_UPDATE_ELEM", "BPF_MAP_UPDATE_BATCH", "BPF_MAP_DELETE_ELEM",
                              "BPF_MAP_DELETE_BATCH", "BPF_LINK_UPDATE", "BPF_MAP_LOOKUP_AND_DELETE"})
        CHECK(calls.find(write) == std::string::npos);
}

TEST_CASE("pods keep their addresses over restarts, and those that went meanwhile give theirs back")
{
    const Lab lab = thruway_lab({.nodes = 1, .pods = 2});
    const std::vector<Address> kept = must(find_pod(lab, "default", "pod-1-1")).addresses;
    must(kill_agent(lab, "node1"));
    must(lab.run("node1",
                 {"ip", "link", "delete", "dev",
                  nlohmann::json::parse(cli(lab, "node1", {"endpoint", "list", "-o", "json"}))[1]["interface"]}));
    must(start_agent(lab, "node1"));
    must(wait_agent_ready(lab, "node1", milliseconds(10'000)));
    const auto endpoints = nlohmann::json::parse(cli(lab, "node1", {"endpoint", "list", "-o", "json"}));
    REQUIRE(endpoints.size() == 1);
    CHECK(endpoints[0]["name"] == "pod-1-1");
    CHECK(endpoints[0]["addresses"][0] == kept[0].text());

    const Pod fresh = must(add_pod(lab, {.node = "node1", .name = "fresh"}));
    CHECK(fresh.addresses[0] != kept[0]);
    CHECK(seen(lab, "default/fresh", "tcp", endpoint_text(kept[0], 8080)).name == "pod-1-1");
}

TEST_CASE("cleanup takes away everything of ours and nothing else")
{
    const Lab lab = thruway_lab({.nodes = 1});
    put(lab, {.pods = {"pod-1-1"}});
    // Somebody else's filter, route and neighbour, on the same interface, and his reserved ports.
    for (const std::vector<std::string> &foreign : std::vector<std::vector<std::string>>{
             {"tc", "qdisc", "add", "dev", "eth0", "clsact"},
             {"tc", "filter", "add", "dev", "eth0", "ingress", "prio", "5", "protocol", "all", "u32", "match", "u32",
              "0", "0", "classid", "1:1"},
             {"ip", "route", "add", "198.51.100.0/24", "via", "172.20.0.1"},
             {"sysctl", "-qw", "net.ipv4.ip_local_reserved_ports=80,50000-50010"},
             {"ip", "neigh", "add", "172.20.0.99", "dev", "eth0", "lladdr", "02:00:00:00:00:99"}})
        REQUIRE(must(lab.run("node1", foreign)).exit.good());
    const auto look = [&](const std::string &command) { return must(lab.run("node1", {"sh", "-c", command})).out; };
    CHECK(look("bpftool net").find("from_net") != std::string::npos);
    must(stop_agent(lab, "node1"));
    must(start_agent(lab, "node1"));
    must(wait_agent_ready(lab, "node1", milliseconds(10'000)));
    CHECK(look("cat /proc/sys/net/ipv4/ip_local_reserved_ports") == "80,49152-65535\n");
    must(stop_agent(lab, "node1"));

    const std::vector<std::string> where{"--run-dir", lab.folder().run_dir("node1"), "--bpffs",
                                         lab.folder().bpffs("node1")};
    std::vector<std::string> cleanup{program_folder() / "thruway-agent", "cleanup"};
    cleanup.insert(cleanup.end(), where.begin(), where.end());
    const Output done = must(lab.run("node1", cleanup));
    INFO(done.err);
    CHECK(done.exit.good());

    CHECK(look("bpftool net").find("from_") == std::string::npos);
    CHECK(look(fmt::format("bpftool cgroup show {}", lab.node_cgroup("node1").string())).find("sock_") ==
          std::string::npos);
    // The kernel itself puts two files into the root of a bpffs.
    CHECK(look(fmt::format("ls {}", lab.folder().bpffs("node1").string())) == "maps.debug\nprogs.debug\n");
    CHECK(look(fmt::format("ls {}", lab.folder().run_dir("node1").string())).empty());
    CHECK(look("ip route show proto 84; ip -6 route show proto 84; ip neigh show | grep 'proto 84'").empty());
    CHECK(look("ip -o link").find(" tw") == std::string::npos);
    CHECK(look("cat /proc/sys/net/ipv4/ip_local_reserved_ports") == "80,50000-50010\n");
    CHECK(look("tc filter show dev eth0 ingress").find("u32") != std::string::npos);
    CHECK(look("ip route show 198.51.100.0/24").find("172.20.0.1") != std::string::npos);
    CHECK(look("ip neigh show 172.20.0.99").find("PERMANENT") != std::string::npos);

    CHECK(must(lab.run("node1", cleanup)).exit.good()); // and again
}

TEST_CASE("a foreign filter on an uplink keeps seeing what passes", "[kernels]")
{
    const Lab lab = thruway_lab({.nodes = 1});
    const auto sh = [&](const std::string &command) { return must(lab.run("node1", {"sh", "-c", command})); };
    // Where our own programs are clsact filters, the qdisc is there already.
    REQUIRE(sh("tc qdisc add dev eth0 clsact 2>/dev/null; tc filter add dev eth0 ingress prio 5 protocol ip u32 match "
               "ip dport "
               "8080 0xffff action mirred egress mirror dev lo") // an action counts what it sees
                .exit.good());
    const Process echo = must(lab.start("node1", {program(), "echo", "--name", "host", "--tcp", "8080"}));
    eventually("the host answers", [&] { return ask_from(lab, "client", "tcp", "172.20.0.11:8080").contains("name"); });
    const std::string counted = sh("tc -s filter show dev eth0 ingress").out;
    INFO(counted);
    CHECK(counted.find("u32") != std::string::npos);
    CHECK(counted.find("Sent 0 bytes") == std::string::npos);
}

} // namespace
} // namespace thruway::lab
