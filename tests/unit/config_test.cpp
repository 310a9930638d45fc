// SPDX-License-Identifier: Apache-2.0
#include "agent/config.h"

#include <catch2/catch_test_macros.hpp>
#include <catch2/generators/catch_generators.hpp>
#include <cstdlib>
#include <fstream>
#include <unistd.h>

using namespace thruway;

namespace {

/// Reads a configuration file with this text.
Result<Config> read(const std::string &text)
{
    std::string path = "/tmp/thruway-config-XXXXXX";
    close(mkstemp(path.data()));
    std::ofstream(path) << text;
    Config config;
    auto done = read_config(path, config);
    unlink(path.c_str());
    if (!done)
        return std::unexpected(Error(done.error().text().substr(path.size() + 2)));
    return config;
}

Config good()
{
    Config config;
    config.node = "n1";
    config.source = "file:/etc/thruway";
    return config;
}

} // namespace

TEST_CASE("a configuration file sets what it names and leaves the rest")
{
    auto config = read("node: n1\nsource: file:/etc/x\nuplink: [eth0, eth1]\nsock: off\nxdp: native\n"
                       "sizes:\n  flows: 4096\ntimeouts: {icmp: 5}\n");
    REQUIRE(config);
    CHECK(config->node == "n1");
    CHECK(config->uplinks == std::vector<std::string>{"eth0", "eth1"});
    CHECK(config->sock == SockMode::off);
    CHECK(config->xdp == XdpMode::native);
    CHECK(config->sizes.flows == 4096);
    CHECK(config->timeouts.icmp == 5);
    CHECK(config->run_dir == "/run/thruway");
    CHECK(config->sizes.services == Sizes().services);
    CHECK(read(""));
}

TEST_CASE("what a configuration file cannot say is told by its key")
{
    const auto [text, complaint] = GENERATE(table<const char *, const char *>({
        {"nodes: x", "nodes is no setting"},
        {"sizes: {flow: 1}", "sizes.flow is no setting"},
        {"node: [a]", "node: [\"a\"] is of the wrong kind"},
        {"uplink: eth0", "uplink: \"eth0\" is of the wrong kind"},
        {"sizes: {flows: many}", "sizes.flows: must be a whole number, is \"many\""},
        {"sizes: {flows: -1}", "sizes.flows: must be a whole number, is -1"},
        {"sock: pods", "sock: must be off, host or all, is \"pods\""},
        {"xdp: driver", "xdp: must be auto, native or off, is \"driver\""},
        {"- node", "must be a mapping of settings"},
    }));
    auto config = read(text);
    REQUIRE_FALSE(config);
    CHECK(config.error().text() == complaint);
    Config untouched;
    CHECK(read_config("/nowhere.yaml", untouched).error().text() ==
          "cannot read /nowhere.yaml: No such file or directory");
}

TEST_CASE("a configuration that cannot work is refused by its setting")
{
    CHECK(check_config(good()));
    Config config = good();
    config.node.clear();
    CHECK(check_config(config).error().text() == "node: the name of this node is needed (--node)");
    config = good();
    config.source = GENERATE("", "file:", "http://x");
    CHECK(check_config(config).error().text().starts_with("source: must be file:DIR"));
    config = good();
    config.sizes.flows = GENERATE(0U, 1000U, 3000U);
    CHECK(check_config(config).error().text().starts_with("sizes.flows: must be a power of two"));
    config = good();
    config.sizes.nexthops = config.sizes.endpoints;
    CHECK(check_config(config).error().text().starts_with("sizes.nexthops: must be more than sizes.endpoints"));
}
