// SPDX-License-Identifier: Apache-2.0
// What the appliers do to the maps: order, reuse, taking over what a run before has left, full maps.
#include "tests/datapath/world.h"

#include <algorithm>
#include <atomic>
#include <catch2/catch_test_macros.hpp>
#include <set>
#include <thread>

using namespace thruway;
using namespace thruway::test;

namespace {

ServiceKey key(const std::string &name)
{
    return {{Symbol("test"), name}, Symbol("port"), Protocol::tcp, Family::ipv4};
}

ServicePlan plan(const std::string &name, const std::string &frontend, const std::vector<std::string> &backends)
{
    ServicePlan made;
    made.key = key(name);
    made.frontends = {{{address(frontend), 80, Protocol::tcp}}};
    for (const std::string &backend : backends)
        made.backends.push_back({address(backend), 8080});
    return made;
}

/// All that the maps of services hold, byte for byte.
std::string contents(const World &world)
{
    const Maps &maps = world.datapath->maps();
    std::string all;
    for (const Map *map : {&maps.services, &maps.slots, &maps.backends, &maps.nexthops, &maps.generations,
                           &maps.addresses, &maps.layout}) {
        auto memory = Mapping::of(*map, false);
        REQUIRE(memory);
        all.append(memory->data(), memory->size());
    }
    for (const Map *map : {&maps.frontends, &maps.vips, &maps.endpoints, &maps.nodes, &maps.gateways, &maps.ifindexes,
                           &maps.node_addresses}) {
        std::vector<std::string> entries;
        REQUIRE(map->each_raw([&](const void *key, const void *value) {
            entries.push_back(std::string(static_cast<const char *>(key), map->key_size()) +
                              std::string(static_cast<const char *>(value), map->value_size()));
        }));
        std::ranges::sort(entries);
        for (const std::string &entry : entries)
            all += entry;
    }
    return all;
}

ServiceTables adopt(World &world)
{
    auto tables = ServiceTables::adopt(world.datapath->maps(), world.arrays, *world.grace);
    REQUIRE(tables);
    return std::move(*tables);
}

/// Lets everything that rests come back.
void settle(World &world, ServiceTables &tables)
{
    world.grace->wait(world.grace->ticket());
    REQUIRE(tables.apply({}).empty());
}

/// Where new connections to a frontend go: the set of backends that `count` of them reach.
std::set<std::string> reached(World &world, const PodSpec &client, const std::string &frontend, unsigned count = 40)
{
    std::set<std::string> all;
    static uint16_t port = 1000;
    for (unsigned i = 0; i < count; i++) {
        const Outcome out = world.from_pod(client, tcp(fmt::format("10.244.1.2:{}", ++port), frontend));
        if (out.verdict == verdict_redirect)
            all.insert(Address::from_bytes(&out.frame.bytes.at(30), Family::ipv4).text());
    }
    return all;
}

using Set = std::set<std::string>;
using Lines = std::vector<std::string>;

} // namespace

TEST_CASE("a run that wants what the run before has left writes nothing")
{
    World world;
    const std::vector<ServicePlan> plans{plan("a", "10.96.0.1", {"10.244.2.1", "10.244.2.2"}),
                                         plan("b", "10.96.0.2", {"10.244.2.2", "10.244.2.3"}),
                                         plan("c", "10.96.0.3", {})};
    REQUIRE(world.services->apply({plans, {}}).empty());
    // A past that leaves holes and used numbers behind.
    REQUIRE(world.services->apply({{plan("d", "10.96.0.4", {"10.244.2.9"})}, {}}).empty());
    REQUIRE(world.services->apply({{plan("a", "10.96.0.1", {"10.244.2.1"})}, {key("d")}}).empty());
    REQUIRE(world.services->apply({{plans[0]}, {}}).empty());
    const std::string before = contents(world);

    ServiceTables next = adopt(world);
    REQUIRE(next.apply({{plans[2], plans[0], plans[1]}, {}}).empty());
    REQUIRE(next.sweep().empty());
    CHECK(contents(world) == before);
    CHECK(next.fill().services == 3);
    CHECK(next.fill().backends == 3);
    CHECK(next.fill().slots == 4);
    CHECK(next.fill().frontends == 3);
}

