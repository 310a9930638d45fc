// SPDX-License-Identifier: Apache-2.0
// Services on the packet path: DNAT, the answer's way back, SNAT where it must be, hairpin. Every output byte is
// compared.
#include "tests/datapath/world.h"

#include <catch2/catch_test_macros.hpp>
#include <catch2/generators/catch_generators.hpp>

using namespace thruway;
using namespace thruway::test;

TEST_CASE("a pod reaches a ClusterIP with its backend on the same node, and the answer comes from the ClusterIP")
{
    World world;
    const Scene &s = scenes.at(GENERATE(0U, 1U));
    const bool is_tcp = GENERATE(true, false);
    const PodSpec &client = world.pod(2);
    const PodSpec &server = world.pod(3);
    world.service("web", {s.vip + ":80"}, {s.local_backend + ":8080"}, is_tcp ? Protocol::tcp : Protocol::udp);
    const auto make = is_tcp ? [](const std::string &a, const std::string &b) { return tcp(a, b); } : udp;

    const Packet request = make(s.client + ":40000", s.vip + ":80");
    const Outcome there = world.from_pod(client, request);
    CHECK(there.verdict == verdict_redirect);
    const Packet arrived = World::in_pod(request.with_destination(host(s.local_backend), 8080), server);
    CHECK(there.frame == frame(arrived));

    const Packet answer = arrived.reversed().with_hops(64).with_flags(syn | ack);
    const Outcome back = world.from_pod(server, answer);
    CHECK(back.verdict == verdict_redirect);
    CHECK(back.frame == frame(World::in_pod(answer.with_source(host(s.vip), 80), client)));

    // And so on, in both directions.
    const Packet more = request.with_flags(ack | psh);
    CHECK(world.from_pod(client, more).frame ==
          frame(World::in_pod(more.with_destination(host(s.local_backend), 8080), server)));
    CHECK(world.rows4().size() + world.rows6().size() == 2);
}

TEST_CASE("a pod reaches a ClusterIP with its backend on another node by that node's next hop")
{
    World world;
    const Scene &s = scenes.at(GENERATE(0U, 1U));
    const PodSpec &client = world.pod(2);
    world.service("web", {s.vip + ":80"}, {s.remote_backend + ":8080"});

    const Packet request = tcp(s.client + ":40000", s.vip + ":80");
    const Outcome there = world.from_pod(client, request);
    CHECK(there.verdict == verdict_redirect);
    CHECK(there.mark == TW_MARK_HANDLED);
    const Packet sent = world.on_wire(request.with_destination(host(s.remote_backend), 8080));
    CHECK(there.frame == frame(sent));

    const Packet answer = sent.reversed().with_hops(63).with_flags(syn | ack);
    const Outcome back = world.from_net(answer);
    CHECK(back.verdict == verdict_redirect);
    CHECK(back.frame == frame(World::in_pod(answer.with_source(host(s.vip), 80), client)));
}

TEST_CASE("a NodePort takes a client from outside to a backend on another node and back, seen as this node")
{
    World world;
    const Scene &s = scenes.at(GENERATE(0U, 1U));
    const bool is_tcp = GENERATE(true, false);
    world.service("web", {s.node_port}, {s.remote_backend + ":8080"}, is_tcp ? Protocol::tcp : Protocol::udp);
    const auto make = is_tcp ? [](const std::string &a, const std::string &b) { return tcp(a, b); } : udp;

    const Packet request = make(s.outside + ":50000", s.node + ":30080");
    const Outcome there = world.from_net(request);
    CHECK(there.verdict == verdict_redirect);
    const uint16_t port = source_port_of(there.frame.bytes);
    CHECK(port >= 49152);
    const Packet sent =
        world.on_wire(request.with_source(host(s.node), port).with_destination(host(s.remote_backend), 8080));
    CHECK(there.frame == frame(sent));

    const Packet answer = sent.reversed().with_hops(63).with_flags(syn | ack);
    const Outcome back = world.from_net(answer);
    CHECK(back.verdict == verdict_redirect);
    CHECK(back.frame == frame(world.on_wire(request.reversed().with_hops(63).with_flags(syn | ack))));

    // The next packet of the flow keeps the port.
    const Outcome more = world.from_net(request.with_flags(ack));
    CHECK(source_port_of(more.frame.bytes) == port);
}

