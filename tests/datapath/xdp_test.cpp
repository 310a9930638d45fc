// SPDX-License-Identifier: Apache-2.0
// XDP on an uplink: what it carries itself, byte for byte as tc would; what it leaves to tc, untouched; and flows that
// are half in one and half in the other.
#include "tests/datapath/world.h"

#include <algorithm>
#include <array>
#include <bpf/bpf.h>
#include <bpf/libbpf.h>
#include <catch2/catch_test_macros.hpp>
#include <catch2/generators/catch_generators.hpp>
#include <functional>
#include <linux/bpf.h>
#include <linux/if_link.h>
#include <netinet/in.h>

using namespace thruway;
using namespace thruway::test;

namespace {

Packet make(Protocol protocol, const std::string &source, const std::string &destination)
{
    return protocol == Protocol::tcp ? tcp(source, destination) : udp(source, destination);
}

/// One way of taking what comes in by the uplink: at XDP, or past it at tc.
using Take = std::function<Outcome(World &, const Packet &)>;

const Take by_xdp = [](World &world, const Packet &packet) {
    Outcome out = world.xdp_net(world.off_wire(packet));
    CHECK(out.verdict == xdp_tx);
    return out;
};
const Take by_tc = [](World &world, const Packet &packet) {
    Outcome out = world.from_net(world.off_wire(packet));
    CHECK(out.verdict == verdict_redirect);
    return out;
};

/// A request from outside to a backend of another node and the answer, each taken in its own way. Every byte of both is
/// compared. Gives the source port that the node made up.
uint16_t exchange(World &world, const Scene &s, const Packet &request, const Take &there, const Take &back)
{
    const Outcome out = there(world, request);
    const uint16_t port = source_port_of(out.frame.bytes);
    CHECK(port >= 49152);
    const Packet sent =
        world.on_wire(request.with_source(host(s.node), port).with_destination(host(s.remote_backend), 8080));
    CHECK(out.frame == frame(sent));

    const Packet answer = sent.reversed().with_hops(63).with_flags(syn | ack);
    CHECK(back(world, answer).frame == frame(world.on_wire(request.reversed().with_hops(63).with_flags(syn | ack))));
    return port;
}

/// XDP leaves the frame as it is, and counts nothing.
void check_untouched(World &world, const Bytes &bytes)
{
    const Outcome out = world.xdp_net(bytes);
    CHECK(out.verdict == xdp_pass);
    CHECK(out.frame == Frame{bytes});
}

uint64_t packets_in_rows(const World &world)
{
    uint64_t packets = 0;
    for (const tw_flow4 &row : world.rows4())
        packets += row.head.packets;
    for (const tw_flow6 &row : world.rows6())
        packets += row.head.packets;
    return packets;
}

} // namespace

TEST_CASE("XDP carries a client from outside to a backend of another node and back")
{
    World world;
    const Scene s = GENERATE(scenes[0], scenes[1]);
    const Protocol protocol = GENERATE(Protocol::tcp, Protocol::udp);
    world.service("web", {s.node_port}, {s.remote_backend + ":8080"}, protocol);
    const Packet request = make(protocol, s.outside + ":50000", s.node + ":30080");

    const uint16_t port = exchange(world, s, request, by_xdp, by_xdp);
    CHECK(source_port_of(by_xdp(world, request.with_flags(ack)).frame.bytes) == port);
    CHECK(world.rows4().size() + world.rows6().size() == 2);
}

TEST_CASE("a flow may be half in XDP and half in tc, from either packet on")
{
    World world;
    const Scene s = GENERATE(scenes[0], scenes[1]);
    const Protocol protocol = GENERATE(Protocol::tcp, Protocol::udp);
    world.service("web", {s.node_port}, {s.remote_backend + ":8080"}, protocol);
    const Packet request = make(protocol, s.outside + ":50000", s.node + ":30080");

    const uint16_t port = exchange(world, s, request, by_xdp, by_tc);
    CHECK(source_port_of(by_tc(world, request.with_flags(ack)).frame.bytes) == port);
    exchange(world, s, request.with_source(request.source, 50001), by_tc, by_xdp);
    CHECK(world.rows4().size() + world.rows6().size() == 4);
}

