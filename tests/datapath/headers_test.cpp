// SPDX-License-Identifier: Apache-2.0
// Packets with more or other headers than most: options, extensions, tags, checksums of their own kind. Every output
// byte is compared.
#include "tests/datapath/world.h"

#include <catch2/catch_get_random_seed.hpp>
#include <catch2/catch_test_macros.hpp>
#include <catch2/generators/catch_generators.hpp>
#include <netinet/in.h>
#include <random>

using namespace thruway;
using namespace thruway::test;

namespace {

/// An extension header of 8 bytes: its kind, padding in it.
std::pair<uint8_t, Bytes> extension(int kind)
{
    return {static_cast<uint8_t>(kind), Bytes{0, 0, 1, 4, 0, 0, 0, 0}};
}

/// A routing header, with stations ahead or without.
std::pair<uint8_t, Bytes> routing(uint8_t segments_left)
{
    return {uint8_t{IPPROTO_ROUTING}, Bytes{0, 0, 4, segments_left, 0, 0, 0, 0}};
}

Bytes tagged(const Packet &packet, uint16_t protocol)
{
    Bytes bytes = packet.build();
    const Bytes tag{static_cast<uint8_t>(protocol >> 8), static_cast<uint8_t>(protocol), 0, 7};
    bytes.insert(bytes.begin() + 12, tag.begin(), tag.end());
    return bytes;
}

} // namespace

TEST_CASE("IPv4 options and IPv6 extension headers are carried through a translation")
{
    World world;
    const Scene &s = scenes.at(GENERATE(0U, 1U));
    const unsigned kind = GENERATE(0U, 1U, 2U);
    const bool is_tcp = GENERATE(true, false);
    const PodSpec &client = world.pod(2);
    const PodSpec &server = world.pod(3);
    world.service("web", {s.vip + ":80", s.node_port}, {s.local_backend + ":8080"},
                  is_tcp ? Protocol::tcp : Protocol::udp);
    const auto with = [&](Packet packet) {
        // Router alert (RFC 2113); the longest there are; a timestamp.
        const Bytes options[] = {{148, 4, 0, 0}, Bytes(40, 1), {68, 12, 5, 0, 0, 0, 0, 0, 0, 0, 0, 0}};
        const std::vector<std::pair<uint8_t, Bytes>> extensions[] = {
            {extension(IPPROTO_HOPOPTS)},
            {extension(IPPROTO_HOPOPTS), extension(IPPROTO_DSTOPTS), routing(0), extension(IPPROTO_DSTOPTS)},
            {extension(IPPROTO_DSTOPTS)}};
        packet.options = options[kind];
        packet.extensions = extensions[kind];
        return packet;
    };

    const Packet request =
        with(is_tcp ? tcp(s.client + ":40000", s.vip + ":80") : udp(s.client + ":40000", s.vip + ":80"));
    const Packet arrived = World::in_pod(request.with_destination(host(s.local_backend), 8080), server);
    CHECK(world.from_pod(client, request).frame == frame(arrived));
    const Packet answer = arrived.reversed().with_hops(64).with_flags(syn | ack);
    CHECK(world.from_pod(server, answer).frame == frame(World::in_pod(answer.with_source(host(s.vip), 80), client)));

    // An error about one is found and translated all the same.
    CHECK(world.from_pod(server, error(Fault::port_unreachable, arrived.destination, arrived, 200)).frame ==
          frame(World::in_pod(error(Fault::port_unreachable, host(s.vip), request.with_hops(63), 200), client)));
}

TEST_CASE("a packet with stations ahead is not for us to forward")
{
    World world;
    const PodSpec &client = world.pod(2);
    Packet packet = tcp("[fd00:10:244:1::2]:1000", "[fd00:10:244:2::9]:80");
    packet.extensions = {routing(1)};
    CHECK(world.from_pod(client, packet).verdict == verdict_drop);
    CHECK(world.drops(TW_DROP_UNKNOWN_PROTOCOL) == 1);
    packet.source = address("2001:db8::1");
    packet.destination = address("fd00:10:244:1::2");
    CHECK(world.from_net(packet).verdict == verdict_next);
}

