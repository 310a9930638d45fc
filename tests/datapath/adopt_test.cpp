// SPDX-License-Identifier: Apache-2.0
// Connections that were there before the programs: the host's stack goes on with them, both ways.
#include "tests/datapath/world.h"

#include <catch2/catch_test_macros.hpp>
#include <catch2/generators/catch_generators.hpp>

using namespace thruway;
using namespace thruway::test;

namespace {

void adopting(DatapathOptions &options)
{
    options.timeouts.adopt = 3600;
}

/// The program has left the packet to the stack as it was.
void check_left(const Outcome &out, const Packet &packet)
{
    CHECK(out.verdict == verdict_next);
    CHECK(out.frame == frame(packet));
}

} // namespace

TEST_CASE("a connection between pods that was there before goes through the stack on all of its hooks")
{
    World world(adopting);
    const PodSpec &pod = world.pod(2);
    const bool v6 = GENERATE(false, true);
    const Packet there = v6 ? tcp("[fd00:10:244:1::2]:1000", "[fd00:10:244:2::9]:80", ack)
                            : tcp("10.244.1.2:1000", "10.244.2.9:80", ack);
    const Packet back = there.reversed();

    // Whichever side speaks first.
    if (GENERATE(true, false)) {
        check_left(world.from_net(back), back);
        check_left(world.to_pod(pod, back), back);
    }
    for (int i = 0; i < 2; i++) {
        check_left(world.from_pod(pod, there), there);
        check_left(world.to_net(there), there);
        check_left(world.from_net(back), back);
        check_left(world.to_pod(pod, back), back);
    }
    CHECK(world.drops(TW_DROP_BAD_SOURCE) + world.drops(TW_DROP_SPOOFED_SOURCE) == 0);
}

TEST_CASE("a connection to a former proxy's service goes through the stack, translated there or not")
{
    World world(adopting);
    const PodSpec &pod = world.pod(2);
    world.service("web", {"10.96.0.1:80"}, {"10.244.2.9:8080"});
    const Packet dialled = tcp("10.244.1.2:1000", "10.96.0.1:80", ack);
    const Packet translated = tcp("10.244.1.2:1000", "10.244.2.9:8080", ack);

    // Whichever side speaks first.
    if (GENERATE(true, false)) {
        check_left(world.from_net(translated.reversed()), translated.reversed());
        check_left(world.to_pod(pod, dialled.reversed()), dialled.reversed());
    }
    for (int i = 0; i < 2; i++) {
        check_left(world.from_pod(pod, dialled), dialled);
        check_left(world.to_net(translated), translated);
        check_left(world.from_net(translated.reversed()), translated.reversed());
        check_left(world.to_pod(pod, dialled.reversed()), dialled.reversed());
    }
}

TEST_CASE("new connections are ours from the first packet on, in the time of adoption, too")
{
    World world(adopting);
    const PodSpec &pod = world.pod(2);
    world.service("web", {"10.96.0.1:80"}, {"10.244.2.9:8080"});

    const Packet request = tcp("10.244.1.2:1000", "10.96.0.1:80");
    CHECK(world.from_pod(pod, request).frame ==
          frame(world.on_wire(request.with_destination(address("10.244.2.9"), 8080))));
    const Packet answer = tcp("10.244.2.9:8080", "10.244.1.2:1000", syn | ack);
    CHECK(world.from_net(answer).frame == frame(World::in_pod(answer.with_source(address("10.96.0.1"), 80), pod)));
}

TEST_CASE("nobody gets past the source checks by a connection that the stack carries")
{
    World world(adopting);
    const PodSpec &a = world.pod(2);
    const PodSpec &b = world.pod(3);
    const Packet there = tcp("10.244.1.2:1000", "10.244.2.9:80", ack);
    check_left(world.from_pod(a, there), there);
    check_left(world.to_net(there), there);

    CHECK(world.from_pod(b, there).verdict == verdict_drop);
    CHECK(world.drops(TW_DROP_BAD_SOURCE) == 1);
    CHECK(world.from_net(there).verdict == verdict_drop);
    CHECK(world.drops(TW_DROP_SPOOFED_SOURCE) == 1);
}

TEST_CASE("after the time of adoption a connection under way is opened like a new one")
{
    World world;
    const PodSpec &pod = world.pod(2);
    const Packet there = tcp("10.244.1.2:1000", "10.244.2.9:80", ack);

    CHECK(world.from_pod(pod, there).frame == frame(world.on_wire(there)));
    CHECK(world.from_net(there.reversed()).frame == frame(World::in_pod(there.reversed(), pod)));
}

TEST_CASE("until a fresh datapath's tables are filled, every new flow is the stack's")
{
    World world;
    const PodSpec &pod = world.pod(2);
    world.service("web", {"10.96.0.1:80", "172.20.0.11:30080"}, {"10.244.2.9:8080"});
    const std::vector<Packet> from_outside{tcp("10.245.0.1:1000", "172.20.0.11:30080"),
                                           tcp("10.245.0.1:1000", "10.244.1.2:80"),
                                           tcp("10.245.0.1:1000", "10.244.1.77:80")}; // no pod has this address
    const std::vector<Packet> from_inside{tcp("10.244.1.2:1000", "10.96.0.1:80"),
                                          tcp("10.244.1.66:1000", "10.244.2.9:8080")}; // not known yet, perhaps
    world.arrays.layout[0].carries = 0;
    for (const Packet &packet : from_outside)
        check_left(world.from_net(packet), packet);
    for (const Packet &packet : from_inside)
        check_left(world.from_pod(pod, packet), packet);
    check_left(world.to_pod(pod, from_outside.at(1)), from_outside.at(1));
    CHECK(world.rows4().empty());

    world.datapath->commit();
    CHECK(world.from_net(from_outside.at(0)).verdict == verdict_redirect);
    CHECK(world.from_pod(pod, from_inside.at(0)).verdict == verdict_redirect);
    CHECK(world.from_pod(pod, from_inside.at(1)).verdict == verdict_drop);
}
