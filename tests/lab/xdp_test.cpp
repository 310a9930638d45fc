// SPDX-License-Identifier: Apache-2.0
// XDP on the uplinks of real nodes: what it carries, what it leaves to others, and that its comings and goings cost
// nobody anything.
#include "tests/lab/cluster.h"
#include "tests/lab/hold_client.h"
#include "tools/lab/namespaces.h"
#include "tools/lab/offload.h"

#include <bpf/bpf.h>
#include <bpf/libbpf.h>
#include <catch2/generators/catch_generators.hpp>
#include <linux/if_link.h>
#include <thread>

namespace thruway::lab {
namespace {

using std::chrono::milliseconds;

NetnsVisit visit(const Lab &lab, const std::string &netns)
{
    return must(NetnsVisit::enter(must(lab.keeper().netns(netns)).get()));
}

/// How many frames XDP has sent back out of a node's uplink.
uint64_t sent_by_xdp(const Lab &lab, const std::string &node)
{
    const NetnsVisit there = visit(lab, node);
    uint64_t frames = 0;
    for (const auto &[name, value] : must(driver_counters("eth0"))) {
        if (name.starts_with("rx_queue_") && name.ends_with("_xdp_redirect"))
            frames += value;
        if (name.ends_with("_xmit_errors") || name.ends_with("_xdp_drops"))
            CHECK(value == 0);
    }
    return frames;
}

/// What `thruway status` says of XDP on a node's uplink.
nlohmann::json xdp_status(const Lab &lab, const std::string &node)
{
    return nlohmann::json::parse(cli(lab, node, {"status", "-o", "json"})).at("agent").at("xdp").at(0);
}

void restart_agent(const Lab &lab, const std::string &node, const std::vector<std::string> &more = {})
{
    must(stop_agent(lab, node));
    must(start_agent(lab, node, more));
    must(wait_agent_ready(lab, node, milliseconds(10'000)));
}

/// Clients outside get their answers by a node without backends.
void check_served(const Lab &lab)
{
    for (const Family family : {Family::ipv4, Family::ipv6}) {
        CHECK(seen(lab, "client", "tcp", WebService::node_port(3, family, 30080)).name == "pod-2-1");
        CHECK(seen(lab, "client", "udp", WebService::node_port(3, family, 30053)).name == "pod-2-1");
    }
}

void check_bulk(const Lab &lab, const std::string &target)
{
    const Output output = must(lab.run("client", {program(), "bulk", target, "--bytes", "20000000"}));
    INFO(target << ": " << output.out << output.err);
    CHECK(output.exit.good());
}

TEST_CASE("XDP carries NodePorts to other nodes, and everything else goes as without it")
{
    const ConfigFile config(nothing_to_adopt);
    const Lab lab = thruway_lab({.xdp = true, .agent_args = config.arguments()});
    put(lab, {.pods = {"pod-2-1"}});
    CHECK(xdp_status(lab, "node3") == nlohmann::json{{"interface", "eth0"}, {"mode", "native"}});

    for (const Family family : {Family::ipv4, Family::ipv6}) {
        const std::string node3 = family == Family::ipv4 ? "172.20.0.13" : "fd20::13";
        const std::string node2 = family == Family::ipv4 ? "172.20.0.12" : "fd20::12";
        const auto target = [&](unsigned node, bool tcp) {
            return WebService::node_port(node, family, tcp ? 30080 : 30053);
        };
        for (const std::string transport : {"tcp", "udp"}) {
            INFO(node3 << " " << transport);
            const bool tcp = transport == "tcp";
            // There and back by XDP: two frames at least.
            const uint64_t before = sent_by_xdp(lab, "node3");
            CHECK(seen(lab, "client", transport, target(3, tcp)) == Seen{"pod-2-1", node3});
            CHECK(sent_by_xdp(lab, "node3") >= before + 2);
            // To a backend of the node itself, and of a pod: by tc.
            const uint64_t local = sent_by_xdp(lab, "node2");
            CHECK(seen(lab, "client", transport, target(2, tcp)) == Seen{"pod-2-1", node2});
            CHECK(seen(lab, "pod-1-1", transport, WebService{.pods = {}}.cluster(family, tcp ? 80 : 53)).name ==
                  "pod-2-1");
            CHECK(sent_by_xdp(lab, "node2") == local);
        }
    }
    for (const Node &node : lab.topology().nodes)
        CHECK(nlohmann::json::parse(cli(lab, node.name, {"drops", "-o", "json"})).empty());
}

TEST_CASE("large transfers by XDP arrive byte for byte, frames of several buffers among them")
{
    const unsigned mtu = GENERATE(1500U, 9000U);
    const Lab lab = thruway_lab({.mtu = mtu, .xdp = true});
    put(lab, {.pods = {"pod-2-1"}});
    for (const Family family : {Family::ipv4, Family::ipv6}) {
        const uint64_t before = sent_by_xdp(lab, "node3");
        check_bulk(lab, WebService::node_port(3, family, 30080));
        CHECK(sent_by_xdp(lab, "node3") - before > 2 * 20'000'000 / mtu);
        check_bulk(lab, WebService::node_port(2, family, 30080));
    }
}

TEST_CASE("what comes with its checksum left to the device is carried by tc, beside XDP")
{
    const Lab lab = thruway_lab({.xdp = true});
    put(lab, {.pods = {"pod-2-1"}});
    for (const auto &[netns, device] : {std::pair<std::string, std::string>{"client", "eth0"},
                                        {"fabric", "client"},
                                        {"fabric", "node2"},
                                        {"fabric", "node3"},
                                        {"node2", "eth0"}}) {
        const NetnsVisit there = visit(lab, netns);
        must(set_offload(device, Offload::checksum, true));
    }
    CHECK(xdp_status(lab, "node3")["mode"] == "native");
    const uint64_t before = sent_by_xdp(lab, "node3");
    check_served(lab);
    for (const Family family : {Family::ipv4, Family::ipv6})
        check_bulk(lab, WebService::node_port(3, family, 30080));
    CHECK(sent_by_xdp(lab, "node3") - before < 10); // but for sums that look partial by chance
}

TEST_CASE("on a veth whose other end would lose its frames XDP stays off, and tc does the work")
{
    const Lab lab = thruway_lab();
    put(lab, {.pods = {"pod-2-1"}});
    const nlohmann::json status = xdp_status(lab, "node3");
    CHECK(status["mode"] == "off");
    CHECK(status["reason"].get<std::string>().find("GRO") != std::string::npos);
    check_served(lab);
}

TEST_CASE("somebody else's XDP program on an uplink stays, is named, and costs nothing but XDP")
{
    const Lab lab = thruway_lab({.xdp = true});
    put(lab, {.pods = {"pod-2-1"}});
    must(stop_agent(lab, "node3"));
    const std::array<bpf_insn, 2> pass{{
        {.code = BPF_ALU64 | BPF_MOV | BPF_K, .dst_reg = 0, .src_reg = 0, .off = 0, .imm = XDP_PASS},
        {.code = BPF_JMP | BPF_EXIT, .dst_reg = 0, .src_reg = 0, .off = 0, .imm = 0},
    }};
    const Fd theirs(bpf_prog_load(BPF_PROG_TYPE_XDP, "theirs", "GPL", pass.data(), pass.size(), nullptr));
    REQUIRE(theirs);
    const auto eth0 = static_cast<int>(must(must(netlink_in(lab.keeper(), "node3")).link("eth0")).index);
    const auto attached = [&] {
        const NetnsVisit there = visit(lab, "node3");
        bpf_xdp_query_opts query{};
        query.sz = sizeof(query);
        REQUIRE(bpf_xdp_query(eth0, 0, &query) == 0);
        return query.prog_id;
    };
    // Our link holds the hook against others, also without an agent, until it is told to go.
    {
        const NetnsVisit there = visit(lab, "node3");
        CHECK(bpf_xdp_attach(eth0, theirs.get(), XDP_FLAGS_DRV_MODE, nullptr) == -EBUSY);
    }
    must(start_agent(lab, "node3", {"--xdp", "off"}));
    must(wait_agent_ready(lab, "node3", milliseconds(10'000)));
    CHECK(attached() == 0);
    CHECK(xdp_status(lab, "node3") == nlohmann::json{{"interface", "eth0"}, {"mode", "off"}});
    {
        const NetnsVisit there = visit(lab, "node3");
        REQUIRE(bpf_xdp_attach(eth0, theirs.get(), XDP_FLAGS_DRV_MODE, nullptr) == 0);
    }
    const uint32_t id = attached();
    restart_agent(lab, "node3", {"--xdp", "native"});
    CHECK(attached() == id);
    CHECK(xdp_status(lab, "node3")["mode"] == "off");
    const std::string line = fmt::format("uplink eth0: no XDP, tc does the work: somebody else's XDP program {} "
                                         "(theirs) is attached, and stays",
                                         id);
    CHECK(xdp_status(lab, "node3")["reason"] == line.substr(line.find("somebody")));
    CHECK(must(read_file(lab.folder().agent_log("node3"))).find(line) != std::string::npos);
    check_served(lab);

    // When it goes, its place is taken.
    {
        const NetnsVisit there = visit(lab, "node3");
        REQUIRE(bpf_xdp_detach(eth0, XDP_FLAGS_DRV_MODE, nullptr) == 0);
    }
    eventually("XDP is attached", [&] { return xdp_status(lab, "node3")["mode"] == "native"; });
    check_served(lab);
}

TEST_CASE("kills and restarts of the agent leave XDP attached, and cost no packet")
{
    const Lab lab = thruway_lab({.xdp = true});
    put(lab, {.pods = {"pod-2-1"}});
    const auto link_of = [&] {
        const Output out = must(lab.run("node3", {"sh", "-c",
                                                  fmt::format("bpftool -j link show pinned {}/links/xdp_net-*",
                                                              lab.folder().bpffs("node3").string())}));
        INFO(out.err);
        return nlohmann::json::parse(out.out).at("id").get<int>();
    };
    const int link = link_of();
    std::vector<Hold> held;
    for (const std::vector<std::string> &more : {std::vector<std::string>{}, {"--udp"}}) {
        std::vector<std::string> arguments{WebService::node_port(3, Family::ipv4, more.empty() ? 30080 : 30053),
                                           "--connections",
                                           "10",
                                           "--rate",
                                           "30",
                                           "--interval",
                                           "20",
                                           "--timeout",
                                           "10000"};
        arguments.insert(arguments.end(), more.begin(), more.end());
        held.emplace_back(lab, "client", arguments);
    }
    for (int i = 0; i < 5; i++) {
        must(kill_agent(lab, "node3"));
        std::this_thread::sleep_for(milliseconds(50));
        must(start_agent(lab, "node3"));
        must(wait_agent_ready(lab, "node3", milliseconds(10'000)));
        CHECK(link_of() == link);
    }
    // Switched off and on under load, too: tc takes over in the middle of flows, and gives back.
    restart_agent(lab, "node3", {"--xdp", "off"});
    CHECK(xdp_status(lab, "node3")["mode"] == "off");
    restart_agent(lab, "node3");
    CHECK(xdp_status(lab, "node3")["mode"] == "native");
    std::this_thread::sleep_for(milliseconds(200));
    for (Hold &client : held) {
        const nlohmann::json report = client.finish(0);
        CHECK(report["established"] == 10);
        CHECK(report["lost"] == 0);
        CHECK(report["short_failed"] == 0);
        CHECK(report["short_ok"] > 0);
    }
}

TEST_CASE("cleanup takes XDP off the uplink")
{
    const Lab lab = thruway_lab({.nodes = 1, .xdp = true});
    const auto look = [&] { return must(lab.run("node1", {"sh", "-c", "ip -d link show eth0; bpftool net"})).out; };
    CHECK(look().find("xdp_net") != std::string::npos);
    must(stop_agent(lab, "node1"));
    CHECK(look().find("xdp_net") != std::string::npos);
    const Output done = must(lab.run("node1", {program_folder() / "thruway-agent", "cleanup", "--run-dir",
                                               lab.folder().run_dir("node1"), "--bpffs", lab.folder().bpffs("node1")}));
    INFO(done.err);
    CHECK(done.exit.good());
    CHECK(look().find("xdp_net") == std::string::npos);
}

} // namespace
} // namespace thruway::lab
