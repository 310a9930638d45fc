// SPDX-License-Identifier: Apache-2.0
// A path that becomes narrower while connections send by it: each sender has to hear of it, whatever translation and
// hook its packets go through.
#include "tests/lab/cluster.h"

#include <algorithm>
#include <array>
#include <catch2/generators/catch_generators.hpp>
#include <fcntl.h>
#include <sstream>
#include <unistd.h>

namespace thruway::lab {
namespace {

/// What the kernel says of TCP connections at a place, a line for each.
std::vector<std::string> connections(const Lab &lab, const std::string &place, const std::vector<std::string> &which)
{
    std::vector<std::string> command{"ss", "-HOtin", "state", "established"};
    command.insert(command.end(), which.begin(), which.end());
    std::istringstream text(must(lab.run(place, command)).out);
    std::vector<std::string> lines;
    for (std::string line; std::getline(text, line);)
        lines.push_back(line);
    return lines;
}

bool sends_by(const std::string &connection, unsigned mtu)
{
    return connection.contains(fmt::format(" pmtu:{} ", mtu));
}

/// A transfer there and back that goes on until it is told to come to an end: whatever happens before that happens in
/// its middle.
class Transfer {
public:
    /// `way` are the places by whose wires it goes, `connected` what its socket is connected to if not to the target.
    Transfer(const Lab &lab, std::string place, std::string to, std::vector<std::string> way,
             std::string connected = {})
        : from_(std::move(place)), target_(std::move(to)), way_(std::move(way)),
          peer_(connected.empty() ? target_ : std::move(connected)), process_(start(lab))
    {
    }

    [[nodiscard]] std::string text() const { return fmt::format("{} to {}", from_, target_); }
    [[nodiscard]] bool passes(const std::string &place) const { return std::ranges::find(way_, place) != way_.end(); }

    /// Its client takes the path to have this MTU, and has had much of what it sent acknowledged.
    [[nodiscard]] bool goes_by(const Lab &lab, unsigned mtu) const
    {
        const auto found = connections(lab, from_, {"dst", peer_});
        return found.size() == 1 && sends_by(found.front(), mtu) && acknowledged(found.front()) > 1'000'000;
    }

    /// Has it send a last part, and waits until every byte has come back as it was.
    void finish()
    {
        input_.reset();
        CHECK(must(process_.wait(std::chrono::seconds(30))).good());
    }

private:
    Process start(const Lab &lab)
    {
        std::array<int, 2> ends{};
        REQUIRE(::pipe2(ends.data(), O_CLOEXEC) == 0);
        const Fd end(ends[0]);
        input_ = Fd(ends[1]);
        // More would be lost on full devices than TCP can mend: a dozen transfers know nothing of each other.
        const Command command{
            .argv = {program(), "bulk", target_, "--bytes", "1000000", "--rate", "5000000", "--after-input"},
            .in = end.get()};
        return must(Process::start(lab.keeper(), must(lab.place(from_)), command));
    }

    static uint64_t acknowledged(const std::string &connection)
    {
        const std::string key = " bytes_acked:";
        const size_t at = connection.find(key);
        return at == std::string::npos ? 0 : std::stoull(connection.substr(at + key.size()));
    }

    std::string from_;
    std::string target_;
    std::vector<std::string> way_;
    std::string peer_;
    Fd input_;
    Process process_;
};

TEST_CASE("a path that shrinks in the middle of transfers stops none, through every frontend, by tc and by XDP")
{
    const bool xdp = GENERATE(false, true);
    INFO("XDP " << xdp);
    const Lab lab = thruway_lab({.fabric = FabricKind::routed, .xdp = xdp});
    const WebService web{.pods = {"pod-2-1"}};
    put(lab, web);

    std::vector<Transfer> transfers;
    for (const Family family : families) {
        const auto node_port = [&](const char *node) {
            return endpoint_text(must(lab.node(node)).addresses.at(family_index(family)), 30080);
        };
        const std::string service = web.cluster(family, 80);
        const std::string server = web.servers(lab, family).front().address;
        const std::string backend = endpoint_text(*Address::parse(server), 8080);
        transfers.emplace_back(lab, "client", node_port("node3"), std::vector<std::string>{"client", "node3", "node2"});
        transfers.emplace_back(lab, "client", node_port("node2"), std::vector<std::string>{"client", "node2"});
        transfers.emplace_back(lab, "pod-1-1", service, std::vector<std::string>{"node2"});
        transfers.emplace_back(lab, "pod-1-2", backend, std::vector<std::string>{"node2"});
        transfers.emplace_back(lab, "node1", service, std::vector<std::string>{"node2"}, backend);
        // A node's pods have the MTU of its uplink, between themselves, too.
        transfers.emplace_back(lab, "pod-2-2", service, std::vector<std::string>{"node2"});
    }
    /// All that pass the place send by this MTU, and are answered by it.
    const auto check_mtu = [&](const std::string &place, unsigned mtu) {
        std::ptrdiff_t passing = 0;
        for (const Transfer &transfer : transfers) {
            if (!transfer.passes(place))
                continue;
            passing++;
            eventually(fmt::format("{} goes by {}", transfer.text(), mtu), [&] { return transfer.goes_by(lab, mtu); });
        }
        eventually(fmt::format("{} answers go by {}", passing, mtu), [&] {
            return std::ranges::count_if(connections(lab, "pod-2-1", {"sport", "8080"}),
                                         [&](const auto &connection) { return sends_by(connection, mtu); }) == passing;
        });
    };
    check_mtu("node2", 1500);
    // Each narrower than the one before, so that every sender has to hear of every one that it passes.
    for (const auto &[place, mtu] :
         {std::pair("node3", 1400U), std::pair("client", 1340U), std::pair("node2", 1280U)}) {
        check_runs(lab, "fabric", {"ip", "link", "set", place, "mtu", std::to_string(mtu)});
        check_runs(lab, place, {"ip", "link", "set", "eth0", "mtu", std::to_string(mtu)});
        check_mtu(place, mtu);
    }
    for (Transfer &transfer : transfers) {
        INFO(transfer.text());
        transfer.finish();
    }
}

} // namespace
} // namespace thruway::lab