TEST_CASE("nothing of the run before goes until everything is known, and then all that nobody wants")
{
    World world;
    const PodSpec &client = world.pod(2);
    REQUIRE(
        world.services->apply({{plan("a", "10.96.0.1", {"10.244.2.1"}), plan("b", "10.96.0.2", {"10.244.2.2"})}, {}})
            .empty());

    ServiceTables next = adopt(world);
    CHECK(reached(world, client, "10.96.0.1:80") == Set{"10.244.2.1"});
    REQUIRE(next.apply({{plan("b", "10.96.0.2", {"10.244.2.3"})}, {}}).empty());
    CHECK(reached(world, client, "10.96.0.1:80") == Set{"10.244.2.1"});
    CHECK(reached(world, client, "10.96.0.2:80") == Set{"10.244.2.3"});
    REQUIRE(next.sweep().empty());
    CHECK(reached(world, client, "10.96.0.1:80", 1) == Set{"10.96.0.1"}); // no frontend any more: routed as it is
    settle(world, next);
    CHECK(next.fill().services == 1);
    CHECK(next.fill().backends == 1);
    CHECK(next.fill().slots == 1);
    CHECK(next.fill().frontends == 1);
}

TEST_CASE("a service keeps its number over restarts, also under another name with the same frontend")
{
    World world;
    REQUIRE(world.services->apply({{plan("a", "10.96.0.1", {}), plan("b", "10.96.0.2", {})}, {}}).empty());
    const uint32_t id = world.services->id_of(key("b"));
    ServiceTables next = adopt(world);
    REQUIRE(next.apply({{plan("renamed", "10.96.0.2", {})}, {}}).empty());
    CHECK(next.id_of(key("renamed")) == id);
    CHECK(next.id_of(key("b")) == 0);
}

TEST_CASE("a frontend that passes from one service to another in one round leads to the new one")
{
    World world;
    const PodSpec &client = world.pod(2);
    REQUIRE(
        world.services->apply({{plan("a", "10.96.0.1", {"10.244.2.1"}), plan("b", "10.96.0.2", {"10.244.2.2"})}, {}})
            .empty());
    ServicePlan both = plan("b", "10.96.0.1", {"10.244.2.2"});
    both.frontends.push_back({{address("10.96.0.2"), 80, Protocol::tcp}});
    REQUIRE(world.services->apply({{both}, {key("a")}}).empty());
    CHECK(reached(world, client, "10.96.0.1:80") == Set{"10.244.2.2"});
    CHECK(reached(world, client, "10.96.0.2:80") == Set{"10.244.2.2"});
}

TEST_CASE("a full map is told once by name, and what fits goes on; room that comes free is used")
{
    World world;
    const PodSpec &client = world.pod(2);
    std::vector<std::string> many;
    for (unsigned i = 0; i < 1000; i++)
        many.push_back(fmt::format("10.244.{}.{}", 10 + i / 200, 1 + i % 200));
    std::ranges::sort(many, {}, [](const std::string &text) { return address(text); });
    REQUIRE(world.services->apply({{plan("big", "10.96.0.1", many)}, {}}).empty());

    std::vector<std::string> more;
    for (unsigned i = 0; i < 30; i++)
        more.push_back(fmt::format("10.244.20.{}", 1 + i));
    std::ranges::sort(more, {}, [](const std::string &text) { return address(text); });
    const Lines told{"Service test/late port port/TCP (IPv4): map backends is full (1024 entries)"};
    CHECK(world.services->apply({{plan("late", "10.96.0.2", more)}, {}}) == told);
    CHECK(world.services->apply({{plan("small", "10.96.0.3", {"10.244.20.1"})}, {}}).empty());
    CHECK(reached(world, client, "10.96.0.3:80") == Set{"10.244.20.1"});
    CHECK(reached(world, client, "10.96.0.2:80", 1) == Set{"10.96.0.2"});

    CHECK(world.services->apply({{}, {key("big")}}).empty()); // at once: nothing else may change for long
    CHECK(reached(world, client, "10.96.0.2:80", 400).size() == 30);
}

