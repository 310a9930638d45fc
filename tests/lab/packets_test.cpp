// SPDX-License-Identifier: Apache-2.0
// Packets that are not friendly, from real sockets: pings, traceroutes, refusals, fragments.
#include "tests/lab/cluster.h"
#include "tests/lab/hold_client.h"

#include <fstream>
#include <sstream>
#include <thread>

namespace thruway::lab {
namespace {

/// The addresses that a traceroute names, hop by hop.
std::vector<std::string> traced(const Lab &lab, const std::string &place, const std::string &target, const char *how)
{
    const Output output = must(lab.run(place, {"traceroute", how, "-n", "-q", "1", "-w", "2", "-m", "8", target}));
    INFO(output.out << output.err);
    CHECK(output.exit.good());
    std::vector<std::string> hops;
    std::istringstream lines(output.out);
    std::string line, number, address;
    std::getline(lines, line);
    while (std::getline(lines, line))
        if (std::istringstream(line) >> number >> address)
            hops.push_back(address);
    return hops;
}

/// Sends a datagram of some size to an echo server and says what comes back: how many bytes of it, or an error.
std::string echoed(const Lab &lab, const std::string &place, const std::string &target, size_t size)
{
    const Output output = must(lab.run(place, {"python3", "-c",
                                               fmt::format(R"(
import os, socket
host, port = "{}".rsplit(":", 1)
host = host.strip("[]")
s = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET, socket.SOCK_DGRAM)
s.settimeout(5)
data = os.urandom({})
try:
    s.connect((host, int(port)))
    s.send(data)
    answer = s.recv(65536)
    print(len(answer) if answer.endswith(data) and len(answer) > len(data) else "wrong")
except OSError as error:
    print(type(error).__name__)
)",
                                                           target, size)}));
    INFO(output.err);
    CHECK(output.exit.good());
    return output.out;
}

TEST_CASE("pings and traceroutes go between pods, nodes and clients outside")
{
    const Lab lab = thruway_lab();
    const std::pair<std::string, std::string> ways[] = {
        {"pod-1-1", "pod-1-2"}, {"pod-1-1", "pod-3-1"}, {"pod-1-1", "node1"}, {"pod-1-1", "node3"},
        {"pod-1-1", "client"},  {"node1", "pod-1-1"},   {"node1", "pod-3-1"}, {"client", "pod-3-1"}};
    for (const Family family : families) {
        for (const auto &[from, to] : ways) {
            const std::string target = address_of(lab, to, family);
            check_runs(lab, from, {"ping", "-n", "-c", "1", "-W", "5", target});
            check_runs(lab, from, {"ping", "-n", "-c", "1", "-W", "5", "-s", "5000", target});
            for (const char *how : {"-U", "-I"}) {
                const auto hops = traced(lab, from, target, how);
                INFO(fmt::format("{} -> {} {}: {}", from, to, how, fmt::join(hops, " ")));
                REQUIRE(!hops.empty());
                CHECK(hops.back() == target);
                if (from == "pod-1-1" && to != "node1")
                    CHECK(hops.front() == address_of(lab, "node1", family));
                if (from == "pod-1-1" && to == "pod-3-1")
                    CHECK(hops ==
                          std::vector{address_of(lab, "node1", family), address_of(lab, "node3", family), target});
            }
        }
    }
    for (const Node &node : lab.topology().nodes) {
        const auto drops = nlohmann::json::parse(cli(lab, node.name, {"drops", "-o", "json"}));
        for (const auto &drop : drops)
            CHECK(drop.at("reason") == "hops_exceeded");
    }
}

