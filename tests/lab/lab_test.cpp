// SPDX-License-Identifier: Apache-2.0
#include "tests/lab/fixture.h"
#include "tools/lab/cgroup.h"
#include "tools/lab/namespaces.h"

#include <csignal>
#include <filesystem>
#include <sys/wait.h>
#include <thread>

namespace thruway::lab {
namespace {

using std::chrono::milliseconds;

/// Whether anything of a lab of that name lies about.
bool left_over(const std::string &name)
{
    return std::filesystem::exists(Folder(name).root()) || std::filesystem::exists(must(lab_cgroup(name)));
}

/// Every address of a pod as a target for its echo server.
std::vector<std::string> targets(const Pod &pod)
{
    std::vector<std::string> list;
    list.reserve(pod.addresses.size());
    for (const Address &address : pod.addresses)
        list.push_back(endpoint_text(address, pod.tcp.front()));
    return list;
}

/// That `place` reaches the pod by every address and protocol, and is seen there as who it is.
void check_reaches(const Lab &lab, const std::string &place, const Pod &pod, const std::vector<Address> &seen_as)
{
    for (const char *transport : {"tcp", "udp"}) {
        for (size_t i = 0; i < pod.addresses.size(); i++) {
            const std::string target = targets(pod).at(i);
            INFO(place << " asks " << transport << " " << target);
            const auto answer = ask_from(lab, place, transport, target);
            INFO(answer.dump());
            REQUIRE(answer.contains("name"));
            CHECK(answer["name"] == pod.name);
            CHECK(answer["client_address"] == seen_as.at(i).text());
        }
    }
}

std::vector<Address> listed(const AddressPair &pair)
{
    return {pair.begin(), pair.end()};
}

void check_reachability(const Lab &lab)
{
    const Pod first = must(find_pod(lab, "default", "pod-1-1"));
    const Pod neighbour = must(find_pod(lab, "default", "pod-1-2"));
    const Pod remote = must(find_pod(lab, "default", "pod-2-1"));
    check_reaches(lab, "pod-1-1", first, first.addresses);
    check_reaches(lab, "pod-1-1", neighbour, first.addresses);
    check_reaches(lab, "pod-1-1", remote, first.addresses);
    check_reaches(lab, "pod-2-1", first, remote.addresses);
    check_reaches(lab, "node1", first, listed(must(lab.node("node1")).addresses));
    check_reaches(lab, "node1", remote, listed(must(lab.node("node1")).addresses));
    check_reaches(lab, "client", first, listed(lab.topology().client.addresses));
}

TEST_CASE("pods, nodes and the client reach each other on a switched fabric")
{
    check_reachability(plain_lab({.nodes = 2}));
}

TEST_CASE("pods, nodes and the client reach each other on a routed fabric with jumbo frames")
{
    const Lab lab = plain_lab({.nodes = 2, .mtu = 9000, .fabric = FabricKind::routed});
    check_reachability(lab);
    CHECK(must(lab.run("pod-2-2", {"ip", "link", "show", "eth0"})).out.find("mtu 9000 ") != std::string::npos);
    const auto bulk = must(lab.run(
        "pod-1-1", {program(), "bulk", targets(must(find_pod(lab, "default", "pod-2-1")))[1], "--bytes", "20000000"}));
    INFO(bulk.err);
    CHECK(bulk.exit.good());
}

TEST_CASE("the router of a switched fabric is no detour for pods that a node has no route to")
{
    const Lab lab = plain_lab({.nodes = 2, .pods = 1});
    const Pod remote = must(find_pod(lab, "default", "pod-2-1"));
    for (const auto &target : targets(remote)) {
        CHECK(ask_from(lab, "pod-1-1", "tcp", target).contains("name"));
        const std::string cidr =
            target.starts_with('[') ? "-6 route del fd00:10:244:2::/64" : "route del 10.244.2.0/24";
        REQUIRE(must(lab.run("node1", {"sh", "-c", "ip " + cidr})).exit.good());
        CHECK(ask_from(lab, "pod-1-1", "tcp", target).value("error", "") == "unreachable");
    }
}

TEST_CASE("a lab that ends leaves no process, file or control group")
{
    std::string name;
    std::string pids;
    {
        const Lab lab = plain_lab({.nodes = 2});
        name = lab.options().name;
        pids = pid_namespace(lab.keeper().presence().pid);
        CHECK(processes_in(pids) == 5); // the keeper and four echo servers
        CHECK(left_over(name));
    }
    CHECK(processes_in(pids) == 0);
    CHECK_FALSE(left_over(name));
    CHECK_FALSE(Lab::open(name).has_value());
    CHECK_FALSE(Lab::down(name).has_value());
}

TEST_CASE("a killed keeper takes every process along, and down removes the rest")
{
    const Lab lab = plain_lab({.nodes = 2});
    const std::string &name = lab.options().name;
    const std::string pids = pid_namespace(lab.keeper().presence().pid);
    Process busy = must(lab.start("pod-1-1", {"sleep", "60"}));

    ::kill(lab.keeper().presence().pid, SIGKILL);
    CHECK(must(busy.wait(milliseconds(5000))).signal == SIGKILL);
    REQUIRE(wait_gone(lab.keeper().presence(), milliseconds(5000)));
    CHECK(processes_in(pids) <= 1); // the keeper itself, until its parent, this process, has waited for it
    CHECK(left_over(name));

    SECTION("down")
    {
        const Result<Lab> dead = Lab::open(name);
        REQUIRE_FALSE(dead.has_value());
        CHECK(dead.error().text().find("dead") != std::string::npos);
        must(Lab::down(name));
        CHECK_FALSE(left_over(name));
    }
    SECTION("the next up")
    {
        const Lab again = must(Lab::up(lab.options()));
        CHECK(must(list_pods(again)).size() == 4);
    }
}

/// Starts to make a large lab and sends the signal when a part of it is there. Returns what was said.
std::string interrupt_up(const std::string &name, const std::string &signal)
{
    return shell(fmt::format("{} up --name {} --dataplane none --nodes 200 & up=$!; "
                             "until [ -e {} ]; do sleep 0.01; done; kill -{} $up; wait $up",
                             program(), name, Folder(name).node("node3").native(), signal))
        .out;
}

TEST_CASE("a lab whose maker is interrupted is gone")
{
    const std::string name = unique_name();
    CHECK(interrupt_up(name, "INT").find("interrupted") != std::string::npos);
    CHECK_FALSE(left_over(name));
}

TEST_CASE("a lab whose maker is killed ends, and down removes the rest")
{
    const std::string name = unique_name();
    interrupt_up(name, "KILL");
    for (int i = 0; i < 500 && must(find_presence(Folder(name).keeper_lock())); i++)
        std::this_thread::sleep_for(milliseconds(10));
    CHECK_FALSE(must(find_presence(Folder(name).keeper_lock())));
    must(Lab::down(name));
    CHECK_FALSE(left_over(name));
}

TEST_CASE("labs of different names live side by side, and a name is given once")
{
    const Lab one = plain_lab({.nodes = 1});
    const Lab other = plain_lab({.nodes = 1});
    const Pod pod = must(find_pod(one, "default", "pod-1-1"));
    must(delete_pod(other, "default", "pod-1-1"));
    CHECK(ask_from(one, "pod-1-2", "tcp", targets(pod)[0]).contains("name"));
    CHECK(ask_from(other, "pod-1-2", "tcp", targets(pod)[0]).contains("error"));

    const auto twice = Lab::up(one.options());
    REQUIRE_FALSE(twice.has_value());
    CHECK(twice.error().text().find("is up already") != std::string::npos);
    CHECK(ask_from(one, "pod-1-2", "tcp", targets(pod)[0]).contains("name"));
}

TEST_CASE("a released lab stays until it is taken down")
{
    std::string name;
    {
        Lab lab = plain_lab({.nodes = 1, .pods = 1});
        name = lab.options().name;
        lab.release();
    }
    {
        const Lab found = must(Lab::open(name));
        CHECK(
            ask_from(found, "node1", "tcp", targets(must(find_pod(found, "default", "pod-1-1")))[0]).contains("name"));
    }
    must(Lab::down(name));
    CHECK_FALSE(left_over(name));
}

TEST_CASE("exec gives back what the command gave")
{
    const Lab lab = plain_lab({.nodes = 1, .pods = 1});
    const auto exec = [&lab](const std::string &place, const std::string &command) {
        return shell(fmt::format("{} exec --name {} {} -- {}", program(), lab.options().name, place, command));
    };
    CHECK(exec("node1", "true").code == 0);
    CHECK(exec("pod-1-1", "sh -c 'exit 7'").code == 7);
    CHECK(exec("client", "sh -c 'kill -KILL $$'").code == 128 + SIGKILL);
    CHECK(exec("fabric", "/does/not/exist").code == 127);
    CHECK(exec("nowhere", "true").code == 1);
    CHECK(shell(fmt::format("echo hello | {} exec --name {} default/pod-1-1 -- cat", program(), lab.options().name))
              .out == "hello\n");
    CHECK(shell(fmt::format("{} exec node1", program())).code == 2);

    const std::string cgroup = "thruway-lab-" + lab.options().name;
    CHECK(exec("node1", "cat /proc/self/cgroup").out.find("0::/" + cgroup + "/node1\n") != std::string::npos);
    CHECK(exec("pod-1-1", "cat /proc/self/cgroup").out.find("0::/" + cgroup + "/node1/pods\n") != std::string::npos);
}

TEST_CASE("exec passes signals on")
{
    const Lab lab = plain_lab({.nodes = 1, .pods = 0});
    const Shell ended =
        shell(fmt::format("{} exec --name {} node1 -- sh -c "
                          "'trap \"exit 5\" TERM; touch {}/trapped; while true; do sleep 0.01; done' & "
                          "exec=$!; until [ -e {}/trapped ]; do sleep 0.01; done; "
                          "kill -TERM $exec; wait $exec",
                          program(), lab.options().name, lab.folder().root().native(), lab.folder().root().native()));
    CHECK(ended.code == 5);
}

TEST_CASE("pods come and go")
{
    const Lab lab = plain_lab({.nodes = 1, .pods = 0});
    const auto record_count = [&lab] {
        return std::distance(std::filesystem::directory_iterator(lab.folder().pods()), {});
    };
    const Pod web = must(add_pod(lab, {.node = "node1", .name = "web", .tcp = {80, 81}, .udp = {53}}));
    const Pod dns = must(add_pod(lab, {.node = "node1", .name = "web", .space = "other"}));
    CHECK(web.addresses != dns.addresses);
    CHECK(ask_from(lab, "other/web", "tcp", endpoint_text(web.addresses[0], 81))["name"] == "web");
    CHECK(ask_from(lab, "other/web", "udp", endpoint_text(web.addresses[1], 53))["name"] == "web");
    CHECK(ask_from(lab, "other/web", "tcp", endpoint_text(web.addresses[1], 82))["error"] == "refused");

    CHECK(add_pod(lab, {.node = "node1", .name = "web"}).error().text().find("exists already") != std::string::npos);
    CHECK_FALSE(add_pod(lab, {.node = "node7", .name = "lost"}).has_value());
    CHECK_FALSE(add_pod(lab, {.node = "node1", .name = "../evil"}).has_value());

    must(delete_pod(lab, "default", "web"));
    CHECK_FALSE(delete_pod(lab, "default", "web").has_value());
    CHECK(ask_from(lab, "other/web", "tcp", targets(web)[0]).contains("error"));
    const Pod again = must(add_pod(lab, {.node = "node1", .name = "web"}));
    CHECK(again.addresses == web.addresses);
    CHECK(again.container != web.container);
    must(delete_pod(lab, "default", "web"));
    must(delete_pod(lab, "other", "web"));
    CHECK(record_count() == 0);
    const std::string links = must(lab.run("node1", {"ip", "-o", "link"})).out;
    CHECK(std::ranges::count(links, '\n') == 2); // lo and eth0
}

TEST_CASE("pods can be made from many threads at once")
{
    const Lab lab = plain_lab({.nodes = 2, .pods = 0});
    {
        std::vector<std::jthread> makers(8);
        for (int i = 0; i < 8; i++) {
            makers.at(i) = std::jthread([&lab, i] {
                [[maybe_unused]] const auto added =
                    add_pod(lab, {.node = fmt::format("node{}", i % 2 + 1), .name = fmt::format("pod-{}", i)});
            });
        }
    }
    const auto pods = must(list_pods(lab));
    REQUIRE(pods.size() == 8);
    for (const Pod &pod : pods)
        CHECK(ask_from(lab, "client", "tcp", targets(pod)[0])["name"] == pod.name);
}

TEST_CASE("manifests say what the lab made")
{
    const Lab lab = plain_lab({.nodes = 1, .pods = 1});
    const auto read = [&lab](const std::string &name) {
        return nlohmann::json::parse(must(read_file(lab.folder().manifest(name))));
    };
    const auto node = read("node-node1");
    CHECK(node["kind"] == "Node");
    CHECK(node["spec"]["podCIDRs"] == nlohmann::json{"10.244.1.0/24", "fd00:10:244:1::/64"});
    CHECK(node["status"]["addresses"][0] == nlohmann::json{{"type", "InternalIP"}, {"address", "172.20.0.11"}});
    CHECK(node["status"]["addresses"][1]["address"] == "fd20::11");

    const auto pod = read("pod-default_pod-1-1");
    CHECK(pod["metadata"]["name"] == "pod-1-1");
    CHECK(pod["spec"]["nodeName"] == "node1");
    CHECK(pod["status"]["podIPs"] == nlohmann::json{{{"ip", "10.244.1.2"}}, {{"ip", "fd00:10:244:1::2"}}});

    must(lab.put_manifest("service-web", "kind: Service\n"));
    must(lab.put_manifest("service-web", "kind: Service\nmetadata: {}\n"));
    CHECK(must(read_file(lab.folder().manifest("service-web"))) == "kind: Service\nmetadata: {}\n");
    must(lab.remove_manifest("service-web"));
    must(lab.remove_manifest("service-web"));
    must(delete_pod(lab, "default", "pod-1-1"));
    CHECK(std::distance(std::filesystem::directory_iterator(lab.folder().manifests()), {}) == 1);
}

TEST_CASE("status tells people and programs")
{
    const Lab lab = plain_lab({.nodes = 2, .pods = 1});
    const std::string status = fmt::format("{} status --name {}", program(), lab.options().name);
    CHECK(shell(status).out.find("fd20::12") != std::string::npos);

    const auto read = nlohmann::json::parse(shell(status + " -o json").out);
    CHECK(read["nodes"].size() == 2);
    CHECK(read["pods"][1]["name"] == "pod-2-1");
    CHECK(read["pods"][1]["addresses"][0] == "10.244.2.2");
    CHECK(read["client"]["addresses"][1] == "fd21::2");
    CHECK_FALSE(read["nodes"][0].contains("agent"));
}

TEST_CASE("wrong usage and impossible wishes get one clear line")
{
    const auto check = [](const std::string &arguments, int code, const std::string &text) {
        const Shell result = shell(fmt::format("{} {}", program(), arguments));
        INFO(arguments << ": " << result.out);
        CHECK(result.code == code);
        CHECK(result.out.find(text) != std::string::npos);
        CHECK(std::ranges::count(result.out, '\n') == 1);
    };
    check("", 2, "subcommand");
    check("up --nodes 0", 2, "--nodes");
    check("up --name ../x --dataplane none", 1, "no name for a lab");
    check("up --bin-dir /nowhere --dataplane none", 1, "--bin-dir");
    check("up --no-agents --pods 1", 1, "pods need agents");
    check("down --name no-such-lab", 1, "no lab");
    check("exec --name no-such-lab node1 -- true", 1, "no lab");
    check("ask tcp 10.0.0.1", 2, "ADDRESS:PORT");
    check("ask tcp fd00::1:80", 2, "[ADDRESS]:PORT");
    check("bulk 127.0.0.1:9", 2, "--bytes");
    CHECK(shell(program() + " --version").out == THRUWAY_VERSION "\n");
    CHECK(shell(program() + " hold --help").code == 0);
}

} // namespace
} // namespace thruway::lab
