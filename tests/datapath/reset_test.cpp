// SPDX-License-Identifier: Apache-2.0
// TCP to a service, of a connection that nobody knows. Every output byte is compared.
#include "tests/datapath/world.h"

#include <catch2/catch_test_macros.hpp>
#include <catch2/generators/catch_generators.hpp>
#include <chrono>
#include <netinet/in.h>
#include <thread>

using namespace thruway;
using namespace thruway::test;

namespace {

void check_reset(const Outcome &out, const Packet &reset)
{
    CHECK(out.verdict == verdict_redirect);
    CHECK(out.mark == TW_MARK_HANDLED);
    CHECK(out.frame == frame(reset));
}

/// Gives all rows the state for which `change` asks, and what is not in the state's bits stays.
void set_states(World &world, const std::function<uint32_t(uint32_t)> &change)
{
    const auto set = [&](tw_flow &row) {
        if ((row.word & TW_FLOW_STATE) != TW_FLOW_FREE)
            row.word = (row.word & ~uint32_t{TW_FLOW_STATE}) | change(row.word & TW_FLOW_STATE);
    };
    for (uint32_t bucket = 0; bucket < world.arrays.flows4.size(); bucket++)
        for (tw_flow4 &row : world.arrays.flows4[bucket].row)
            set(row.head);
    for (uint32_t bucket = 0; bucket < world.arrays.flows6.size(); bucket++)
        for (tw_flow6 &row : world.arrays.flows6[bucket].row)
            set(row.head);
}

} // namespace

TEST_CASE("TCP to a service, of a connection that nobody knows, is reset by the numbers of its segment")
{
    World world;
    const Scene &s = scenes.at(GENERATE(0U, 1U));
    const uint8_t flags = GENERATE(ack, psh | ack, syn | ack, fin | ack, fin, psh, 0, syn | fin);
    const size_t size = GENERATE(0U, 1U, 7U, 1400U);
    const PodSpec &client = world.pod(2);
    world.service("web", {s.vip + ":80"}, {s.remote_backend + ":8080"});
    const auto takes = static_cast<uint32_t>(size + (flags & fin ? 1 : 0) + (flags & syn ? 1 : 0));

    const Packet inside = tcp(s.client + ":1000", s.vip + ":80", flags).with_payload(size);
    check_reset(world.from_pod(client, inside), reset_for(inside, takes));
    const Packet outside = tcp(s.outside + ":1000", s.vip + ":80", flags).with_payload(size);
    check_reset(world.from_net(outside), reset_for(outside, takes));
    const Packet own = tcp(s.node + ":1000", s.vip + ":80", flags).with_payload(size);
    check_reset(world.to_net(own), reset_for(own, takes));

    // What a short frame was filled up with is not of the segment, and options are not, either.
    Bytes filled = inside.build();
    filled.resize(filled.size() + 6);
    check_reset(world.from_pod(client, filled), reset_for(inside, takes));
    Packet more = inside;
    if (s.client.starts_with('['))
        more.extensions = {{IPPROTO_DSTOPTS, {0, 0, 1, 4, 0, 0, 0, 0}}};
    else
        more.options = {1, 1, 1, 0};
    check_reset(world.from_pod(client, more), reset_for(more, takes));

    CHECK(world.drops(TW_DROP_NO_CONNECTION, TW_HOOK_FROM_POD) == 3);
    CHECK(world.drops(TW_DROP_NO_CONNECTION, TW_HOOK_FROM_NET) == 1);
    CHECK(world.drops(TW_DROP_NO_CONNECTION, TW_HOOK_TO_NET) == 1);
    CHECK(world.rows4().empty());
    CHECK(world.rows6().empty());
}

TEST_CASE("a segment that the kernel has joined of several is reset, too")
{
    World world;
    const Scene &s = scenes.at(GENERATE(0U, 1U));
    const PodSpec &client = world.pod(2);
    world.service("web", {s.vip + ":80"}, {s.remote_backend + ":8080"});
    const Packet joined = tcp(s.client + ":1000", s.vip + ":80", ack).with_payload(3000);
    check_reset(world.from_pod(client, joined, 1400), reset_for(joined, 3000));
}