TEST_CASE("the address of a service answers pings, and its backends' refusals reach the client")
{
    const Lab lab = thruway_lab({.nodes = 2});
    const WebService web{.pods = {"pod-2-1"}};
    put(lab, web);
    const Pod server = must(find_pod(lab, "default", "pod-2-1"));
    for (const Family family : families) {
        const std::string vip = family == Family::ipv4 ? "10.96.0.1" : "fd00:96::1";
        for (const std::string place : {"pod-1-1", "node1"})
            check_runs(lab, place, {"ping", "-n", "-c", "1", "-W", "5", vip});
        CHECK(echoed(lab, "pod-1-1", web.cluster(family, 53), 100) != "ConnectionRefusedError\n");
    }
    must(kill_echo(lab, server));
    for (const Family family : families) {
        for (const std::string place : {"pod-1-1", "pod-2-2", "pod-2-1", "node1"})
            CHECK(echoed(lab, place, web.cluster(family, 53), 100) == "ConnectionRefusedError\n");
        CHECK(echoed(lab, "client", WebService::node_port(1, family, 30053), 100) == "ConnectionRefusedError\n");
        CHECK(echoed(lab, "client", WebService::node_port(2, family, 30053), 100) == "ConnectionRefusedError\n");
    }
}

/// What a TCP client is told that dials the target, and "late" if it takes a second to be told.
std::string dialled(const Lab &lab, const std::string &place, const std::string &target)
{
    const Output output = must(lab.run(place, {"python3", "-c",
                                               fmt::format(R"(
import socket, time
host, port = "{}".rsplit(":", 1)
begin = time.monotonic()
try:
    socket.create_connection((host.strip("[]"), int(port)), timeout=5)
    print("connected")
except OSError as error:
    print(type(error).__name__ if time.monotonic() - begin < 1 else "late")
)",
                                                           target)}));
    INFO(output.err);
    CHECK(output.exit.good());
    return output.out;
}

TEST_CASE("rule 31: a service without backends refuses clients anywhere within a second, in both families")
{
    const Lab lab = thruway_lab({.nodes = 2});
    WebService web{.pods = {"pod-2-1"}};
    put(lab, web);
    web.pods.clear();
    put(lab, web);
    for (const Family family : families) {
        for (const std::string place : {"pod-1-1", "node1"}) {
            CHECK(dialled(lab, place, web.cluster(family, 80)) == "ConnectionRefusedError\n");
            CHECK(echoed(lab, place, web.cluster(family, 53), 100) == "ConnectionRefusedError\n");
        }
        CHECK(dialled(lab, "client", WebService::node_port(1, family, 30080)) == "ConnectionRefusedError\n");
        CHECK(echoed(lab, "client", WebService::node_port(1, family, 30053), 100) == "ConnectionRefusedError\n");
    }
}

/// Sends resets to the other end of a connection, as if from the place's own, far out of its window.
void send_stray_resets(const Lab &lab, const std::string &place, const std::string &from, const std::string &to)
{
    check_runs(lab, place,
               {"python3", "-c",
                fmt::format(R"(
import ipaddress, socket, struct
def end(text):
    host, port = text.rsplit(":", 1)
    return ipaddress.ip_address(host.strip("[]")), int(port)
(source, source_port), (to, port) = end("{}"), end("{}")
s = socket.socket(socket.AF_INET6 if to.version == 6 else socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_TCP)
for i in range(32):
    head = lambda sum: struct.pack("!HHIIBBHHH", source_port, port, i << 27, 0, 5 << 4, 4, 0, sum, 0)
    covered = source.packed + to.packed + struct.pack("!II", 20, 6) + head(0)
    sum = 0
    for (word,) in struct.iter_unpack("!H", covered):
        sum += word
    while sum >> 16:
        sum = (sum & 0xffff) + (sum >> 16)
    s.sendto(head(~sum & 0xffff), (str(to), 0))
)",
                            from, to)});
}

