// SPDX-License-Identifier: Apache-2.0
// What the flow table keeps, and when it lets go.
#include "tests/datapath/world.h"

#include <algorithm>
#include <catch2/catch_test_macros.hpp>
#include <catch2/generators/catch_generators.hpp>

using namespace thruway;
using namespace thruway::test;

namespace {

uint32_t state_of(const tw_flow4 &row)
{
    return row.head.word & TW_FLOW_STATE;
}

bool all_in(const World &world, uint32_t state)
{
    const auto rows = world.rows4();
    return rows.size() == 2 && std::ranges::all_of(rows, [&](const auto &row) { return state_of(row) == state; });
}

/// Every row names another one that names it, in the other direction.
bool all_paired(const World &world)
{
    const auto &buckets = world.arrays.flows4;
    for (uint32_t place = 0; place < buckets.size() * TW_FLOW_WAYS; place++) {
        const tw_flow &row = buckets[place / TW_FLOW_WAYS].row[place % TW_FLOW_WAYS].head;
        if ((row.word & TW_FLOW_STATE) == TW_FLOW_FREE)
            continue;
        if (row.pair >= buckets.size() * TW_FLOW_WAYS)
            return false;
        const tw_flow &other = buckets[row.pair / TW_FLOW_WAYS].row[row.pair % TW_FLOW_WAYS].head;
        if (other.pair != place || (other.flags ^ row.flags) != TW_FLOW_REPLY)
            return false;
    }
    return true;
}

} // namespace

TEST_CASE("both rows of a TCP flow move through the same states")
{
    World world;
    const PodSpec &a = world.pod(2);
    const PodSpec &b = world.pod(3);
    const Packet request = tcp("10.244.1.2:1000", "10.244.1.3:80");
    const Packet answer = request.reversed();

    world.from_pod(a, request);
    CHECK(all_in(world, TW_FLOW_HALF_OPEN));
    world.from_pod(b, answer.with_flags(syn | ack));
    CHECK(all_in(world, TW_FLOW_ANSWERED));
    world.from_pod(a, request.with_flags(ack));
    CHECK(all_in(world, TW_FLOW_ESTABLISHED));
    world.from_pod(a, request.with_flags(fin | ack));
    CHECK(all_in(world, TW_FLOW_ESTABLISHED)); // half closed: data may flow back for hours
    world.from_pod(b, answer.with_flags(fin | ack));
    CHECK(all_in(world, TW_FLOW_CLOSING));
}

TEST_CASE("a reset closes a flow, unless data goes on")
{
    World world;
    const PodSpec &a = world.pod(2);
    const PodSpec &b = world.pod(3);
    const Packet request = tcp("10.244.1.2:1000", "10.244.1.3:80");

    world.from_pod(a, request);
    world.from_pod(b, request.reversed().with_flags(syn | ack));
    world.from_pod(a, request.with_flags(ack));
    world.from_pod(b, request.reversed().with_flags(rst));
    CHECK(all_in(world, TW_FLOW_CLOSING));
    world.from_pod(a, request.with_flags(ack | psh));
    CHECK(all_in(world, TW_FLOW_ESTABLISHED));
}

TEST_CASE("a SYN alone, however often, never makes a flow established")
{
    World world;
    const PodSpec &a = world.pod(2);
    world.pod(3);
    const Packet request = tcp("10.244.1.2:1000", "10.244.1.3:80");

    for (int i = 0; i < 3; i++)
        world.from_pod(a, request);
    world.from_pod(a, request.with_flags(ack));
    CHECK(all_in(world, TW_FLOW_HALF_OPEN));
}

TEST_CASE("UDP counts as established once it is answered")
{
    World world;
    const PodSpec &a = world.pod(2);
    const PodSpec &b = world.pod(3);
    const Packet request = udp("10.244.1.2:1000", "10.244.1.3:53");

    world.from_pod(a, request);
    world.from_pod(a, request);
    CHECK(all_in(world, TW_FLOW_ONE_WAY));
    world.from_pod(b, request.reversed());
    CHECK(all_in(world, TW_FLOW_ESTABLISHED));
}

TEST_CASE(
    "an SCTP flow follows its association from INIT to SHUTDOWN COMPLETE, and an ABORT that nobody believes ends none")
{
    World world;
    const PodSpec &a = world.pod(2);
    const PodSpec &b = world.pod(3);
    const Packet request = sctp("10.244.1.2:1000", "10.244.1.3:2905");
    const Chunk end = GENERATE(Chunk::abort, Chunk::shutdown_complete);

    world.from_pod(a, with_chunk(request, Chunk::init));
    CHECK(all_in(world, TW_FLOW_ONE_WAY));
    world.from_pod(b, request.reversed());
    CHECK(all_in(world, TW_FLOW_ESTABLISHED));
    world.from_pod(b, with_chunk(request.reversed(), end));
    CHECK(all_in(world, TW_FLOW_CLOSING));
    world.from_pod(a, request);
    CHECK(all_in(world, TW_FLOW_ESTABLISHED));
}