TEST_CASE("a frontend whose backend is on this node is opened by XDP and delivered by tc")
{
    World world;
    const Scene s = GENERATE(scenes[0], scenes[1]);
    const PodSpec &server = world.pod(3);
    world.service("web", {s.node_port}, {s.local_backend + ":8080"});
    const Packet request = world.off_wire(tcp(s.outside + ":50000", s.node + ":30080"));

    check_untouched(world, request.build());
    CHECK(world.rows4().size() + world.rows6().size() == 2);
    CHECK(packets_in_rows(world) == 0);
    const Outcome there = world.from_net(request);
    CHECK(there.verdict == verdict_redirect);
    const uint16_t port = source_port_of(there.frame.bytes);
    const Packet arrived =
        World::in_pod(request.with_source(host(s.node), port).with_destination(host(s.local_backend), 8080), server);
    CHECK(there.frame == frame(arrived));
    const Packet answer = arrived.reversed().with_hops(64).with_flags(syn | ack);
    CHECK(world.from_pod(server, answer).frame == frame(world.on_wire(request.reversed().with_flags(syn | ack))));
    CHECK(packets_in_rows(world) == 2);

    check_untouched(world, request.with_flags(ack).build());
    CHECK(world.from_net(request.with_flags(ack)).verdict == verdict_redirect);
    CHECK(packets_in_rows(world) == 3);
}

TEST_CASE("XDP counts an exchange as tc does")
{
    const Scene s = GENERATE(scenes[0], scenes[1]);
    const auto count = [&](const Take &take) {
        World world;
        world.service("web", {s.node_port}, {s.remote_backend + ":8080"});
        const Packet request = tcp(s.outside + ":50000", s.node + ":30080");
        const uint16_t port = exchange(world, s, request, take, take);
        const Packet answer =
            tcp(s.remote_backend + ":8080", s.node + ":1", ack).with_destination(host(s.node), port).with_hops(63);
        take(world, request.with_flags(ack));
        take(world, answer.with_flags(fin | ack));
        take(world, request.with_flags(fin | ack));
        std::vector<std::array<uint64_t, 4>> rows;
        for (const tw_flow4 &row : world.rows4())
            rows.push_back({row.head.flags, row.head.packets, row.head.bytes, row.head.word & 0xff});
        for (const tw_flow6 &row : world.rows6())
            rows.push_back({row.head.flags, row.head.packets, row.head.bytes, row.head.word & 0xff});
        std::ranges::sort(rows);
        REQUIRE(rows.size() == 2);
        CHECK(rows[0][1] == 3);
        CHECK(rows[1][1] == 2);
        CHECK((rows[0][3] & TW_FLOW_STATE) == TW_FLOW_CLOSING);
        CHECK(world.arrays.totals[1].connections == 1);
        return rows;
    };
    CHECK(count(by_xdp) == count(by_tc));
}

TEST_CASE("a connection that opens again on the tuple of a closed one gets a backend anew in XDP")
{
    World world;
    const Scene s = GENERATE(scenes[0], scenes[1]);
    world.service("web", {s.node_port}, {s.remote_backend + ":8080"});
    const Packet request = tcp(s.outside + ":50000", s.node + ":30080");
    exchange(world, s, request, by_xdp, by_xdp);
    by_xdp(world, request.with_flags(rst));
    exchange(world, s, request, by_xdp, by_xdp);
    CHECK(world.arrays.totals[1].connections == 2);
}

TEST_CASE("checksums are right after XDP for every payload, and none stays none")
{
    World world;
    const Scene s = GENERATE(scenes[0], scenes[1]);
    world.service("dns", {s.node_port}, {s.remote_backend + ":8080"}, Protocol::udp);
    Packet request = udp(s.outside + ":50000", s.node + ":30080");
    for (const size_t length : {0U, 1U, 2U, 3U, 7U, 64U, 1001U, 1400U}) {
        request.payload.assign(length, static_cast<char>(0xff - length % 7));
        exchange(world, s, request, by_xdp, by_xdp);
    }
    // All values of two bytes, those around where the sum becomes zero among them.
    request.payload = "xx";
    for (unsigned value = 0; value < 0x10000; value += 13) {
        request.payload[0] = static_cast<char>(value >> 8);
        request.payload[1] = static_cast<char>(value);
        const Outcome out = world.xdp_net(world.off_wire(request));
        if (out.verdict == xdp_pass) // this one is the pseudo-header's sum
            continue;
        const uint16_t port = source_port_of(out.frame.bytes);
        REQUIRE(out.frame ==
                frame(world.on_wire(
                    request.with_source(host(s.node), port).with_destination(host(s.remote_backend), 8080))));
    }
    request.udp_checksum = false;
    exchange(world, s, request, by_xdp, by_xdp);
}

