// SPDX-License-Identifier: Apache-2.0
// What the datapath itself says to the sender of a packet that cannot go on. Every output byte is compared.
#include "tests/datapath/world.h"

#include <algorithm>
#include <catch2/catch_test_macros.hpp>
#include <catch2/generators/catch_generators.hpp>
#include <chrono>
#include <sched.h>

using namespace thruway;
using namespace thruway::test;

namespace {

/// The error that the node makes of a packet and sends back by the way that it came.
Packet answer_to(Fault fault, const Scene &scene, const Packet &packet, uint16_t mtu = 0)
{
    return own_error(fault, host(scene.node), packet, mtu);
}

/// Keeps the test on one CPU while it lives.
class OneCpu {
public:
    OneCpu()
    {
        cpu_set_t one;
        CPU_ZERO(&one);
        sched_getaffinity(0, sizeof(all_), &all_);
        CPU_SET(sched_getcpu(), &one);
        sched_setaffinity(0, sizeof(one), &one);
    }
    ~OneCpu() { sched_setaffinity(0, sizeof(all_), &all_); }
    OneCpu(const OneCpu &) = delete;
    OneCpu &operator=(const OneCpu &) = delete;

private:
    cpu_set_t all_{};
};

} // namespace

TEST_CASE("a packet at the end of its hops is dropped, and its sender told")
{
    World world;
    const Scene &s = scenes.at(GENERATE(0U, 1U));
    const size_t size = GENERATE(0U, 1U, 7U, 900U, 1400U);
    const PodSpec &client = world.pod(2);
    world.service("web", {s.vip + ":80", s.node_port}, {s.local_backend + ":8080"});
    world.pod(3);

    // To a pod, translated or not: the quote is what the pod sent.
    const Packet last = tcp(s.client + ":1000", GENERATE_COPY(s.vip, s.local_backend, s.outside) + ":80")
                            .with_payload(size)
                            .with_hops(1);
    const Outcome out = world.from_pod(client, last);
    CHECK(out.verdict == verdict_redirect);
    CHECK(out.mark == TW_MARK_HANDLED);
    CHECK(out.frame == frame(answer_to(Fault::hops_exceeded, s, last)));
    CHECK(world.drops(TW_DROP_HOPS) == 1);

    // To a client outside.
    const Packet outside = udp(s.outside + ":1000", s.client + ":80").with_payload(size).with_hops(1);
    CHECK(world.from_net(outside).frame == frame(answer_to(Fault::hops_exceeded, s, outside)));
    const Packet traced = tcp(s.outside + ":1000", s.node + ":30080").with_payload(size).with_hops(1);
    CHECK(world.from_net(traced).frame == frame(answer_to(Fault::hops_exceeded, s, traced)));
    CHECK(world.drops(TW_DROP_HOPS) == 3);
}

TEST_CASE("a packet that is larger than its next hop's MTU is dropped, and its sender told the MTU")
{
    World world;
    const Scene &s = scenes.at(GENERATE(0U, 1U));
    const size_t headers = s.client.starts_with('[') ? 60 : 40;
    const PodSpec &client = world.pod(2);
    const PodSpec &server = world.pod(3, 1400);
    world.service("web", {s.vip + ":80", s.node_port}, {s.local_backend + ":8080"});

    const Packet fits = tcp(s.client + ":1000", s.vip + ":80").with_payload(1400 - headers);
    CHECK(world.from_pod(client, fits).frame ==
          frame(World::in_pod(fits.with_destination(host(s.local_backend), 8080), server)));
    const Packet large = fits.with_payload(1401 - headers);
    const Outcome out = world.from_pod(client, large);
    CHECK(out.verdict == verdict_redirect);
    CHECK(out.frame == frame(answer_to(Fault::too_big, s, large, 1400)));
    CHECK(world.drops(TW_DROP_TOO_BIG) == 1);

    const Packet outside = tcp(s.outside + ":1000", s.node + ":30080").with_payload(1401 - headers);
    CHECK(world.from_net(outside).frame == frame(answer_to(Fault::too_big, s, outside, 1400)));

    // By an uplink, whose MTU is 1500.
    const Packet away = tcp(s.client + ":1000", s.remote_backend + ":80").with_payload(1501 - headers);
    CHECK(world.from_pod(client, away).frame == frame(answer_to(Fault::too_big, s, away, 1500)));
}

TEST_CASE("of joined segments each is measured by itself")
{
    World world;
    const Scene &s = scenes.at(GENERATE(0U, 1U));
    const size_t headers = s.client.starts_with('[') ? 60 : 40;
    const PodSpec &client = world.pod(2);
    const PodSpec &server = world.pod(3, 1400);
    const Packet joined = tcp(s.client + ":1000", s.local_backend + ":80", ack).with_payload(3000);

    const Outcome fits = world.from_pod(client, joined, static_cast<unsigned>(1400 - headers));
    CHECK(fits.frame == frame(World::in_pod(joined, server)));
    const Outcome large = world.from_pod(client, joined, static_cast<unsigned>(1401 - headers));
    CHECK(large.frame == frame(answer_to(Fault::too_big, s, joined, 1400)));

    const Packet datagrams = udp(s.client + ":1000", s.local_backend + ":80").with_payload(3000);
    CHECK(world.from_pod(client, datagrams, static_cast<unsigned>(1412 - headers)).frame ==
          frame(World::in_pod(datagrams, server)));
    CHECK(world.from_pod(client, datagrams, static_cast<unsigned>(1413 - headers)).frame ==
          frame(answer_to(Fault::too_big, s, datagrams, 1400)));
}