TEST_CASE("no reset answers a reset, a fragment, what a socket of the node may have, or other packets than TCP")
{
    World world;
    const Scene &s = scenes.at(GENERATE(0U, 1U));
    const PodSpec &client = world.pod(2);
    world.service("web", {s.vip + ":80", s.node + ":80", s.node_port}, {s.remote_backend + ":8080"});
    const auto passes = [](const Outcome &out, const Packet &packet) {
        CHECK(out.verdict == verdict_next);
        CHECK(out.frame == frame(packet));
    };
    const Packet reset = tcp(s.client + ":1000", s.vip + ":80", GENERATE(rst, rst | ack));
    passes(world.from_pod(client, reset), reset);
    const Packet fragment = tcp(s.client + ":1000", s.vip + ":80", ack).with_payload(100).fragment(0, 64);
    passes(world.from_pod(client, fragment), fragment);
    for (const std::string port : {":80", ":30080"}) {
        const Packet to_node = tcp(s.outside + ":1000", s.node + port, ack);
        passes(world.from_net(to_node), to_node);
        const Packet by_pod = tcp(s.client + ":1000", s.node + port, ack);
        passes(world.from_pod(client, by_pod), by_pod);
    }
    CHECK(world.drops(TW_DROP_NO_CONNECTION) == 0);
}

TEST_CASE("a row that another CPU is changing is a miss, but no reason for a reset")
{
    World world;
    const Scene &s = scenes.at(GENERATE(0U, 1U));
    const PodSpec &client = world.pod(2);
    world.service("web", {s.vip + ":80"}, {s.remote_backend + ":8080"});
    const Packet request = tcp(s.client + ":1000", s.vip + ":80");
    world.from_pod(client, request);

    set_states(world, [](uint32_t) { return TW_FLOW_CLAIMED; });
    const Packet segment = request.with_flags(ack);
    CHECK(world.from_pod(client, segment).verdict == verdict_drop);
    CHECK(world.drops(TW_DROP_FLOW_BUSY) == 1);
    CHECK(world.drops(TW_DROP_NO_CONNECTION) == 0);

    set_states(world, [](uint32_t) { return TW_FLOW_ESTABLISHED; });
    CHECK(world.from_pod(client, segment).frame ==
          frame(world.on_wire(segment.with_destination(host(s.remote_backend), 8080))));
    set_states(world, [](uint32_t) { return TW_FLOW_FREE; });
    check_reset(world.from_pod(client, segment), reset_for(segment, 0));
}

TEST_CASE("while nothing is carried yet, the stack has connections that nobody knows")
{
    World world;
    world.arrays.layout[0].carries = 0;
    const PodSpec &client = world.pod(2);
    world.service("web", {"10.96.0.1:80"}, {"10.244.2.7:8080"});
    const Packet segment = tcp("10.244.1.2:1000", "10.96.0.1:80", ack);
    CHECK(world.from_pod(client, segment).frame == frame(segment));
    CHECK(world.from_pod(client, segment).verdict == verdict_next);
}

TEST_CASE("a flood of segments of no connection gets few resets, and every one is counted")
{
    World world;
    const PodSpec &client = world.pod(2);
    world.service("web", {"10.96.0.1:80"}, {"10.244.2.7:8080"});
    unsigned resets = 0;
    const auto begin = std::chrono::steady_clock::now();
    for (int i = 0; i < 3000; i++)
        resets += world.from_pod(client, tcp("10.244.1.2:1000", "10.96.0.1:80", ack)).verdict == verdict_redirect;
    // Of each CPU, should the test move from one to another.
    const auto windows = (std::chrono::steady_clock::now() - begin) / std::chrono::milliseconds(67) + 2;
    CHECK(resets > 0);
    CHECK(resets <= 64 * windows * std::thread::hardware_concurrency());
    CHECK(resets < 3000);
    CHECK(world.drops(TW_DROP_NO_CONNECTION) == 3000);
}
