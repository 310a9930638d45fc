// SPDX-License-Identifier: Apache-2.0
#include "agent/planner/nodes.h"

#include <algorithm>
#include <catch2/catch_test_macros.hpp>

using namespace thruway;

namespace {

Node node(const std::string &name, const std::vector<std::string> &addresses, const std::vector<std::string> &cidrs)
{
    Node made;
    made.name = {{}, name};
    for (const std::string &text : addresses)
        made.addresses.push_back(Address::parse(text).value());
    for (const std::string &text : cidrs)
        made.pod_cidrs.push_back(Prefix::parse(text).value());
    return made;
}

std::vector<std::string> lines(const NodeChanges &changes)
{
    std::vector<std::string> all;
    for (const NodeRoute &route : changes.upserts)
        all.push_back(fmt::format("{} by {} ({})", route.prefix.text(), route.node.text(), route.name.text()));
    for (const Prefix &prefix : changes.deletes)
        all.push_back(fmt::format("{} gone", prefix.text()));
    std::ranges::sort(all);
    return all;
}

using Lines = std::vector<std::string>;

} // namespace

TEST_CASE("pods of other nodes are reached by the node's primary address of the same family")
{
    NodePlanner planner(Symbol("me"));
    planner.upsert(node("n2", {"172.20.0.12", "172.30.0.12", "fd20::12"}, {"10.244.2.0/24", "fd00:10:244:2::/64"}));
    CHECK(lines(planner.take_changes()) ==
          Lines{"10.244.2.0/24 by 172.20.0.12 (n2)", "fd00:10:244:2::/64 by fd20::12 (n2)"});
    CHECK(planner.take_changes().empty());
}

TEST_CASE("this node's own pods are here")
{
    NodePlanner planner(Symbol("me"));
    CHECK(planner.self() == nullptr);
    planner.upsert(node("me", {"172.20.0.11"}, {"10.244.1.0/24", "fd00:10:244:1::/64"}));
    CHECK(lines(planner.take_changes()) == Lines{"10.244.1.0/24 by 0.0.0.0 (me)", "fd00:10:244:1::/64 by :: (me)"});
    REQUIRE(planner.self());
    CHECK(planner.self()->addresses.size() == 1);
    CHECK(planner.take_refusals().empty());
}

TEST_CASE("a node that changes its address or CIDR, or goes, changes just that")
{
    NodePlanner planner(Symbol("me"));
    planner.upsert(node("n2", {"172.20.0.12"}, {"10.244.2.0/24", "10.245.2.0/24"}));
    planner.upsert(node("n3", {"172.20.0.13"}, {"10.244.3.0/24"}));
    planner.take_changes();

    planner.upsert(node("n2", {"172.20.0.22"}, {"10.244.2.0/24", "10.246.2.0/24"}));
    CHECK(lines(planner.take_changes()) ==
          Lines{"10.244.2.0/24 by 172.20.0.22 (n2)", "10.245.2.0/24 gone", "10.246.2.0/24 by 172.20.0.22 (n2)"});
    planner.remove({{}, "n3"});
    CHECK(lines(planner.take_changes()) == Lines{"10.244.3.0/24 gone"});
}

TEST_CASE("a CIDR that two nodes claim goes to the first by name, and to the other when that one goes")
{
    NodePlanner planner(Symbol("me"));
    planner.upsert(node("b", {"172.20.0.2"}, {"10.244.2.0/24"}));
    planner.take_changes();
    planner.upsert(node("a", {"172.20.0.1"}, {"10.244.2.0/24"}));
    CHECK(lines(planner.take_changes()) == Lines{"10.244.2.0/24 by 172.20.0.1 (a)"});
    CHECK(planner.take_refusals() == Lines{"Node b: spec.podCIDRs: 10.244.2.0/24 belongs to Node a"});
    planner.remove({{}, "a"});
    CHECK(lines(planner.take_changes()) == Lines{"10.244.2.0/24 by 172.20.0.2 (b)"});
}

TEST_CASE("a CIDR whose node has no address of its family is refused with a reason")
{
    NodePlanner planner(Symbol("me"));
    planner.upsert(node("n2", {"172.20.0.12"}, {"10.244.2.0/24", "fd00:10:244:2::/64"}));
    CHECK(lines(planner.take_changes()) == Lines{"10.244.2.0/24 by 172.20.0.12 (n2)"});
    CHECK(planner.take_refusals() ==
          Lines{"Node n2: spec.podCIDRs: no way to fd00:10:244:2::/64: status.addresses has no IPv6 InternalIP"});
}
