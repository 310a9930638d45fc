// SPDX-License-Identifier: Apache-2.0
// What the host itself dials and no socket has translated: by uplinks to frontends, and by `lo` to its own node ports.
// Every output byte is compared.
#include "tests/datapath/world.h"

#include <catch2/catch_test_macros.hpp>
#include <catch2/generators/catch_generators.hpp>

using namespace thruway;
using namespace thruway::test;

namespace {

/// The device by which the host's stack takes packets from itself.
struct HostDevice {
    static constexpr MacBytes mac{0x02, 0x7e, 0, 0, 0, 0x01};

    explicit HostDevice(World &world) { world.nexthops->set_host({.ifindex = world.uplink.index, .to = mac}); }
};

/// What a packet of `lo` looks like when it is given to the host's stack anew.
Frame given_to_host(const Packet &packet)
{
    return frame(packet.with_macs(packet.from, HostDevice::mac));
}

} // namespace

TEST_CASE("what the host dials is translated on the uplink without losing a hop, and the answer is given to its stack")
{
    World world;
    const Scene s = GENERATE(scenes[0], scenes[1]);
    const bool is_tcp = GENERATE(true, false);
    const auto make = [&](const std::string &from, const std::string &to) {
        return is_tcp ? tcp(from, to) : udp(from, to);
    };
    world.service("web", {s.vip + ":80"}, {s.remote_backend + ":8080"}, is_tcp ? Protocol::tcp : Protocol::udp);

    const Packet request = make(s.node + ":1000", s.vip + ":80").with_hops(1);
    const Outcome out = world.to_net(request);
    CHECK(out.verdict == verdict_redirect);
    CHECK(out.mark == TW_MARK_HANDLED);
    CHECK(
        out.frame ==
        frame(request.with_destination(host(s.remote_backend), 8080).with_macs(world.uplink.mac, world.neighbour_mac)));

    const Packet answer = make(s.remote_backend + ":8080", s.node + ":1000").with_flags(syn | ack);
    const Outcome back = world.from_net(answer);
    CHECK(back.verdict == verdict_next);
    CHECK(back.frame == frame(answer.with_source(host(s.vip), 80)));

    const Packet more = request.with_flags(ack);
    CHECK(world.to_net(more).frame ==
          frame(more.with_destination(host(s.remote_backend), 8080).with_macs(world.uplink.mac, world.neighbour_mac)));
}

TEST_CASE("what the host dials reaches a pod of its own node by the pod's device, past to_pod")
{
    World world;
    const Scene s = GENERATE(scenes[0], scenes[1]);
    const PodSpec &server = world.pod(3);
    world.service("web", {s.vip + ":80"}, {s.local_backend + ":8080"});

    const Packet request = tcp(s.node + ":1000", s.vip + ":80");
    const Outcome out = world.to_net(request);
    CHECK(out.verdict == verdict_redirect);
    const Packet arrived = request.with_destination(host(s.local_backend), 8080).with_macs(server.host_mac, server.mac);
    CHECK(out.frame == frame(arrived));
    CHECK(world.to_pod(server, arrived, out.mark).frame == frame(arrived));

    const Packet answer = tcp(s.local_backend + ":8080", s.node + ":1000", syn | ack);
    const Outcome back = world.from_pod(server, answer);
    CHECK(back.verdict == verdict_next);
    CHECK(back.frame == frame(answer.with_source(host(s.vip), 80)));
}

TEST_CASE("the host reaches its own node port on lo, and the answer from its own address comes by the host's device")
{
    World world;
    const Scene s = GENERATE(scenes[0], scenes[1]);
    const HostDevice device(world);
    world.service("web", {s.node_port}, {s.remote_backend + ":8080"});

    const Packet request = tcp(s.node + ":1000", s.node + ":30080");
    const Outcome out = world.to_lo(request);
    CHECK(out.verdict == verdict_redirect);
    CHECK(
        out.frame ==
        frame(request.with_destination(host(s.remote_backend), 8080).with_macs(world.uplink.mac, world.neighbour_mac)));

    const Packet answer = tcp(s.remote_backend + ":8080", s.node + ":1000", syn | ack);
    const Outcome back = world.from_net(answer);
    CHECK(back.verdict == verdict_redirect);
    CHECK(back.frame == given_to_host(answer.with_source(host(s.node), 30080)));
}

