// SPDX-License-Identifier: Apache-2.0
// The flow table of a node changes under those who talk.
#include "tests/lab/cluster.h"
#include "tests/lab/hold_client.h"

#include <random>
#include <thread>

namespace thruway::lab {
namespace {

using std::chrono::milliseconds;

bool table_changes(const Lab &lab, const std::string &node)
{
    return cli(lab, node, {"status"}).contains("is changing its size");
}

TEST_CASE("a flow table that grows and shrinks under 200 connections loses none, wherever its agent is killed")
{
    const Lab lab = thruway_lab();
    const WebService web{.pods = {"pod-2-1", "pod-3-1"}};
    put(lab, web);
    std::vector<Hold> held;
    for (const auto &[place, target] : {std::pair{"pod-1-1", web.cluster(Family::ipv4, 80)},
                                        {"pod-1-2", web.cluster(Family::ipv6, 80)},
                                        {"client", web.node_port(1, Family::ipv4, 30080)},
                                        {"client", web.node_port(1, Family::ipv6, 30080)}})
        held.emplace_back(lab, place,
                          std::vector<std::string>{target, "--connections", "50", "--rate", "20", "--interval", "20",
                                                   "--timeout", "10000"});

    const unsigned seed = std::random_device{}();
    INFO("seed " << seed);
    std::mt19937 random(seed);
    for (const uint32_t rows : {1U << 16, 1U << 12}) {
        const ConfigFile config(fmt::format("sizes: {{flows: {}}}\n", rows));
        for (int kills = 0; kills < 3; kills++) { // the last one stays
            must(kill_agent(lab, "node1"));
            must(start_agent(lab, "node1", config.arguments()));
            std::this_thread::sleep_for(milliseconds(random() % 1500));
        }
        must(wait_agent_ready(lab, "node1", milliseconds(20'000)));
        eventually("the table has changed", [&] { return !table_changes(lab, "node1"); });
        const nlohmann::json maps = nlohmann::json::parse(cli(lab, "node1", {"map", "list", "-o", "json"}));
        for (const nlohmann::json &map : maps)
            if (map.at("name") == "flows4")
                CHECK(map.at("capacity") == rows + rows / 4);
    }
    for (Hold &client : held) {
        const nlohmann::json report = client.finish(0);
        CHECK(report["established"] == 50);
        CHECK(report["lost"] == 0);
        CHECK(report["refused"] == 0);
        CHECK(report["short_failed"] == 0);
    }
}

} // namespace
} // namespace thruway::lab