TEST_CASE("a NodePort with its backend on this node is delivered to the pod")
{
    World world;
    const Scene &s = scenes.at(GENERATE(0U, 1U));
    const PodSpec &server = world.pod(3);
    world.service("web", {s.node_port}, {s.local_backend + ":8080"});

    const Packet request = tcp(s.outside + ":50000", s.node + ":30080");
    const Outcome there = world.from_net(request);
    CHECK(there.verdict == verdict_redirect);
    const uint16_t port = source_port_of(there.frame.bytes);
    const Packet arrived =
        World::in_pod(request.with_source(host(s.node), port).with_destination(host(s.local_backend), 8080), server);
    CHECK(there.frame == frame(arrived));

    const Packet answer = arrived.reversed().with_hops(64).with_flags(syn | ack);
    const Outcome back = world.from_pod(server, answer);
    CHECK(back.frame == frame(world.on_wire(request.reversed().with_flags(syn | ack))));
}

TEST_CASE("a pod that reaches itself through a service sees the node's address, and its answer comes back")
{
    World world;
    const Scene &s = scenes.at(GENERATE(0U, 1U));
    const PodSpec &pod = world.pod(2);
    world.service("self", {s.vip + ":80"}, {s.client + ":8080"});

    const Packet request = tcp(s.client + ":40000", s.vip + ":80");
    const Outcome there = world.from_pod(pod, request);
    const uint16_t port = source_port_of(there.frame.bytes);
    const Packet arrived =
        World::in_pod(request.with_source(host(s.node), port).with_destination(host(s.client), 8080), pod);
    CHECK(there.verdict == verdict_redirect);
    CHECK(there.frame == frame(arrived));

    const Packet answer = arrived.reversed().with_hops(64).with_flags(syn | ack);
    const Outcome back = world.from_pod(pod, answer);
    CHECK(back.verdict == verdict_redirect);
    CHECK(back.frame == frame(World::in_pod(request.reversed().with_flags(syn | ack), pod)));
}

TEST_CASE("a UDP packet without checksum is translated and stays without")
{
    World world;
    const PodSpec &client = world.pod(2);
    const PodSpec &server = world.pod(3);
    world.service("dns", {"10.96.0.10:53"}, {"10.244.1.3:5353"}, Protocol::udp);

    Packet request = udp("10.244.1.2:40000", "10.96.0.10:53");
    request.udp_checksum = false;
    CHECK(world.from_pod(client, request).frame ==
          frame(World::in_pod(request.with_destination(address("10.244.1.3"), 5353), server)));
}

TEST_CASE("checksums are right for every payload, odd lengths and carries included")
{
    World world;
    const PodSpec &client = world.pod(2);
    const PodSpec &server = world.pod(3);
    world.service("dns", {"10.96.0.10:53"}, {"10.244.1.3:5353"}, Protocol::udp);
    world.service("dns6", {"[fd00:96::10]:53"}, {"[fd00:10:244:1::3]:5353"}, Protocol::udp);
    const bool v6 = GENERATE(false, true);

    for (unsigned i = 0; i < 2000; i++) {
        Packet request =
            v6 ? udp("[fd00:10:244:1::2]:40000", "[fd00:96::10]:53") : udp("10.244.1.2:40000", "10.96.0.10:53");
        request.payload.assign(i % 5, static_cast<char>(i));
        request.payload +=
            fmt::format("{:c}{:c}", static_cast<unsigned char>(i * 37), static_cast<unsigned char>(i / 3));
        const Packet arrived =
            World::in_pod(request.with_destination(address(v6 ? "fd00:10:244:1::3" : "10.244.1.3"), 5353), server);
        REQUIRE(world.from_pod(client, request).frame == frame(arrived));
    }
}

