// SPDX-License-Identifier: Apache-2.0
#include "agent/node/node_port_addresses.h"

#include <catch2/catch_test_macros.hpp>

using namespace thruway;

namespace {

std::vector<Address> addresses(const std::vector<std::string> &texts)
{
    std::vector<Address> list;
    for (const std::string &text : texts)
        list.push_back(*Address::parse(text));
    return list;
}

/// Of a node that has these, with 10.0.0.5 and fd00::5 as its primary ones.
std::vector<std::string> meant(const std::vector<std::string> &texts)
{
    const auto own = addresses({"10.0.0.5", "10.0.0.6", "192.168.1.5", "fd00::5", "fd01::5"});
    std::vector<std::string> list;
    for (const Address &address : NodePortAddresses::parse(texts)->among(own, addresses({"10.0.0.5", "fd00::5"})))
        list.push_back(address.text());
    return list;
}

using Texts = std::vector<std::string>;

} // namespace

TEST_CASE("rule 10: NodePorts are on all addresses of the node, on those in some CIDRs, or on the primary ones")
{
    CHECK(meant({}) == Texts{"10.0.0.5", "10.0.0.6", "192.168.1.5", "fd00::5", "fd01::5"});
    CHECK(meant({"10.0.0.0/24", "fd01::/64"}) == Texts{"10.0.0.5", "10.0.0.6", "fd01::5"});
    CHECK(meant({"0.0.0.0/0", "::/0"}) == meant({}));
    CHECK(meant({"172.16.0.0/12", "fd00::/64"}) == Texts{"fd00::5"});
    CHECK(meant({"primary"}) == Texts{"10.0.0.5", "fd00::5"});
    CHECK(meant({"primary", "192.168.0.0/16"}) == Texts{"10.0.0.5", "192.168.1.5", "fd00::5"});
}

TEST_CASE("rule 10: a family that no CIDR is of has all its addresses")
{
    CHECK(meant({"192.168.0.0/16"}) == Texts{"192.168.1.5", "fd00::5", "fd01::5"});
    CHECK(meant({"fd01::/64"}) == Texts{"10.0.0.5", "10.0.0.6", "192.168.1.5", "fd01::5"});
}

TEST_CASE("rule 10: primary addresses that the node does not have are none of its")
{
    const auto primary = NodePortAddresses::parse({"primary"});
    CHECK(primary->among(addresses({"10.0.0.5"}), addresses({"10.9.9.9"})).empty());
    CHECK(primary->needs_primary());
    CHECK_FALSE(NodePortAddresses::parse({"10.0.0.0/8"})->needs_primary());
}

TEST_CASE("a list of node port addresses with anything else in it is refused")
{
    CHECK(NodePortAddresses::parse({"primary", "10.0.0"}).error().text() ==
          "must be \"primary\" or a list of CIDRs, has \"10.0.0\"");
}