TEST_CASE("extension headers without end, or cut short anywhere, are dropped")
{
    World world;
    const PodSpec &client = world.pod(2);
    Packet packet = tcp("[fd00:10:244:1::2]:1000", "[fd00:10:244:2::9]:80");
    packet.extensions.assign(7, extension(IPPROTO_DSTOPTS));
    CHECK(world.from_pod(client, packet).verdict == verdict_drop);
    packet.extensions.resize(3);
    const Bytes whole = packet.build();
    const size_t headers = 14 + 40 + 3 * 8 + 20;
    for (size_t length = 14 + 40; length < headers; length++) {
        const Bytes cut(whole.begin(), whole.begin() + static_cast<ptrdiff_t>(length));
        REQUIRE(world.from_pod(client, cut).verdict == verdict_drop);
    }
    CHECK(world.drops(TW_DROP_MALFORMED) == 1 + headers - 14 - 40);
    CHECK(world.rows6().empty());
}

TEST_CASE("a UDP packet over IPv6 without checksum stays without: who gets it may judge")
{
    World world;
    const PodSpec &client = world.pod(2);
    const PodSpec &server = world.pod(3);
    world.service("dns", {"[fd00:96::1]:53"}, {"[fd00:10:244:1::3]:5353"}, Protocol::udp);
    Packet request = udp("[fd00:10:244:1::2]:40000", "[fd00:96::1]:53");
    request.udp_checksum = false;
    CHECK(world.from_pod(client, request).frame ==
          frame(World::in_pod(request.with_destination(address("fd00:10:244:1::3"), 5353), server)));
}

TEST_CASE("tagged frames belong to VLAN devices: they pass an uplink untouched, and pods send none")
{
    World world;
    const PodSpec &client = world.pod(2);
    world.service("web", {":30080"}, {"10.244.2.7:8080"});
    const uint16_t protocol = GENERATE(uint16_t{0x8100}, uint16_t{0x88a8});

    const Bytes outside = tagged(tcp("172.21.0.2:1000", "172.20.0.11:30080"), protocol);
    const Outcome out = world.from_net(outside);
    CHECK(out.verdict == verdict_next);
    CHECK(out.frame == Frame{outside});
    CHECK(world.from_pod(client, tagged(tcp("10.244.1.2:1000", "10.244.2.9:80"), protocol)).verdict == verdict_drop);
    CHECK(world.drops(TW_DROP_VLAN) == 1);
}

TEST_CASE("SCTP has its CRC corrected for new ports, whatever its length")
{
    World world;
    const Scene &s = scenes.at(GENERATE(0U, 1U));
    const PodSpec &client = world.pod(2);
    const PodSpec &server = world.pod(3);
    world.service("sigtran", {s.vip + ":2905"}, {s.local_backend + ":12905"}, Protocol::sctp);
    std::mt19937 random(Catch::getSeed());

    for (size_t size = 0; size < 1400; size += 1 + size / 8) {
        Packet request = sctp(fmt::format("{}:{}", s.client, 1024 + random() % 60'000), s.vip + ":2905");
        for (size_t i = 0; i < size; i++)
            request.payload += static_cast<char>(random());
        const Packet arrived = World::in_pod(request.with_destination(host(s.local_backend), 12905), server);
        REQUIRE(world.from_pod(client, request).frame == frame(arrived));
        const Packet answer = arrived.reversed().with_hops(64);
        REQUIRE(world.from_pod(server, answer).frame ==
                frame(World::in_pod(answer.with_source(host(s.vip), 2905), client)));
    }
}

TEST_CASE("an SCTP checksum that nobody has computed yet stays 0")
{
    World world;
    const PodSpec &client = world.pod(2);
    const PodSpec &server = world.pod(3);
    world.service("sigtran", {"10.96.0.1:2905"}, {"10.244.1.3:12905"}, Protocol::sctp);
    const Packet request = sctp("10.244.1.2:1000", "10.96.0.1:2905");
    const auto without = [](const Packet &packet) {
        Bytes bytes = packet.build();
        std::fill_n(bytes.begin() + 14 + 20 + 8, 4, uint8_t{0});
        return bytes;
    };
    CHECK(world.from_pod(client, without(request)).frame ==
          Frame{without(World::in_pod(request.with_destination(address("10.244.1.3"), 12905), server))});
}

TEST_CASE("an IPv6 packet with an IPv4-mapped address is malformed, and taken for no IPv4 packet")
{
    World world;
    const PodSpec &client = world.pod(2);
    world.pod(3);
    Bytes packet = tcp("[fd00:10:244:1::2]:1000", "[fd00:10:244:1::3]:80").build();
    const Bytes mapped{0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff, 10, 244, 1, 2};
    const bool source = GENERATE(true, false);

    std::ranges::copy(mapped, packet.begin() + 14 + (source ? 8 : 24));
    CHECK(world.from_pod(client, packet).verdict == verdict_drop);
    CHECK(world.from_net(packet).verdict == verdict_drop);
    CHECK(world.drops(TW_DROP_MALFORMED) == 2);
}
