// SPDX-License-Identifier: Apache-2.0
// Fragments follow the first one of their packet. Every output byte is compared.
#include "tests/datapath/world.h"

#include <catch2/catch_test_macros.hpp>
#include <catch2/generators/catch_generators.hpp>
#include <vector>

using namespace thruway;
using namespace thruway::test;

namespace {

constexpr size_t step = 1440;

/// A datagram of three fragments.
std::vector<Packet> fragments(const Packet &packet)
{
    const Packet whole = packet.with_payload(3500);
    return {whole.fragment(0, step), whole.fragment(step, step), whole.fragment(2 * step, step)};
}

} // namespace

TEST_CASE("fragments of a pod's request and of the answer go the way of their first one, in any order after it")
{
    World world;
    const Scene &s = scenes.at(GENERATE(0U, 1U));
    const std::vector<size_t> order = GENERATE(std::vector<size_t>{0, 1, 2}, std::vector<size_t>{0, 2, 1});
    const bool local = GENERATE(true, false);
    const PodSpec &client = world.pod(2);
    const PodSpec &server = world.pod(3);
    const Address backend = host(local ? s.local_backend : s.remote_backend);
    world.service("dns", {s.vip + ":53"}, {(local ? s.local_backend : s.remote_backend) + ":5353"}, Protocol::udp);

    const auto request = fragments(udp(s.client + ":40000", s.vip + ":53"));
    for (const size_t i : order) {
        const Packet there = request[i].with_destination(backend, 5353);
        CHECK(world.from_pod(client, request[i]).frame ==
              frame(local ? World::in_pod(there, server) : world.on_wire(there)));
    }
    const auto answer = fragments(udp(s.client + ":40000", s.vip + ":53").with_destination(backend, 5353).reversed());
    for (const size_t i : order) {
        const Outcome out = local ? world.from_pod(server, answer[i]) : world.from_net(answer[i]);
        CHECK(out.frame == frame(World::in_pod(answer[i].with_source(host(s.vip), 53), client)));
    }
    CHECK(world.rows4().size() + world.rows6().size() == 2);
    for (const tw_flow4 &row : world.rows4())
        CHECK(row.head.packets == 3);
}

TEST_CASE("fragments of what a NodePort forwards get the node's address, and those of the answer lose it")
{
    World world;
    const Scene &s = scenes.at(GENERATE(0U, 1U));
    world.service("dns", {s.node_port}, {s.remote_backend + ":5353"}, Protocol::udp);

    const auto request = fragments(udp(s.outside + ":50000", s.node + ":30080"));
    const Outcome first = world.from_net(request[0]);
    const size_t ports = s.client.starts_with('[') ? 14 + 40 + 8 : 14 + 20;
    const auto port = static_cast<uint16_t>(first.frame.bytes.at(ports) << 8 | first.frame.bytes.at(ports + 1));
    for (const Packet &fragment : request)
        CHECK(world.from_net(fragment).frame ==
              frame(world.on_wire(
                  fragment.with_source(host(s.node), port).with_destination(host(s.remote_backend), 5353))));

    const Packet answered = udp(s.remote_backend + ":5353", s.node + ":1").with_destination(host(s.node), port);
    for (const Packet &fragment : fragments(answered))
        CHECK(world.from_net(fragment).frame ==
              frame(world.on_wire(fragment.with_source(host(s.node), 30080).with_destination(host(s.outside), 50000))));
}

TEST_CASE("fragmented pings and untranslated datagrams pass as they are")
{
    World world;
    const Scene &s = scenes.at(GENERATE(0U, 1U));
    const PodSpec &client = world.pod(2);
    const PodSpec &server = world.pod(3);
    const Packet packet = GENERATE_COPY(ping(host(s.client).text(), host(s.local_backend).text(), 7),
                                        udp(s.client + ":1000", s.local_backend + ":2000"));
    for (const Packet &fragment : fragments(packet))
        CHECK(world.from_pod(client, fragment).frame == frame(World::in_pod(fragment, server)));
}

TEST_CASE("fragments before their first one are dropped and counted")
{
    World world;
    const Scene &s = scenes.at(GENERATE(0U, 1U));
    const PodSpec &client = world.pod(2);
    world.pod(3);
    const auto request = fragments(udp(s.client + ":1000", s.local_backend + ":2000"));
    CHECK(world.from_pod(client, request[1]).verdict == verdict_drop);
    CHECK(world.from_pod(client, request[0]).verdict == verdict_redirect);
    CHECK(world.from_pod(client, request[1]).verdict == verdict_redirect);

    // Somebody else's first fragment, and that of another packet, are none of theirs.
    Packet other = request[2];
    other.identification++;
    CHECK(world.from_pod(client, other).verdict == verdict_drop);
    CHECK(world.from_pod(world.pod(4), request[2].with_source(host(s.remote_backend), 1000)).verdict == verdict_drop);
    CHECK(world.from_net(fragments(udp(s.outside + ":1000", s.client + ":2000"))[1]).verdict == verdict_drop);
    CHECK(world.drops(TW_DROP_FRAGMENT) == 4);
}