TEST_CASE("a service of the host that the host dials is given to its stack both ways, so that conntrack sees both")
{
    World world;
    const Scene s = GENERATE(scenes[0], scenes[1]);
    const HostDevice device(world);
    world.service("web", {s.node_port, s.vip + ":80"}, {s.node + ":8080"});

    const Packet to_itself = tcp(s.node + ":1000", s.node + ":30080");
    const Outcome out = world.to_lo(to_itself);
    CHECK(out.verdict == verdict_redirect);
    CHECK(out.frame == given_to_host(to_itself.with_destination(host(s.node), 8080)));
    const Packet answer = tcp(s.node + ":8080", s.node + ":1000", syn | ack);
    CHECK(world.to_lo(answer).frame == given_to_host(answer.with_source(host(s.node), 30080)));

    const Packet by_vip = tcp(s.node + ":1001", s.vip + ":80");
    CHECK(world.to_net(by_vip).frame == given_to_host(by_vip.with_destination(host(s.node), 8080)));
    const Packet other = tcp(s.node + ":8080", s.node + ":1001", syn | ack);
    CHECK(world.to_lo(other).frame == given_to_host(other.with_source(host(s.vip), 80)));
}

TEST_CASE("what the host's stack sends and no flow is for passes untouched and leaves no row")
{
    World world;
    world.service("web", {"10.96.0.1:80"}, {"10.244.2.7:8080"});
    world.service("own", {"10.96.0.2:80"}, {"172.20.0.11:8080"});
    const Packet packet = GENERATE(tcp("172.20.0.11:1000", "192.0.2.1:80"),      // no frontend
                                   tcp("172.20.0.11:1000", "10.96.0.1:81", ack), // nor for this
                                   tcp("10.244.2.9:1000", "10.96.0.1:80"),       // forwarded for somebody else
                                   tcp("172.20.0.11:1000", "10.96.0.2:80"),      // itself, and no device for it
                                   tcp("172.20.0.11:1000", "10.244.2.7:8080"));  // a pod, directly

    const Outcome out = world.to_net(packet);
    CHECK(out.verdict == verdict_next);
    CHECK(out.frame == frame(packet));
    CHECK(world.rows4().empty());
}

TEST_CASE("the host's own ping of a service's address is answered to its stack")
{
    World world;
    const Scene s = GENERATE(scenes[0], scenes[1]);
    world.service("web", {s.vip + ":80"}, {s.remote_backend + ":8080"});
    const Packet request = ping(host(s.node).text(), host(s.vip).text(), 7);
    const Outcome out = world.to_net(request);
    CHECK(out.verdict == verdict_redirect);
    CHECK(out.frame == frame(pong(request).with_macs(request.to, request.from)));

    const Packet forwarded = ping(host(s.remote_backend).text(), host(s.vip).text(), 7); // somebody else's
    CHECK(world.to_net(forwarded).verdict == verdict_next);
}

TEST_CASE("rule 31: what the host dials is refused at once if it has no backends")
{
    World world;
    world.service("web", {"10.96.0.1:80"}, {});

    const Packet request = tcp("172.20.0.11:1000", "10.96.0.1:80");
    CHECK(world.to_net(request).frame == frame(reset_for(request, 8)));
    CHECK(world.drops(TW_DROP_NO_BACKEND) == 1);
}

TEST_CASE("rule 31: the host's datagrams to a service without backends are refused to its own stack")
{
    World world;
    const Scene &s = scenes[GENERATE(0, 1)];
    world.service("dns", {s.vip + ":53"}, {}, Protocol::udp);

    const Packet request = udp(s.node + ":1000", s.vip + ":53");
    const Outcome out = world.to_net(request);
    CHECK(out.verdict == verdict_redirect);
    CHECK(out.mark == TW_MARK_HANDLED);
    CHECK(out.frame == frame(own_error(Fault::port_unreachable, request.destination, request)));
}