TEST_CASE("rule 36: resets out of the window, from either end, end no connection")
{
    const ConfigFile config(nothing_to_adopt);
    const Lab lab = thruway_lab({.nodes = 2, .agent_args = config.arguments()});
    const WebService web{.pods = {"pod-2-1"}};
    put(lab, web);
    for (const Family family : families) {
        const std::string server = endpoint_text(*Address::parse(address_of(lab, "pod-2-1", family)), 8080);
        const std::string service = web.cluster(family, 80);
        Hold hold(lab, "pod-1-1", {service, "--interval", "50"});
        std::istringstream line(must(lab.run("pod-1-1", {"ss", "-Htn", "state", "established", "dst", service})).out);
        std::string queued, unsent, client;
        line >> queued >> unsent >> client;
        send_stray_resets(lab, "pod-2-1", server, client);
        send_stray_resets(lab, "pod-1-1", client, service);
        for (const auto &flow : nlohmann::json::parse(cli(lab, "node1", {"flow", "list", "-o", "json"})))
            if (flow.at("destination").at("port") == 80)
                CHECK((flow["original"]["packets"] >= 32 && flow["reply"]["packets"] >= 32));
        std::this_thread::sleep_for(std::chrono::milliseconds(300)); // some messages
        const auto report = hold.finish(0);
        CHECK(report["messages_answered"] == report["messages_sent"]);
        for (const Node &node : lab.topology().nodes)
            CHECK(nlohmann::json::parse(cli(lab, node.name, {"drops", "-o", "json"})).empty());
    }
}

/// A client that connects, and when `go` appears says something more: it ends well if it is reset within a second.
Process start_reset_client(const Lab &lab, const std::string &place, const std::string &target, const std::string &go)
{
    return must(lab.start(place, {"python3", "-c",
                                  fmt::format(R"(
import os, socket, sys, time
host, port = "{}".rsplit(":", 1)
s = socket.create_connection((host.strip("[]"), int(port)))
s.recv(100)
while not os.path.exists("{}"):
    time.sleep(0.01)
s.settimeout(1)
try:
    s.send(b"still there?")
    s.recv(100)
except ConnectionResetError:
    sys.exit(0)
except TimeoutError:
    sys.exit("no answer in a second")
sys.exit("an answer")
)",
                                              target, go)}));
}

TEST_CASE("who goes on with a connection to a service that nobody knows any more is reset at once")
{
    const ConfigFile config(nothing_to_adopt);
    const Lab lab = thruway_lab({.nodes = 2, .agent_args = config.arguments()});
    put(lab, {.number = 1, .pods = {"pod-1-2"}});
    const auto flows = [&] { return nlohmann::json::parse(cli(lab, "node1", {"flow", "list", "-o", "json"})).size(); };
    const std::string go = fmt::format("/tmp/{}.go", unique_name());
    std::vector<Process> clients;
    for (const Family family : families)
        clients.push_back(start_reset_client(lab, "pod-1-1", WebService{.pods = {}}.cluster(family, 80), go));
    eventually("the clients are connected", [&] { return flows() >= 2; });

    // The backend is gone and cannot say so: then its flows go.
    check_runs(lab, "pod-1-2", {"ip", "link", "set", "eth0", "down"});
    must(delete_pod(lab, "default", "pod-1-2"));
    eventually("the flows are gone", [&] { return flows() == 0; });
    std::ofstream(go).close();
    for (Process &client : clients)
        CHECK(must(client.wait(std::chrono::seconds(5))).good());
    std::filesystem::remove(go);
    CHECK(cli(lab, "node1", {"drops"}).contains("no_connection"));
}

TEST_CASE("datagrams larger than the MTU arrive whole through every frontend")
{
    const Lab lab = thruway_lab();
    const WebService web{.pods = {"pod-2-1"}};
    put(lab, web);
    for (const Family family : families) {
        const std::pair<std::string, std::string> ways[] = {
            {"pod-1-1", web.cluster(family, 53)},
            {"pod-2-2", web.cluster(family, 53)},
            {"pod-2-1", web.cluster(family, 53)},
            {"node1", web.cluster(family, 53)},
            {"client", WebService::node_port(3, family, 30053)},
            {"client", WebService::node_port(2, family, 30053)},
            {"pod-1-1", endpoint_text(*Address::parse(address_of(lab, "pod-3-1", family)), 8080)},
        };
        for (const auto &[place, target] : ways)
            for (const size_t size : {2000U, 9000U, 60'000U}) {
                const std::string answer = echoed(lab, place, target, size);
                INFO(fmt::format("{} -> {}, {} bytes: {}", place, target, size, answer));
                CHECK(std::atoi(answer.c_str()) > static_cast<int>(size));
            }
    }
}

} // namespace
} // namespace thruway::lab