TEST_CASE("a run puts right what the run before did not come to: who answers pings")
{
    World world;
    const Map &vips = world.datapath->maps().vips;
    REQUIRE(world.services->apply({{plan("a", "10.96.0.1", {}), plan("b", "10.96.0.2", {})}, {}}).empty());
    CHECK(vips.count() == 2U);
    REQUIRE(vips.erase(address("10.96.0.1").raw()));
    REQUIRE(vips.insert(address("10.96.0.3").raw(), 0U));

    ServiceTables next = adopt(world);
    REQUIRE(next.apply({{plan("a", "10.96.0.1", {})}, {}}).empty());
    REQUIRE(next.sweep().empty());
    CHECK(vips.count() == 1U);
    CHECK(!vips.insert(address("10.96.0.1").raw(), 0U)); // it is there
}

TEST_CASE("frontends that do not fit are told by name")
{
    World world;
    std::vector<ServicePlan> plans;
    for (unsigned i = 0; i < 100; i++) {
        ServicePlan made = plan(fmt::format("s{}", i), fmt::format("10.96.1.{}", i), {});
        for (uint16_t port = 1; port < 6; port++)
            made.frontends.push_back({{address(fmt::format("10.97.1.{}", i)), port, Protocol::tcp}});
        plans.push_back(made);
    }
    const Lines lines = world.services->apply({plans, {}});
    CHECK(world.services->fill().frontends == 512);
    CHECK(lines.size() >= (600 - 512) / 6);
    for (const std::string &line : lines)
        CHECK(line.find("map frontends is full (512 entries)") != std::string::npos);
}

TEST_CASE("slots and backends that come free are used again")
{
    World world;
    for (unsigned i = 0; i < 3000; i++) { // far more than there is room for without reuse
        std::vector<std::string> backends;
        for (unsigned j = 0; j < 20; j++)
            backends.push_back(fmt::format("10.244.{}.{}", 10 + (i + j) % 200, 1 + j));
        std::ranges::sort(backends, {}, [](const std::string &text) { return address(text); });
        REQUIRE(world.services->apply({{plan("a", "10.96.0.1", backends)}, {}}).empty());
    }
    CHECK(world.services->fill().slots < 4096);
    CHECK(world.services->fill().backends < 1024);
}

TEST_CASE("what a round lets go of is not given out again in that round")
{
    World world;
    REQUIRE(world.services->apply({{plan("a", "10.96.0.1", {"10.244.2.1"}), plan("b", "10.96.0.2", {})}, {}}).empty());
    // A packet may have come this far, and read the rest after the next round.
    const tw_range range = world.arrays.services[world.services->id_of(key("a"))].cluster;
    const uint32_t index = world.arrays.slot(range.base);

    REQUIRE(
        world.services->apply({{plan("a", "10.96.0.1", {"10.244.2.2"}), plan("b", "10.96.0.2", {"10.244.2.3"})}, {}})
            .empty());
    CHECK(world.arrays.slot(range.base) == index);
    CHECK(Address(world.arrays.backends[index].address) == address("10.244.2.1"));
}

TEST_CASE("a backend that passes from one range to another in one round stays the same one")
{
    World world;
    ServicePlan local = plan("a", "10.96.0.1", {"10.244.1.2", "10.244.2.1"});
    local.internal_local = true;
    local.local = {{address("10.244.1.2"), 8080}};
    const auto numbers = [&](const tw_range &range) {
        std::set<uint32_t> all;
        for (uint32_t i = 0; i < range.count; i++)
            all.insert(world.arrays.slot(range.base + i));
        return all;
    };
    REQUIRE(world.services->apply({{local}, {}}).empty());
    const tw_service &row = world.arrays.services[world.services->id_of(key("a"))];
    const std::set<uint32_t> before = numbers(row.cluster);

    local.local.swap(local.backends);
    REQUIRE(world.services->apply({{local}, {}}).empty());
    CHECK(numbers(row.local) == before);

    // And one that nobody has in the end is gone, however often it went to and fro.
    ServicePlan other = plan("b", "10.96.0.2", {"10.244.2.1"});
    for (int i = 0; i < 3; i++) {
        REQUIRE(world.services->apply({{other}, {key("a")}}).empty());
        REQUIRE(world.services->apply({{local}, {key("b")}}).empty());
    }
    REQUIRE(world.services->apply({{}, {key("a")}}).empty());
    settle(world, *world.services);
    CHECK(world.services->fill().backends == 0);
}