TEST_CASE("a packet that may be fragmented is left to the host stack, translated and marked")
{
    World world;
    const PodSpec &client = world.pod(2);
    world.pod(3, 1400);
    world.service("dns", {"10.96.0.1:53", ":30080"}, {"10.244.1.3:5353"}, Protocol::udp);
    Packet large = udp("10.244.1.2:1000", "10.96.0.1:53").with_payload(1450);
    large.dont_fragment = false;

    const Outcome out = world.from_pod(client, large);
    CHECK(out.verdict == verdict_next);
    CHECK(out.mark == TW_MARK_HANDLED);
    CHECK(out.frame == frame(large.with_destination(address("10.244.1.3"), 5353)));
    CHECK(world.drops(TW_DROP_TOO_BIG) == 0);

    // The stack takes no packet from outside that comes as one of its own: its sender has to do it.
    Packet outside = udp("172.21.0.2:1000", "172.20.0.11:30080").with_payload(1450);
    outside.dont_fragment = false;
    CHECK(world.from_net(outside).frame == frame(answer_to(Fault::too_big, scenes[0], outside, 1400)));
    CHECK(world.drops(TW_DROP_TOO_BIG) == 1);
}

TEST_CASE("no error answers an error")
{
    World world;
    const Scene &s = scenes.at(GENERATE(0U, 1U));
    const PodSpec &pod = world.pod(2);
    const Packet packet = tcp(s.client + ":1000", s.outside + ":443");
    world.from_pod(pod, packet);

    const Packet report = error(Fault::too_big, host(s.router), world.on_wire(packet), 64, 1280).with_hops(1);
    CHECK(world.from_net(report).verdict == verdict_drop);
    CHECK(world.drops(TW_DROP_HOPS) == 1);
}

TEST_CASE("a flood of packets at the end of their hops gets few answers, and every packet is counted")
{
    World world;
    const PodSpec &pod = world.pod(2);
    world.pod(3);
    const Packet packet = udp("10.244.1.2:1000", "10.244.1.3:53").with_hops(1);

    const OneCpu here; // the limit is one of each CPU
    unsigned answers = 0;
    const auto begin = std::chrono::steady_clock::now();
    for (int i = 0; i < 2000; i++)
        answers += world.from_pod(pod, packet).verdict == verdict_redirect;
    const auto windows = (std::chrono::steady_clock::now() - begin) / std::chrono::milliseconds(67) + 2;
    CHECK(answers > 0);
    CHECK(answers <= 64 * windows);
    CHECK(world.drops(TW_DROP_HOPS) == 2000);
}

TEST_CASE("the address of a service answers pings, from pods and from outside, as long as it is one")
{
    World world;
    const Scene &s = scenes.at(GENERATE(0U, 1U));
    const size_t size = GENERATE(0U, 7U, 56U, 1400U);
    const PodSpec &client = world.pod(2);
    world.service("web", {s.vip + ":80", s.vip + ":81"}, {s.remote_backend + ":8080"});

    for (const std::string &asking : {s.client, s.outside}) {
        const Packet request = ping(host(asking).text(), host(s.vip).text(), 7).with_payload(size).with_hops(3);
        const Packet answer = pong(request).with_hops(64).with_macs(request.to, request.from);
        const Outcome out = asking == s.client ? world.from_pod(client, request) : world.from_net(request);
        CHECK(out.verdict == verdict_redirect);
        CHECK(out.mark == TW_MARK_HANDLED);
        CHECK(out.frame == frame(answer));
    }
    CHECK(world.rows4().empty());
    CHECK(world.rows6().empty());

    // Not for who is somebody else, nor in fragments.
    const Packet request = ping(host(s.client).text(), host(s.vip).text(), 7);
    CHECK(world.from_net(request).verdict == verdict_drop);
    CHECK(world.from_pod(client, request.with_payload(100).fragment(0, 64)).verdict == verdict_drop);

    world.service("web", {s.vip + ":81"}, {s.remote_backend + ":8080"});
    CHECK(world.from_pod(client, request).mark == TW_MARK_HANDLED);
    const Frame answered = world.from_pod(client, request).frame;
    CHECK(answered == frame(pong(request).with_macs(request.to, request.from)));
    world.remove_service("web");
    CHECK(world.from_pod(client, request).frame == frame(world.on_wire(request)));
}

TEST_CASE("the answer to a ping of nothing but zeros has the checksum of such, which is not 0")
{
    World world;
    world.service("web", {scenes[0].vip + ":80"}, {scenes[0].remote_backend + ":8080"});
    Packet request = ping(host(scenes[0].client).text(), host(scenes[0].vip).text(), 0).with_payload(0);
    request.icmp_sequence = 0;
    CHECK(world.from_pod(world.pod(2), request).frame == frame(pong(request).with_macs(request.to, request.from)));
}

TEST_CASE("a node's own address answers pings by the host, whatever services are on it")
{
    World world;
    const Scene &s = scenes.at(GENERATE(0U, 1U));
    const PodSpec &client = world.pod(2);
    world.service("web", {s.node + ":80", s.node_port}, {s.remote_backend + ":8080"});
    const Packet request = ping(host(s.outside).text(), host(s.node).text(), 7);
    CHECK(world.from_net(request).verdict == verdict_next);
    CHECK(world.from_net(request).frame == frame(request));
    CHECK(world.from_pod(client, ping(host(s.client).text(), host(s.node).text(), 7)).verdict == verdict_next);
}
