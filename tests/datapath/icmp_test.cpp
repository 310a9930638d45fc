// SPDX-License-Identifier: Apache-2.0
// ICMP errors that others send, on their way through the translations. Every output byte is compared.
#include "tests/datapath/world.h"

#include <catch2/catch_test_macros.hpp>
#include <catch2/generators/catch_generators.hpp>

using namespace thruway;
using namespace thruway::test;

namespace {

Packet request_of(const std::string &client, const std::string &server, bool is_tcp)
{
    return is_tcp ? tcp(client, server) : udp(client, server);
}

Fault any_fault()
{
    return GENERATE(Fault::port_unreachable, Fault::too_big, Fault::hops_exceeded, Fault::parameter);
}

/// Of a quote: the least that must be there (RFC 792: 8 bytes of transport), and one that has a TCP checksum, too.
size_t any_size(const Scene &scene)
{
    return GENERATE(8U, 40U) + (scene.client.starts_with('[') ? 40U : 20U);
}

/// The first packet of a connection to a service with its backend on another node, as it was and as it left.
struct Dialled {
    Packet request;
    Packet sent;
};

Dialled dialled(World &world, const Scene &s, const PodSpec &client)
{
    world.service("web", {s.vip + ":80"}, {s.remote_backend + ":8080"});
    const Packet request = tcp(s.client + ":40000", s.vip + ":80");
    const Packet sent = world.on_wire(request.with_destination(host(s.remote_backend), 8080));
    REQUIRE(world.from_pod(client, request).frame == frame(sent));
    return {request, sent};
}

} // namespace

TEST_CASE("a router's error about a pod's packet to a service's backend comes as one about the service")
{
    World world;
    const Scene &s = scenes.at(GENERATE(0U, 1U));
    const bool is_tcp = GENERATE(true, false);
    const Fault fault = any_fault();
    const size_t size = any_size(s);
    const PodSpec &client = world.pod(2);
    world.service("web", {s.vip + ":80"}, {s.remote_backend + ":8080"}, is_tcp ? Protocol::tcp : Protocol::udp);

    const Packet request = request_of(s.client + ":40000", s.vip + ":80", is_tcp);
    const Packet sent = world.on_wire(request.with_destination(host(s.remote_backend), 8080));
    REQUIRE(world.from_pod(client, request).frame == frame(sent));

    const Outcome out = world.from_net(error(fault, host(s.router), sent, size, 1280));
    CHECK(out.verdict == verdict_redirect);
    CHECK(out.frame == frame(World::in_pod(error(fault, host(s.router), request.with_hops(63), size, 1280), client)));
    // That of the backend's own node or pod is one of the service, as far as the client can know.
    CHECK(world.from_net(error(fault, sent.destination, sent, size, 1280)).frame ==
          frame(World::in_pod(error(fault, host(s.vip), request.with_hops(63), size, 1280), client)));
}

TEST_CASE("errors about what a NodePort forwards reach the client, and those about the answers the backend")
{
    World world;
    const Scene &s = scenes.at(GENERATE(0U, 1U));
    const bool is_tcp = GENERATE(true, false);
    const Fault fault = any_fault();
    const size_t size = any_size(s);
    world.service("web", {s.node_port}, {s.remote_backend + ":8080"}, is_tcp ? Protocol::tcp : Protocol::udp);

    const Packet request = request_of(s.outside + ":50000", s.node + ":30080", is_tcp);
    const uint16_t port = source_port_of(world.from_net(request).frame.bytes);
    const Packet sent =
        world.on_wire(request.with_source(host(s.node), port).with_destination(host(s.remote_backend), 8080));
    for (const Address &who : {host(s.router), sent.destination}) // leaves this node, so it comes from this node
        CHECK(world.from_net(error(fault, who, sent, size, 1280)).frame ==
              frame(world.on_wire(error(fault, host(s.node), request.with_hops(63), size, 1280))));

    const Packet answer = sent.reversed().with_hops(63).with_flags(syn | ack);
    const Packet returned = world.on_wire(request.reversed().with_hops(63).with_flags(syn | ack));
    REQUIRE(world.from_net(answer).frame == frame(returned));
    for (const Address &who : {host(s.router), host(s.outside)})
        CHECK(world.from_net(error(fault, who, returned, size, 1280)).frame ==
              frame(world.on_wire(error(fault, host(s.node), answer.with_hops(62), size, 1280))));
}

