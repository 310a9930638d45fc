// SPDX-License-Identifier: Apache-2.0
#include "tests/lab/firewall.h"

namespace thruway::lab {
namespace {

using nlohmann::json;

uint64_t packets(const Lab &lab, const std::string &node, const std::string &counter)
{
    const Output output = must(lab.run(node, {"nft", "-j", "list", "counter", "inet", "guard", counter}));
    return json::parse(output.out).at("nftables").at(1).at("counter").at("packets");
}

} // namespace

void nft(const Lab &lab, const std::string &node, const std::string &rules)
{
    const Output output = must(lab.run(node, {"nft", rules}));
    INFO(output.err);
    REQUIRE(output.exit.good());
}

void put_up_firewalls(const Lab &lab)
{
    std::string chains;
    for (const char *hook : {"input", "forward", "output"})
        chains += fmt::format("chain {0} {{ type filter hook {0} priority 0; "
                              "ct state established,related accept; ct state invalid counter name invalid drop; }}; ",
                              hook);
    for (const Node &node : lab.topology().nodes)
        nft(lab, node.name, "table inet guard { counter invalid { }; " + chains + "}");
}

void check_untripped(const Lab &lab)
{
    for (const Node &node : lab.topology().nodes) {
        INFO(node.name);
        CHECK(packets(lab, node.name, "invalid") == 0);
        const json drops = json::parse(cli(lab, node.name, {"drops", "-o", "json"}));
        INFO(drops.dump());
        CHECK(drops.empty());
    }
}

} // namespace thruway::lab