TEST_CASE("an association goes on when its client starts anew, and chooses a backend anew when it has ended")
{
    World world;
    const PodSpec &a = world.pod(2);
    const PodSpec &b = world.pod(3);
    const PodSpec &c = world.pod(4);
    world.service("sigtran", {"10.96.0.1:2905"}, {"10.244.1.3:2905"}, Protocol::sctp);
    const Packet init = with_chunk(sctp("10.244.1.2:1000", "10.96.0.1:2905"), Chunk::init);
    const auto goes_to = [&](const char *backend, const PodSpec &pod) {
        CHECK(world.from_pod(a, init).frame ==
              frame(World::in_pod(init.with_destination(address(backend), 2905), pod)));
    };
    goes_to("10.244.1.3", b);
    world.from_pod(b, sctp("10.244.1.3:2905", "10.244.1.2:1000"));

    world.service("sigtran", {"10.96.0.1:2905"}, {"10.244.1.4:2905"}, Protocol::sctp);
    goes_to("10.244.1.3", b); // RFC 9260 section 5.2.2: a restart, of which the server has to hear
    world.from_pod(b, with_chunk(sctp("10.244.1.3:2905", "10.244.1.2:1000"), Chunk::abort));
    goes_to("10.244.1.4", c);
    CHECK(world.rows4().size() == 2);
}

TEST_CASE("rows count packets and bytes of their direction")
{
    World world;
    const PodSpec &a = world.pod(2);
    const PodSpec &b = world.pod(3);
    const Packet request = udp("10.244.1.2:1000", "10.244.1.3:53");

    for (int i = 0; i < 3; i++)
        world.from_pod(a, request);
    world.from_pod(b, request.reversed());
    for (const tw_flow4 &row : world.rows4()) {
        const uint32_t packets = row.head.flags & TW_FLOW_REPLY ? 1 : 3;
        CHECK(row.head.packets == packets);
        CHECK(row.head.bytes == packets * request.build().size());
    }
}

TEST_CASE("a new connection on the port of a closing one chooses a backend anew")
{
    World world;
    const PodSpec &a = world.pod(2);
    const PodSpec &b = world.pod(3);
    const PodSpec &c = world.pod(4);
    world.service("web", {"10.96.0.1:80"}, {"10.244.1.3:80"});
    const Packet request = tcp("10.244.1.2:1000", "10.96.0.1:80");
    world.from_pod(a, request);
    world.from_pod(b, tcp("10.244.1.3:80", "10.244.1.2:1000", rst | ack));

    world.service("web", {"10.96.0.1:80"}, {"10.244.1.4:80"});
    CHECK(world.from_pod(a, request).frame ==
          frame(World::in_pod(request.with_destination(address("10.244.1.4"), 80), c)));
    CHECK(world.rows4().size() == 2);
}

TEST_CASE("half-open flows give way when a bucket is full, established ones never do")
{
    World world;
    const PodSpec &a = world.pod(2);
    world.pod(3);

    // Sixteen times as many half-open connections as there is room for.
    for (unsigned i = 0; i < 32'000; i++)
        world.from_pod(a, tcp(fmt::format("10.244.1.2:{}", 1000 + i), fmt::format("10.244.2.{}:80", 1 + i % 200)));
    CHECK(world.rows4().size() > 3000);
    CHECK(world.drops(TW_DROP_FLOWS_FULL) == 0);
    CHECK(all_paired(world));
}

TEST_CASE("a full table refuses new flows with a reason and keeps what it has")
{
    World world;
    const PodSpec &a = world.pod(2);
    const PodSpec &b = world.pod(3);
    const Packet first = udp("10.244.1.2:999", "10.244.1.3:53");
    world.from_pod(a, first);
    world.from_pod(b, first.reversed());

    for (unsigned i = 0; i < 8000; i++) {
        const Packet packet = udp(fmt::format("10.244.1.2:{}", 1000 + i), "10.244.1.3:53");
        world.from_pod(a, packet);
        world.from_pod(b, packet.reversed());
    }
    CHECK(world.drops(TW_DROP_FLOWS_FULL) > 0);
    CHECK(world.from_pod(a, first).verdict == verdict_redirect);
    CHECK(world.from_pod(b, first.reversed()).verdict == verdict_redirect);
    CHECK(all_paired(world));
}

TEST_CASE("every row has its other half")
{
    World world;
    const PodSpec &a = world.pod(2);
    world.pod(3);
    for (unsigned i = 0; i < 3000; i++)
        world.from_pod(a, tcp(fmt::format("10.244.1.2:{}", 1000 + i), "10.244.1.3:80"));

    CHECK(world.rows4().size() > 2000);
    CHECK(all_paired(world));
}

TEST_CASE("flows of neighbouring clients and services lie as chance would lay them")
{
    World world;
    std::vector<PodSpec> pods;
    for (unsigned i = 2; i < 10; i++)
        pods.push_back(world.pod(i));
    for (unsigned port = 1000; port < 1008; port++)
        for (unsigned to = 1; to <= 8; to++)
            for (unsigned i = 0; i < 8; i++) {
                world.from_pod(pods[i],
                               udp(fmt::format("10.244.1.{}:{}", 2 + i, port), fmt::format("10.244.2.{}:53", to)));
                world.from_pod(pods[i], udp(fmt::format("[fd00:10:244:1::{}]:{}", 2 + i, port),
                                            fmt::format("[fd00:10:244:2::{}]:53", to)));
            }

    // 1024 rows in 1024 buckets leave 1/e of them empty: 377, give or take 15.
    const auto used = [](const auto &buckets) {
        unsigned count = 0;
        for (uint32_t i = 0; i < 1024; i++)
            count += std::ranges::any_of(buckets[i].row, [](const auto &row) { return row.head.word & TW_FLOW_STATE; });
        return count;
    };
    CHECK(used(world.arrays.flows4) > 560);
    CHECK(used(world.arrays.flows6) > 560);
}