TEST_CASE("a backend's own error about a request comes from the address that the client dialled")
{
    World world;
    const Scene &s = scenes.at(GENERATE(0U, 1U));
    const size_t size = any_size(s);
    const PodSpec &client = world.pod(2);
    const PodSpec &server = world.pod(3);
    world.service("dns", {s.vip + ":53", s.node_port}, {s.local_backend + ":5353"}, Protocol::udp);

    const Packet request = udp(s.client + ":40000", s.vip + ":53");
    const Packet arrived = World::in_pod(request.with_destination(host(s.local_backend), 5353), server);
    REQUIRE(world.from_pod(client, request).frame == frame(arrived));
    CHECK(world.from_pod(server, error(Fault::port_unreachable, arrived.destination, arrived, size)).frame ==
          frame(World::in_pod(error(Fault::port_unreachable, host(s.vip), request.with_hops(63), size), client)));

    const Packet outside = udp(s.outside + ":50000", s.node + ":30080");
    const uint16_t port = source_port_of(world.from_net(outside).frame.bytes);
    const Packet inside =
        World::in_pod(outside.with_source(host(s.node), port).with_destination(host(s.local_backend), 5353), server);
    CHECK(world.from_pod(server, error(Fault::port_unreachable, inside.destination, inside, size)).frame ==
          frame(world.on_wire(error(Fault::port_unreachable, host(s.node), outside.with_hops(63), size))));
}

TEST_CASE("what follows an error in its frame belongs to no packet, and stays as it is")
{
    World world;
    const Scene &s = scenes.at(GENERATE(0U, 1U));
    const PodSpec &client = world.pod(2);
    const auto [request, sent] = dialled(world, s, client);

    const size_t quoted = (s.vip.starts_with('[') ? 40U : 20U) + 8U; // up to the checksum and no further
    const std::string trailer(40, 'x');
    Bytes padded = error(Fault::hops_exceeded, host(s.router), sent, quoted).build();
    padded.insert(padded.end(), trailer.begin(), trailer.end());
    Bytes expected =
        World::in_pod(error(Fault::hops_exceeded, host(s.router), request.with_hops(63), quoted), client).build();
    expected.insert(expected.end(), trailer.begin(), trailer.end());
    CHECK(world.from_net(padded).frame.bytes == expected);
}

TEST_CASE("a pod's error about a packet of its own that came by a service comes back to it")
{
    World world;
    const Scene &s = scenes.at(GENERATE(0U, 1U));
    const PodSpec &pod = world.pod(2);
    world.service("self", {s.vip + ":53"}, {s.client + ":5353"}, Protocol::udp);

    const Packet request = udp(s.client + ":40000", s.vip + ":53");
    const uint16_t port = source_port_of(world.from_pod(pod, request).frame.bytes);
    const Packet arrived =
        World::in_pod(request.with_source(host(s.node), port).with_destination(host(s.client), 5353), pod);
    CHECK(world.from_pod(pod, error(Fault::port_unreachable, arrived.destination, arrived)).frame ==
          frame(World::in_pod(error(Fault::port_unreachable, host(s.vip), request.with_hops(63)), pod)));
}

TEST_CASE("errors about packets that nobody translates pass as they are, pings included")
{
    World world;
    const Scene &s = scenes.at(GENERATE(0U, 1U));
    const PodSpec &pod = world.pod(2);
    const Packet packet =
        GENERATE_COPY(tcp(s.client + ":1000", s.outside + ":443"), udp(s.client + ":1000", s.remote_backend + ":53"),
                      ping(host(s.client).text(), host(s.outside).text(), 7));

    const Packet sent = world.on_wire(packet);
    REQUIRE(world.from_pod(pod, packet).frame == frame(sent));
    const Packet report = error(Fault::hops_exceeded, host(s.router), sent);
    CHECK(world.from_net(report).frame == frame(World::in_pod(report, pod)));
}

TEST_CASE("an error about a packet without UDP checksum leaves it without")
{
    World world;
    const PodSpec &client = world.pod(2);
    world.service("dns", {"10.96.0.1:53"}, {"10.244.2.7:5353"}, Protocol::udp);

    Packet request = udp("10.244.1.2:40000", "10.96.0.1:53");
    request.udp_checksum = false;
    const Packet sent = world.on_wire(request.with_destination(address("10.244.2.7"), 5353));
    REQUIRE(world.from_pod(client, request).frame == frame(sent));
    CHECK(world.from_net(error(Fault::too_big, address("192.0.2.254"), sent, 64, 1280)).frame ==
          frame(World::in_pod(error(Fault::too_big, address("192.0.2.254"), request.with_hops(63), 64, 1280), client)));
}