TEST_CASE("a packet whose checksum is left to a device passes XDP, and tc translates it")
{
    World world;
    const Scene s = GENERATE(scenes[0], scenes[1]);
    const Protocol protocol = GENERATE(Protocol::tcp, Protocol::udp);
    world.service("web", {s.node_port}, {s.remote_backend + ":8080"}, protocol);
    const Packet request = world.off_wire(make(protocol, s.outside + ":50000", s.node + ":30080"));
    exchange(world, s, request, by_xdp, by_xdp);

    Bytes bytes = request.with_flags(ack).build();
    const size_t ip = 14;
    const bool v6 = host(s.outside).family() == Family::ipv6;
    const size_t transport = ip + (v6 ? 40 : 20);
    uint32_t sum = protocol == Protocol::tcp ? IPPROTO_TCP : IPPROTO_UDP;
    for (size_t at = ip + (v6 ? 8 : 12); at < transport; at += 2)
        sum += static_cast<uint32_t>(bytes[at] << 8 | bytes[at + 1]);
    sum += static_cast<uint32_t>(bytes.size() - transport);
    while (sum >> 16)
        sum = (sum & 0xffff) + (sum >> 16);
    const size_t at = transport + (protocol == Protocol::tcp ? 16 : 6);
    bytes[at] = static_cast<uint8_t>(sum >> 8);
    bytes[at + 1] = static_cast<uint8_t>(sum);
    const uint64_t counted = packets_in_rows(world);
    check_untouched(world, bytes);
    CHECK(packets_in_rows(world) == counted);
}

TEST_CASE("a packet of several buffers is carried whole")
{
    World world;
    const Scene s = GENERATE(scenes[0], scenes[1]);
    world.service("web", {s.node_port}, {s.remote_backend + ":8080"});
    NextHop wide = world.to_neighbour(host(s.outside).family() == Family::ipv4 ? "172.20.0.12" : "fd20::12");
    wide.mtu = 9000;
    const char *pods = host(s.outside).family() == Family::ipv4 ? "10.244.2.0/24" : "fd00:10:244:2::/64";
    REQUIRE(world.nexthops->set_node(*Prefix::parse(pods), wide));
    Packet request = tcp(s.outside + ":50000", s.node + ":30080");
    exchange(world, s, request, by_xdp, by_xdp);

    request.payload.assign(8900, 'x');
    const Outcome out = by_xdp(world, request.with_flags(ack));
    const uint16_t port = source_port_of(out.frame.bytes);
    CHECK(out.frame ==
          frame(world.on_wire(
              request.with_flags(ack).with_source(host(s.node), port).with_destination(host(s.remote_backend), 8080))));
    CHECK(packets_in_rows(world) == 3);
}