TEST_CASE("while backends change, every new connection reaches one of the service, and no other's", "[cpus]")
{
    World world;
    const PodSpec &client = world.pod(2);
    std::atomic<bool> done = false;
    // Two services share the slots and backends that come free: what one lets go of, the other takes up.
    const auto backends = [](unsigned net, unsigned round) {
        std::vector<std::string> all;
        for (unsigned i = 0; i < 1 + round % 7; i++)
            all.push_back(fmt::format("10.244.{}.{}", net, 1 + (round + i) % 250));
        std::ranges::sort(all, {}, [](const std::string &text) { return address(text); });
        return all;
    };
    REQUIRE(
        world.services->apply({{plan("a", "10.96.0.1", backends(10, 0)), plan("b", "10.96.0.2", backends(20, 0))}, {}})
            .empty());

    std::thread changer([&] {
        for (unsigned round = 1; !done; round++)
            world.services->apply(
                {{plan("a", "10.96.0.1", backends(10, round)), plan("b", "10.96.0.2", backends(20, round))}, {}});
    });
    unsigned wrong = 0;
    for (unsigned i = 0; i < 60'000; i++) {
        const bool first = i % 2 == 0;
        // UDP-like brevity: the flow is reset at once, so that the table never fills.
        const Packet request =
            tcp(fmt::format("10.244.1.2:{}", 1024 + i % 30'000), first ? "10.96.0.1:80" : "10.96.0.2:80");
        const Outcome out = world.from_pod(client, request);
        const bool right = out.verdict == verdict_redirect && out.frame.bytes.at(32) == (first ? 10 : 20);
        wrong += !right;
        world.from_pod(client, request.with_flags(rst));
    }
    done = true;
    changer.join();
    CHECK(wrong == 0);
    CHECK(world.drops(TW_DROP_NO_BACKEND) == 0);
}

TEST_CASE("a neighbour that moves is one write, and no flow is judged again")
{
    World world;
    const PodSpec &pod = world.pod(2);
    const Packet request = tcp("10.244.1.2:1000", "10.244.2.9:80");
    world.from_pod(pod, request);
    const auto judged = world.rows4().front().head.judged;

    NextHop moved;
    moved.ifindex = world.uplink.index;
    moved.mtu = 1500;
    moved.from = world.uplink.mac;
    moved.to = MacBytes{0x02, 0xee, 0, 0, 0, 0x99};
    moved.gateway = address("172.20.0.12");
    REQUIRE(world.nexthops->set_node(*Prefix::parse("10.244.2.0/24"), moved));
    const Packet more = request.with_flags(ack);
    CHECK(world.from_pod(pod, more).frame == frame(world.on_wire(more).with_macs(world.uplink.mac, *moved.to)));
    CHECK(world.rows4().front().head.judged == judged);
}

TEST_CASE("next hops of the run before are kept, and those that nobody wants go")
{
    World world;
    const PodSpec &a = world.pod(2);
    const PodSpec &b = world.pod(3);
    const Packet request = tcp("10.244.1.2:1000", "10.244.1.3:80");
    world.from_pod(a, request);
    const std::string before = contents(world);

    auto next = NextHopTables::adopt(world.datapath->maps(), world.arrays, *world.grace, 64);
    REQUIRE(next);
    CHECK(next->endpoint_id(b.addresses[0]) == world.nexthops->endpoint_id(b.addresses[0]));
    for (const PodSpec *pod : {&b, &a}) {
        NextHop hop;
        hop.ifindex = pod->ifindex;
        hop.mtu = 1500;
        hop.from = pod->host_mac;
        hop.to = pod->mac;
        hop.source = {address("172.20.0.11"), address("fd20::11")};
        REQUIRE(next->set_endpoint(pod->addresses, hop));
    }
    CHECK(contents(world) == before);
    CHECK(world.from_pod(a, request.with_flags(ack)).verdict == verdict_redirect);

    next->sweep(); // what was not set again: uplink, gateways, nodes
    CHECK(world.from_pod(a, request.with_flags(ack)).verdict == verdict_redirect);
    CHECK(world.datapath->maps().nodes.count() == 0U);
    CHECK(world.datapath->maps().gateways.count() == 0U);
}
