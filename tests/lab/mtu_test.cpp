// SPDX-License-Identifier: Apache-2.0
// A path that becomes narrower while connections send by it: each sender has to hear of it, whatever translation and
// hook its packets go through.
#include "tests/lab/cluster.h"
#include "tools/lab/socket.h"

#include <catch2/generators/catch_generators.hpp>

namespace thruway::lab {
namespace {

constexpr std::array families{Family::ipv4, Family::ipv6};

nlohmann::json route_to(const Lab &lab, const std::string &place, const Address &address)
{
    return nlohmann::json::parse(must(lab.run(place, {"ip", "-j", "route", "get", address.text()})).out).at(0);
}

/// A transfer there and back that is to take longer than it takes to shrink the path.
struct Transfer {
    std::string from;
    std::string target;
    std::string peer; ///< what its socket is connected to
    Process process;

    Transfer(const Lab &lab, const char *bytes, std::string place, std::string to, std::string connected = {})
        : from(std::move(place)), target(std::move(to)), peer(connected.empty() ? target : std::move(connected)),
          process(must(lab.start(from, {program(), "bulk", target, "--bytes", bytes})))
    {
    }

    /// How much of what it has sent is known to have arrived.
    [[nodiscard]] uint64_t arrived(const Lab &lab) const
    {
        const Output output = must(lab.run(from, {"ss", "-Htin", "state", "established", "dst", peer}));
        const std::string key = "bytes_acked:";
        const size_t at = output.out.find(key);
        return at == std::string::npos ? 0 : std::stoull(output.out.substr(at + key.size()));
    }

    /// The MTU that the sender takes its path to have.
    [[nodiscard]] unsigned mtu(const Lab &lab) const
    {
        const nlohmann::json route = route_to(lab, from, must(parse_socket_name(peer)).address);
        return route.contains("metrics") ? route.at("metrics").at(0).at("mtu").get<unsigned>() : 0;
    }
};

// Not run unless asked for by name: on a quick machine a transfer may be over before the path shrinks.
TEST_CASE("a path that shrinks in the middle of transfers stops none, through every frontend, by tc and by XDP",
          "[.mtu]")
{
    const bool xdp = GENERATE(false, true);
    const std::string narrow = GENERATE(as<std::string>(), "node2", "node3", "client");
    const Lab lab = thruway_lab({.fabric = FabricKind::routed, .xdp = xdp});
    const WebService web{.pods = {"pod-2-1"}};
    put(lab, web);

    const char *bytes = narrow == "node2" ? "50000000" : "200000000"; // of many transfers each is slower
    std::vector<Transfer> transfers;
    for (const Family family : families) {
        const auto node_port = [&](const char *node) {
            return endpoint_text(must(lab.node(node)).addresses.at(family_index(family)), 30080);
        };
        transfers.emplace_back(lab, bytes, "client", node_port("node3"));
        if (narrow != "node3")
            transfers.emplace_back(lab, bytes, "client", node_port("node2"));
        if (narrow == "node2") { // whose pods have its MTU, between themselves, too
            const std::string server = web.servers(lab, family).front().address;
            const std::string backend = endpoint_text(*Address::parse(server), 8080);
            transfers.emplace_back(lab, bytes, "pod-1-1", web.cluster(family, 80));
            transfers.emplace_back(lab, bytes, "pod-1-2", backend);
            transfers.emplace_back(lab, bytes, "pod-2-2", web.cluster(family, 80));
            transfers.emplace_back(lab, bytes, "node1", web.cluster(family, 80), backend);
        }
    }
    for (const Transfer &transfer : transfers)
        eventually(transfer.from + " sends to " + transfer.target, [&] { return transfer.arrived(lab) > 1'000'000; });
    for (Transfer &transfer : transfers)
        REQUIRE(!transfer.process.wait(std::chrono::milliseconds(0)));

    check_runs(lab, "fabric", {"ip", "link", "set", narrow, "mtu", "1280"});
    check_runs(lab, narrow, {"ip", "link", "set", "eth0", "mtu", "1280"});
    for (Transfer &transfer : transfers) {
        INFO(fmt::format("{} to {}, {} narrow, XDP {}", transfer.from, transfer.target, narrow, xdp));
        const auto exit = transfer.process.wait(std::chrono::seconds(30));
        CHECK(must(exit).good());
        if (transfer.from != narrow)
            CHECK(transfer.mtu(lab) == 1280);
    }
}

} // namespace
} // namespace thruway::lab