TEST_CASE("what is not whole and ordinary passes XDP untouched, though its flow stands")
{
    World world;
    const Scene s = GENERATE(scenes[0], scenes[1]);
    const bool v6 = host(s.outside).family() == Family::ipv6;
    world.service("web", {s.node_port}, {s.remote_backend + ":8080"});
    const Packet request = world.off_wire(tcp(s.outside + ":50000", s.node + ":30080"));
    exchange(world, s, request, by_xdp, by_xdp);
    const Packet more = request.with_flags(ack);
    const uint64_t counted = packets_in_rows(world);
    const auto with = [&](size_t at, uint8_t value) {
        Bytes bytes = more.build();
        bytes.at(at) = value;
        return bytes;
    };
    const auto insert = [&](size_t at, const Bytes &what) {
        Bytes bytes = more.build();
        bytes.insert(bytes.begin() + static_cast<ptrdiff_t>(at), what.begin(), what.end());
        return bytes;
    };

    check_untouched(world, more.with_hops(1).build());                                          // Time Exceeded
    check_untouched(world, more.with_macs(world.neighbour_mac, {0x02, 1, 1, 1, 1, 1}).build()); // somebody else's
    check_untouched(world, more.with_macs(world.neighbour_mac, {0xff, 0xff, 0xff, 0xff, 0xff, 0xff}).build());
    check_untouched(world, insert(12, {0x81, 0x00, 0x00, 0x05})); // VLAN
    Packet large = more;
    large.payload.assign(1500, 'x');
    check_untouched(world, large.build()); // Fragmentation Needed
    const size_t headers = 14U + (v6 ? 40 : 20) + 20;
    for (size_t length = 14; length < headers; length++) { // malformed
        const Bytes whole = more.build();
        check_untouched(world, Bytes(whole.begin(), whole.begin() + static_cast<ptrdiff_t>(length)));
    }
    if (v6) {
        Bytes extended = insert(14 + 40, {IPPROTO_TCP, 0, 1, 4, 0, 0, 0, 0}); // a Destination Options header of padding
        extended[14 + 6] = IPPROTO_DSTOPTS;
        extended[14 + 5] = static_cast<uint8_t>(extended[14 + 5] + 8);
        check_untouched(world, extended);
        Bytes fragment = insert(14 + 40, {IPPROTO_TCP, 0, 0, 1, 0, 0, 0, 7});
        fragment[14 + 6] = IPPROTO_FRAGMENT;
        fragment[14 + 5] = static_cast<uint8_t>(fragment[14 + 5] + 8);
        check_untouched(world, fragment);
        check_untouched(world, with(14 + 6, IPPROTO_SCTP));
    } else {
        Bytes options = insert(14 + 20, {1, 1, 1, 0}); // no-operation options
        options[14] = 0x46;
        options[14 + 3] = static_cast<uint8_t>(options[14 + 3] + 4);
        check_untouched(world, options);
        check_untouched(world, with(14 + 6, 0x20)); // first fragment
        check_untouched(world, with(14 + 7, 0x10)); // another one
        check_untouched(world, with(14 + 9, IPPROTO_SCTP));
    }
    CHECK(packets_in_rows(world) == counted);
    CHECK(world.rows4().size() + world.rows6().size() == 2);
    for (int reason = 1; reason < TW_DROPS; reason++)
        CHECK(world.drops(static_cast<tw_drop>(reason)) == 0);
}

TEST_CASE("what no frontend of the node is meant by passes XDP untouched and makes no flow")
{
    World world;
    const PodSpec &pod = world.pod(2);
    world.service("web", {":30080"}, {"10.244.2.7:8080"});
    for (const Packet &packet : {tcp("172.21.0.2:1000", "172.20.0.11:22"), udp("172.21.0.2:1000", "172.20.0.11:30080"),
                                 tcp("172.21.0.2:1000", "203.0.113.9:80"), ping("172.21.0.2", "172.20.0.11", 9),
                                 tcp("172.21.0.2:1000", "172.20.0.11:30080", ack)}) // not a connection's first
        check_untouched(world, world.off_wire(packet).build());
    // A frontend, but not in a frame for this node.
    check_untouched(world, tcp("172.21.0.2:1000", "172.20.0.11:30080").build());
    CHECK(world.rows4().empty());

    const Packet to_pod = world.off_wire(tcp("172.21.0.2:1000", "10.244.1.2:80"));
    check_untouched(world, to_pod.build());
    CHECK(world.from_net(to_pod).frame == frame(World::in_pod(to_pod, pod)));
}

TEST_CASE("a next hop whose neighbour is not known yet is left to tc, which has it resolved")
{
    World world;
    const Scene s = GENERATE(scenes[0], scenes[1]);
    world.service("web", {s.node_port}, {s.remote_backend + ":8080"});
    const Packet request = tcp(s.outside + ":50000", s.node + ":30080");
    exchange(world, s, request, by_xdp, by_xdp);
    const bool v6 = host(s.outside).family() == Family::ipv6;
    NextHop lost = world.to_neighbour(v6 ? "fd20::12" : "172.20.0.12");
    lost.to.reset();
    REQUIRE(world.nexthops->set_node(*Prefix::parse(v6 ? "fd00:10:244:2::/64" : "10.244.2.0/24"), lost));
    check_untouched(world, world.off_wire(request.with_flags(ack)).build());
    CHECK(world.from_net(world.off_wire(request.with_flags(ack))).verdict == verdict_redirect);
}