TEST_CASE("fragments to the host itself pass untouched, in any order")
{
    World world;
    const Scene &s = scenes.at(GENERATE(0U, 1U));
    world.service("dns", {s.node_port}, {s.remote_backend + ":5353"}, Protocol::udp);
    const auto request = fragments(udp(s.outside + ":1000", s.node + ":53"));
    for (const size_t i : {1U, 0U, 2U}) {
        const Outcome out = world.from_net(request[i]);
        CHECK(out.verdict == verdict_next);
        CHECK(out.frame == frame(request[i]));
    }
}

TEST_CASE("what the host sends in fragments passes, and the first one makes the flow")
{
    World world;
    const Scene &s = scenes.at(GENERATE(0U, 1U));
    const PodSpec &pod = world.pod(2);
    for (const Packet &fragment : fragments(udp(s.node + ":1000", s.client + ":2000"))) {
        const Outcome out = world.to_pod(pod, fragment);
        CHECK(out.verdict == verdict_next);
        CHECK(out.frame == frame(fragment));
    }
    CHECK(world.from_pod(pod, udp(s.client + ":2000", s.node + ":1000")).verdict == verdict_next);
}

TEST_CASE("fragments that would overwrite headers, or cut them in two, are dropped")
{
    World world;
    const Scene &s = scenes.at(GENERATE(0U, 1U));
    const PodSpec &client = world.pod(2);
    world.pod(3);
    const Packet whole = tcp(s.client + ":1000", s.local_backend + ":80").with_payload(100);

    CHECK(world.from_pod(client, whole.fragment(0, 16)).verdict == verdict_drop); // TCP has 20
    CHECK(world.drops(TW_DROP_MALFORMED) == 1);
    CHECK(world.from_pod(client, whole.fragment(0, 24)).verdict == verdict_redirect);
    CHECK(world.from_pod(client, whole.fragment(8, 32)).verdict == verdict_drop);
    CHECK(world.from_pod(client, whole.fragment(16, 32)).verdict == verdict_drop);
    CHECK(world.drops(TW_DROP_BAD_FRAGMENT) == 2);
    CHECK(world.from_pod(client, whole.fragment(24, 200)).verdict == verdict_redirect);
}

TEST_CASE("a first fragment is forgotten after half a minute")
{
    World world;
    const PodSpec &client = world.pod(2);
    world.pod(3);
    const auto request = fragments(udp("10.244.1.2:1000", "10.244.1.3:2000"));
    world.from_pod(client, request[0]);
    for (uint32_t i = 0; i < TW_FRAGMENTS; i++)
        world.arrays.fragments[i].seen = static_cast<uint16_t>(world.arrays.fragments[i].seen - 8);
    CHECK(world.from_pod(client, request[1]).verdict == verdict_drop);
    CHECK(world.drops(TW_DROP_FRAGMENT) == 1);
}

TEST_CASE("a flood of first fragments without the rest costs others nothing but a row now and then")
{
    World world;
    const PodSpec &client = world.pod(2);
    world.pod(3);
    Packet first = udp("10.244.1.2:1000", "10.244.1.3:2000").with_payload(100).fragment(0, 64);
    for (unsigned i = 0; i < 12'000; i++) {
        first.identification = i;
        world.from_pod(client, first);
    }
    unsigned passed = 0;
    for (unsigned i = 0; i < 100; i++) {
        auto request = fragments(udp("10.244.1.2:1001", "10.244.1.3:2000"));
        for (Packet &fragment : request) {
            fragment.identification = 20'000 + i;
            passed += world.from_pod(client, fragment).verdict == verdict_redirect;
        }
    }
    CHECK(passed == 300);
}

TEST_CASE("an IPv6 packet that is all of its fragments is a packet as any other")
{
    World world;
    const PodSpec &client = world.pod(2);
    const PodSpec &server = world.pod(3);
    world.service("dns", {"[fd00:96::1]:53"}, {"[fd00:10:244:1::3]:5353"}, Protocol::udp);
    const Packet request = udp("[fd00:10:244:1::2]:40000", "[fd00:96::1]:53").fragment(0, 1000);

    CHECK(world.from_pod(client, request).frame ==
          frame(World::in_pod(request.with_destination(address("fd00:10:244:1::3"), 5353), server)));
}