TEST_CASE("the host stack's error about what it was given translated is translated back")
{
    World world;
    const Scene &s = scenes.at(GENERATE(0U, 1U));
    const PodSpec &client = world.pod(2);
    // The host's own backend: requests go to the stack.
    world.service("own", {s.vip + ":53", s.node_port}, {s.node + ":5353"}, Protocol::udp);

    const Packet request = udp(s.client + ":40000", s.vip + ":53");
    const Packet arrived = request.with_destination(host(s.node), 5353);
    REQUIRE(world.from_pod(client, request).frame == frame(arrived));
    const Outcome inside = world.to_pod(client, error(Fault::port_unreachable, host(s.node), arrived));
    CHECK(inside.verdict == verdict_next);
    CHECK(inside.frame == frame(error(Fault::port_unreachable, host(s.vip), request)));

    const Packet outside = udp(s.outside + ":50000", s.node + ":30080");
    const Packet given = outside.with_destination(host(s.node), 5353);
    REQUIRE(world.from_net(outside).frame == frame(given));
    const Outcome away = world.to_net(error(Fault::port_unreachable, host(s.node), given));
    CHECK(away.verdict == verdict_next);
    CHECK(away.frame == frame(error(Fault::port_unreachable, host(s.node), outside)));

    // Whatever else the host says of its own accord is its own.
    const Packet own = error(Fault::port_unreachable, host(s.node), udp(s.outside + ":1", s.node + ":2"));
    CHECK(world.to_net(own).frame == frame(own));
}

TEST_CASE("errors that nobody has asked for are dropped by a reason of their own")
{
    World world;
    const Scene &s = scenes.at(GENERATE(0U, 1U));
    const PodSpec &client = world.pod(2);
    const PodSpec &other = world.pod(3);
    const auto [request, sent] = dialled(world, s, client);

    Packet misdirected = error(Fault::too_big, host(s.router), sent);
    misdirected.destination = host(s.local_backend);
    const Packet unknown = error(Fault::too_big, host(s.router), sent.with_source(sent.source, 40001));
    CHECK(world.from_net(misdirected).verdict == verdict_drop);
    CHECK(world.from_net(unknown).verdict == verdict_drop);
    // A pod that is no end of the flow, and has seen nothing of it.
    CHECK(world.from_pod(other, error(Fault::too_big, host(s.local_backend), sent)).verdict == verdict_drop);
    CHECK(world.from_pod(other, error(Fault::too_big, host(s.local_backend), request)).verdict == verdict_drop);
    CHECK(world.drops(TW_DROP_UNSOLICITED_ERROR) == 4);
    // Nor does an error from outside concern what stayed on this node.
    const Packet inside = tcp(s.client + ":40000", s.local_backend + ":80");
    REQUIRE(world.from_pod(client, inside).verdict == verdict_redirect);
    CHECK(world.from_net(error(Fault::too_big, host(s.router), inside)).verdict == verdict_drop);
    CHECK(world.drops(TW_DROP_UNSOLICITED_ERROR) == 5);
    // And none comes in by an uplink with an address of this node's.
    CHECK(world.from_net(error(Fault::too_big, host(s.local_backend), sent)).verdict == verdict_drop);
    CHECK(world.drops(TW_DROP_SPOOFED_SOURCE) == 1);
    CHECK(world.from_pod(other, error(Fault::too_big, host(s.client), sent)).verdict == verdict_drop);
    CHECK(world.drops(TW_DROP_BAD_SOURCE) == 1);
}

TEST_CASE("errors about the host's own packets pass untouched")
{
    World world;
    const Scene &s = scenes.at(GENERATE(0U, 1U));
    const Packet report = error(Fault::too_big, host(s.router), tcp(s.node + ":1000", s.outside + ":443"), 64, 1280);

    const Outcome out = world.from_net(report);
    CHECK(out.verdict == verdict_next);
    CHECK(out.frame == frame(report));
}

TEST_CASE("an error whose quote is cut short anywhere is dropped, and its translation never reads beyond")
{
    World world;
    const Scene &s = scenes.at(GENERATE(0U, 1U));
    const PodSpec &client = world.pod(2);
    const auto [request, sent] = dialled(world, s, client);

    const size_t least = (s.client.starts_with('[') ? 40U : 20U) + 8;
    for (size_t size = 0; size < least + 32; size++) {
        const Outcome out = world.from_net(error(Fault::too_big, host(s.router), sent, size, 1280));
        REQUIRE(out.verdict == (size < least ? verdict_drop : verdict_redirect));
        if (size >= least && size != least + 9) // where half of the TCP checksum is there, which is then left as it is
            REQUIRE(
                out.frame ==
                frame(World::in_pod(error(Fault::too_big, host(s.router), request.with_hops(63), size, 1280), client)));
    }
    CHECK(world.drops(TW_DROP_UNSOLICITED_ERROR) == least);
}

TEST_CASE("errors neither count in a flow nor keep it alive")
{
    World world;
    const PodSpec &pod = world.pod(2);
    const Packet packet = udp("10.244.1.2:1000", "172.21.0.2:53");
    world.from_pod(pod, packet);

    world.from_net(error(Fault::port_unreachable, address("172.21.0.2"), world.on_wire(packet)));
    for (const tw_flow4 &row : world.rows4()) {
        CHECK(row.head.packets == (row.head.flags & TW_FLOW_REPLY ? 0 : 1));
        CHECK((row.head.word & TW_FLOW_STATE) == TW_FLOW_ONE_WAY);
    }
}
