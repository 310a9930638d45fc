// SPDX-License-Identifier: Apache-2.0
// A flood of connections that nobody means: it costs rows of its own kind, and those who talk do not notice.
#include "tests/lab/cluster.h"
#include "tests/lab/hold_client.h"

#include <thread>

namespace thruway::lab {
namespace {

using nlohmann::json;
using std::chrono::milliseconds;

constexpr uint32_t rows = 1U << 12;

/// Sends so many SYNs a second, each from an address and port of its own, until it is ended; says how many.
Process start_flood(const Lab &lab, const std::string &target, unsigned rate)
{
    return must(lab.start("client", {"python3", "-c",
                                     fmt::format(R"(
import socket, struct, time
host, port = "{}".rsplit(":", 1)
s = socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_RAW)
to = socket.inet_aton(host)
begin = time.monotonic()
n = 0
while time.monotonic() - begin < 20:
    if n > (time.monotonic() - begin) * {}:
        time.sleep(0.001)
        continue
    source = struct.pack(">I", 0xc6120000 | n // 60000 + 1) # 198.18.0.0/15 is for such (RFC 2544)
    ports = struct.pack(">HH", 1024 + n % 60000, int(port))
    s.sendto(bytes([0x45, 0, 0, 40, 0, 0, 0, 0, 64, 6, 0, 0]) + source + to + ports +
             bytes([0, 0, 0, 1, 0, 0, 0, 0, 0x50, 2, 0xff, 0xff, 0, 0, 0, 0]), (host, 0))
    n += 1
)",
                                                 target, rate)}));
}

/// Answers a second that the holder's connections have got.
double rate_of(Hold &hold)
{
    const json report = hold.finish(0);
    CHECK(report["lost"] == 0);
    return report["messages_answered"].get<double>() / report["seconds"].get<double>();
}

/// What the kernel's memory behind the maps of a node comes to.
uint64_t map_memory(const Lab &lab, const std::string &node)
{
    uint64_t sum = 0;
    for (const json &map : json::parse(cli(lab, node, {"map", "list", "-o", "json"})))
        if (map.contains("memory_bytes") && map.at("name") != "sockets")
            sum += map.at("memory_bytes").get<uint64_t>();
    return sum;
}

uint64_t half_open_evicted(const Lab &lab)
{
    return json::parse(cli(lab, "node1", {"status", "-o", "json"}))["flow_events"]["evicted_half_open"];
}

TEST_CASE("a SYN flood of ten times the flow table takes nothing from established connections, and status tells of it")
{
    const ConfigFile config(fmt::format("sizes: {{flows: {}}}\n", rows));
    const Lab lab = thruway_lab({.nodes = 2});
    must(stop_agent(lab, "node1"));
    must(start_agent(lab, "node1", config.arguments()));
    must(wait_agent_ready(lab, "node1", milliseconds(20'000)));
    const WebService web{.pods = {"pod-2-1"}};
    put(lab, web);
    const auto hold = [&] {
        return Hold(lab, "client",
                    {WebService::node_port(1, Family::ipv4, 30080), "--connections", "20", "--interval", "50"});
    };
    Hold before = hold();
    std::this_thread::sleep_for(milliseconds(3000));
    const double undisturbed = rate_of(before);

    Hold during = hold();
    const uint64_t memory = map_memory(lab, "node1");
    Process flood = start_flood(lab, WebService::node_port(1, Family::ipv4, 30080), 20'000);
    eventually("ten times the table has come and gone", [&] { return half_open_evicted(lab) > 10 * rows / 2; });
    std::string told;
    eventually("status tells of a flood", [&] {
        told = cli(lab, "node1", {"status"});
        return told.contains("(a SYN flood?)");
    });
    CHECK(map_memory(lab, "node1") == memory);
    CHECK(rate_of(during) >= 0.95 * undisturbed);
    flood.signal(SIGTERM);
    std::ignore = flood.wait(milliseconds(5000));
    for (const json &drop : json::parse(cli(lab, "node1", {"drops", "-o", "json"})))
        CHECK(drop.at("reason") != "flows_full");
}

} // namespace
} // namespace thruway::lab