TEST_CASE("a next hop by another uplink is taken by redirect, if that device takes frames from XDP")
{
    World world;
    const Scene s = GENERATE(scenes[0], scenes[1]);
    const bool v6 = host(s.outside).family() == Family::ipv6;
    world.service("web", {s.node_port}, {s.remote_backend + ":8080"});
    NextHop other = world.to_neighbour(v6 ? "fd20::12" : "172.20.0.12");
    other.ifindex = world.pod(9).ifindex; // any other device
    other.from = {0x02, 9, 9, 9, 9, 9};
    const Prefix pods = *Prefix::parse(v6 ? "fd00:10:244:2::/64" : "10.244.2.0/24");
    REQUIRE(world.nexthops->set_node(pods, other));
    const Packet request = world.off_wire(tcp(s.outside + ":50000", s.node + ":30080"));
    check_untouched(world, request.build());
    CHECK(packets_in_rows(world) == 0);

    other.xdp = TW_NEXTHOP_XDP;
    REQUIRE(world.nexthops->set_node(pods, other));
    const Outcome out = world.xdp_net(request);
    CHECK(out.verdict == xdp_redirect);
    const uint16_t port = source_port_of(out.frame.bytes);
    CHECK(out.frame == frame(world.on_wire(request)
                                 .with_macs(other.from, world.neighbour_mac)
                                 .with_source(host(s.node), port)
                                 .with_destination(host(s.remote_backend), 8080)));
    check_untouched(world, request.with_macs(world.neighbour_mac, other.from).build()); // not for the one it came by
}

TEST_CASE("where a device is to be redirected to, so is what came in by it")
{
    World world;
    const Scene s = GENERATE(scenes[0], scenes[1]);
    const bool v6 = host(s.outside).family() == Family::ipv6;
    world.service("web", {s.node_port}, {s.remote_backend + ":8080"});
    NextHop hop = world.to_neighbour(v6 ? "fd20::12" : "172.20.0.12");
    hop.xdp = TW_NEXTHOP_XDP | TW_NEXTHOP_REDIRECT;
    REQUIRE(world.nexthops->set_node(*Prefix::parse(v6 ? "fd00:10:244:2::/64" : "10.244.2.0/24"), hop));
    CHECK(world.xdp_net(world.off_wire(tcp(s.outside + ":50000", s.node + ":30080"))).verdict == xdp_redirect);
}

TEST_CASE("XDP drops once what nobody owes an answer, and leaves to tc what somebody does")
{
    World world;
    const Scene s = GENERATE(scenes[0], scenes[1]);
    world.service("web", {s.node_port}, {s.remote_backend + ":8080"});
    const Packet spoofed = world.off_wire(tcp(s.node + ":50000", s.node + ":30080"));
    CHECK(world.xdp_net(spoofed).verdict == xdp_drop);
    CHECK(world.drops(TW_DROP_SPOOFED_SOURCE, TW_HOOK_XDP_NET) == 1);
    CHECK(world.drops(TW_DROP_SPOOFED_SOURCE) == 1);

    world.service("web", {s.node_port}, {});
    check_untouched(world, world.off_wire(tcp(s.outside + ":50000", s.node + ":30080")).build());
    CHECK(world.drops(TW_DROP_NO_BACKEND) == 0);
    CHECK(world.rows4().size() + world.rows6().size() == 0);
}

TEST_CASE("what claims to come from this node's own flows is not carried by XDP")
{
    World world;
    const PodSpec &pod = world.pod(2);
    const Packet real = tcp("10.244.1.2:1000", "10.244.2.9:80");
    CHECK(world.from_pod(pod, real).verdict == verdict_redirect);
    check_untouched(world, world.off_wire(real.with_flags(ack)).build());
    CHECK(world.from_net(world.off_wire(real.with_flags(ack))).verdict == verdict_drop);
    CHECK(world.drops(TW_DROP_SPOOFED_SOURCE) == 1);
}