TEST_CASE("a sum of the whole packet that a device has computed follows every change")
{
    World world;
    const Scene &s = scenes.at(GENERATE(0U, 1U));
    const bool is_tcp = GENERATE(true, false);
    const auto make = is_tcp ? [](const std::string &a, const std::string &b) { return tcp(a, b); } : udp;
    const PodSpec &client = world.pod(2);
    const PodSpec &server = world.pod(3);
    world.service("web", {s.vip + ":80"}, {s.local_backend + ":8080"}, is_tcp ? Protocol::tcp : Protocol::udp);

    const Packet request = make(s.client + ":40000", s.vip + ":80");
    const Packet arrived = World::in_pod(request.with_destination(host(s.local_backend), 8080), server);
    CHECK(world.run_summed("from_pod", client.ifindex, request.build()).frame == frame(arrived));
    const Packet answer = arrived.reversed().with_hops(64).with_flags(syn | ack);
    CHECK(world.run_summed("from_pod", server.ifindex, answer.build()).frame ==
          frame(World::in_pod(answer.with_source(host(s.vip), 80), client)));
}

TEST_CASE("a change of backends leaves established connections alone and takes new ones to the new backend")
{
    World world;
    const PodSpec &client = world.pod(2);
    const PodSpec &before = world.pod(3);
    const PodSpec &after = world.pod(4);
    world.service("web", {"10.96.0.1:80"}, {"10.244.1.3:8080"});
    const Packet old = tcp("10.244.1.2:40000", "10.96.0.1:80");
    world.from_pod(client, old);

    world.service("web", {"10.96.0.1:80"}, {"10.244.1.4:8080"});
    const Packet more = old.with_flags(ack);
    CHECK(world.from_pod(client, more).frame ==
          frame(World::in_pod(more.with_destination(address("10.244.1.3"), 8080), before)));
    const Packet fresh = tcp("10.244.1.2:40001", "10.96.0.1:80");
    CHECK(world.from_pod(client, fresh).frame ==
          frame(World::in_pod(fresh.with_destination(address("10.244.1.4"), 8080), after)));
}

TEST_CASE("new connections spread evenly over the backends")
{
    World world;
    const PodSpec &client = world.pod(2);
    world.service("web", {"10.96.0.1:80"}, {"10.244.2.1:80", "10.244.2.2:80", "10.244.2.3:80", "10.244.2.4:80"});
    std::array<unsigned, 4> hits{};

    for (unsigned i = 0; i < 400; i++) {
        const Outcome out = world.from_pod(client, tcp(fmt::format("10.244.1.2:{}", 10'000 + i), "10.96.0.1:80"));
        REQUIRE(out.verdict == verdict_redirect);
        hits.at(out.frame.bytes.at(33) - 1U)++;
    }
    for (const unsigned count : hits)
        CHECK(count > 60); // 100 expected, standard deviation 8.7
}

TEST_CASE("TCP that is not a connection's first packet never chooses a backend")
{
    World world;
    const PodSpec &client = world.pod(2);
    world.service("web", {"10.96.0.1:80", ":30080"}, {"10.244.2.7:8080"});
    const uint8_t flags = GENERATE(ack, syn | ack, rst, fin | ack);

    const Outcome out = world.from_pod(client, tcp("10.244.1.2:40000", "10.96.0.1:80", flags));
    CHECK(out.verdict == (flags == rst ? verdict_next : verdict_redirect)); // answered
    CHECK(world.from_net(tcp("172.21.0.2:50000", "172.20.0.11:30080", flags)).verdict == verdict_next);
    CHECK(world.rows4().empty());
}