namespace {

/// A program of somebody else's that passes everything.
Fd foreign_program()
{
    const std::array<bpf_insn, 2> pass{{
        {.code = BPF_ALU64 | BPF_MOV | BPF_K, .dst_reg = 0, .src_reg = 0, .off = 0, .imm = XDP_PASS},
        {.code = BPF_JMP | BPF_EXIT, .dst_reg = 0, .src_reg = 0, .off = 0, .imm = 0},
    }};
    Fd program(bpf_prog_load(BPF_PROG_TYPE_XDP, "theirs", "GPL", pass.data(), pass.size(), nullptr));
    REQUIRE(program);
    return program;
}

bpf_xdp_query_opts query_xdp(const Link &link)
{
    bpf_xdp_query_opts query{};
    query.sz = sizeof(query);
    REQUIRE(bpf_xdp_query(static_cast<int>(link.index), 0, &query) == 0);
    return query;
}

uint32_t attached_program(const Link &link)
{
    return query_xdp(link).prog_id;
}

} // namespace

TEST_CASE("XDP is attached as the device and the configuration allow, stays over attaching again, and goes")
{
    World world;
    const XdpDevice device{world.uplink.index, true};
    const auto attach = [&](XdpMode mode) { return world.datapath->attach_xdp(device, mode); };

    // The other end of the veth does not poll: what XDP sent by it would be lost.
    const XdpState lost = attach(XdpMode::native);
    CHECK(lost.mode == XdpMode::off);
    CHECK(lost.reason.find("GRO") != std::string::npos);
    CHECK(attached_program(world.uplink) == 0);

    // A program at the other end makes it poll.
    const Fd theirs = foreign_program();
    REQUIRE(bpf_xdp_attach(world.uplink.peer, theirs.get(), XDP_FLAGS_DRV_MODE, nullptr) == 0);
    const XdpState native = attach(GENERATE(XdpMode::native, XdpMode::automatic));
    INFO(native.reason);
    if (query_xdp(world.uplink).feature_flags == 0) { // before Linux 6.3 nobody knows
        CHECK(native.mode == XdpMode::off);
        return;
    }
    CHECK(native.mode == XdpMode::native);
    CHECK(native.way == (TW_NEXTHOP_XDP | TW_NEXTHOP_REDIRECT));
    const uint32_t id = attached_program(world.uplink);
    CHECK(id != 0);
    CHECK(attach(XdpMode::native).mode == XdpMode::native);
    CHECK(attached_program(world.uplink) == id);

    CHECK(attach(XdpMode::off).mode == XdpMode::off);
    CHECK(attached_program(world.uplink) == 0);
}

TEST_CASE("somebody else's XDP program is not displaced, whatever mode it runs in")
{
    World world;
    const XdpDevice device{world.uplink.index, true};
    const Fd theirs = foreign_program();
    const auto index = static_cast<int>(world.uplink.index);
    const uint32_t flags = GENERATE(XDP_FLAGS_SKB_MODE, XDP_FLAGS_DRV_MODE);
    REQUIRE(bpf_xdp_attach(index, theirs.get(), flags, nullptr) == 0);
    const uint32_t id = attached_program(world.uplink);
    for (const XdpMode mode : {XdpMode::automatic, XdpMode::native, XdpMode::off}) {
        const XdpState state = world.datapath->attach_xdp(device, mode);
        CHECK(state.mode == XdpMode::off);
        CHECK_FALSE(state.refused);
        if (mode != XdpMode::off)
            CHECK(state.reason == fmt::format("somebody else's XDP program {} (theirs) is attached, and stays", id));
        CHECK(attached_program(world.uplink) == id);
    }
}

TEST_CASE("a driver without XDP is told as such")
{
    World world;
    Netlink netlink = *Netlink::open();
    const Link bridge = *netlink.add_bridge("nodriver", 1500);
    const XdpState state = world.datapath->attach_xdp({bridge.index, false}, XdpMode::automatic);
    REQUIRE(netlink.delete_link("nodriver"));
    CHECK(state.mode == XdpMode::off);
    CHECK(state.refused);
    CHECK(state.reason.find("does not take it") != std::string::npos);
}
