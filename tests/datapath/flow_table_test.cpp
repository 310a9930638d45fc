// SPDX-License-Identifier: Apache-2.0
// The flow table over time: where flows lie that their bucket has no room for, what gc ends, and how a table takes the
// place of another one.
#include "agent/datapath/flow_tables.h"
#include "agent/datapath/flows.h"
#include "tests/datapath/world.h"

#include <bpf/bpf.h>
#include <catch2/catch_test_macros.hpp>
#include <filesystem>
#include <unistd.h>

using namespace thruway;
using namespace thruway::test;

namespace {

template<typename T>
T must(Result<T> result)
{
    if (!result)
        throw std::runtime_error(result.error().text());
    if constexpr (!std::is_void_v<T>)
        return std::move(*result);
}

template<typename Visit>
void each_row(Arrays &arrays, Visit visit)
{
    for (uint32_t bucket = 0; bucket < arrays.flows4.size(); bucket++)
        for (tw_flow4 &row : arrays.flows4[bucket].row)
            if ((row.head.word & TW_FLOW_STATE) != TW_FLOW_FREE)
                visit(row.head);
}

uint32_t rows(Arrays &arrays)
{
    return flow_census({&arrays.flows4, &arrays.flows6})[0].total();
}

/// As if so many ticks had passed since each row was used last.
void age(Arrays &arrays, uint32_t ticks)
{
    const uint16_t now = flow_clock();
    each_row(arrays, [&](tw_flow &row) { row.last_seen = static_cast<uint16_t>(now - ticks); });
}

uint64_t events(const World &world, tw_flow_event event)
{
    return must(read_flow_events(world.datapath->maps())).at(event);
}

uint32_t buckets_marked(const Arrays &arrays)
{
    uint32_t marked = 0;
    for (uint32_t bucket = 0; bucket < arrays.flows4.size(); bucket++)
        marked += (arrays.flows4[bucket].row[0].head.word & TW_FLOW_SPILLED) != 0;
    return marked;
}

/// UDP flows between two pods, answered.
class Exchanges {
public:
    Exchanges(World &world, unsigned count) : world_(&world), a_(&world.pod(2)), b_(&world.pod(3))
    {
        for (unsigned i = 0; i < count; i++)
            requests_.push_back(udp(fmt::format("10.244.1.2:{}", 1000 + i), "10.244.1.3:53"));
    }

    /// Both directions of each; how many packets did not arrive.
    unsigned exchange()
    {
        unsigned lost = 0;
        for (const Packet &request : requests_) {
            lost += world_->from_pod(*a_, request).verdict != verdict_redirect;
            lost += world_->from_pod(*b_, request.reversed()).verdict != verdict_redirect;
        }
        return lost;
    }

    [[nodiscard]] const PodSpec &from() const { return *a_; }
    [[nodiscard]] const Packet &request(size_t i) const { return requests_.at(i); }

private:
    World *world_;
    const PodSpec *a_;
    const PodSpec *b_;
    std::vector<Packet> requests_;
};

/// What is pinned when a test ends would be taken for a node's own by the next one.
struct PinsGone {
    ~PinsGone() { std::ignore = Datapath::cleanup(pins); }
};

DatapathOptions with_rows(uint32_t count)
{
    DatapathOptions options = World::options();
    options.sizes.flows = count;
    return options;
}

bool is_pinned(const char *name)
{
    return std::filesystem::exists(fmt::format("{}/{}", pins, name));
}

/// An agent as far as the flow table is concerned.
struct Agent {
    explicit Agent(const DatapathOptions &options)
        : datapath(must(Datapath::open(options))), arrays(must(Arrays::of(datapath.maps(), true))), gc(datapath, arrays)
    {
        datapath.commit();
    }

    void move_flows()
    {
        while (!must(gc.step(true))) {
        }
    }

    void end_change()
    {
        must(datapath.forget_previous_table());
        datapath.drop_previous_table();
        arrays.previous.reset();
    }

    Datapath datapath;
    Arrays arrays;
    Gc gc;
};

} // namespace

TEST_CASE("flows that their bucket has no room for lie in the spill area, and are found there")
{
    World world;
    Exchanges flows(world, 1100); // 2200 rows for 4096: at three quarters some run in ten would refuse one

    CHECK(flows.exchange() == 0);
    const FlowCensus census = flow_census({&world.arrays.flows4, &world.arrays.flows6})[0];
    CHECK(census.total() == 2200);
    CHECK(census.spilled > 40);
    CHECK(census.spilled < 220);
    CHECK(events(world, TW_FLOW_EVENT_SPILLED) == census.spilled);
    CHECK(buckets_marked(world.arrays) > 20);
    CHECK(flows.exchange() == 0);
    CHECK(rows(world.arrays) == 2200);
}

TEST_CASE("a bucket is no longer marked once none of its flows lies in the spill area")
{
    World world;
    Exchanges flows(world, 1500);
    flows.exchange();
    REQUIRE(buckets_marked(world.arrays) > 50);

    SECTION("gc takes the mark off")
    {
        age(world.arrays, 1000);
        world.walk_flows();
        CHECK(rows(world.arrays) == 0);
        world.walk_flows();
    }
    SECTION("who puts a flow into the bucket does")
    {
        age(world.arrays, 1000);
        for (unsigned i = 0; i < 3; i++) {
            flows.exchange();
            age(world.arrays, 1000);
        }
        CHECK(buckets_marked(world.arrays) < 1024);
        world.walk_flows();
        world.walk_flows();
    }
    CHECK(buckets_marked(world.arrays) == 0);
}

TEST_CASE("a flood of connections that are never completed costs established flows nothing")
{
    World world;
    Exchanges flows(world, 700);
    REQUIRE(flows.exchange() == 0);
    for (unsigned i = 0; i < 20'480; i++) // ten times as many as there is room for
        world.from_pod(flows.from(),
                       tcp(fmt::format("10.244.1.2:{}", 1000 + i), fmt::format("10.244.2.{}:80", i % 250)));
    const FlowCensus before = flow_census({&world.arrays.flows4, &world.arrays.flows6})[0];
    CHECK(before.rows[TW_FLOW_ESTABLISHED] == 1400);
    CHECK(before.rows[TW_FLOW_HALF_OPEN] > 1000);
    CHECK(flows.exchange() == 0);
    CHECK(rows(world.arrays) == before.total());
    CHECK(world.drops(TW_DROP_FLOWS_FULL) == 0);
    CHECK(events(world, TW_FLOW_EVENT_EVICTED_HALF_OPEN) > 15'000);
}

TEST_CASE("each kind of flow is forgotten after its own time, and not before")
{
    World world;
    const PodSpec &a = world.pod(2);
    const PodSpec &b = world.pod(3);
    const Packet connect = tcp("10.244.1.2:1000", "10.244.1.3:80");
    const Packet ask = udp("10.244.1.2:1000", "10.244.1.3:53");
    const Packet associate = sctp("10.244.1.2:1000", "10.244.1.3:2905");
    const Packet echo = ping("10.244.1.2", "10.244.1.3", 7);
    const auto answered = [&](const Packet &first, uint8_t flags) {
        world.from_pod(a, first);
        world.from_pod(b, first.reversed().with_flags(flags));
    };
    const Timeouts timeouts;
    uint32_t seconds = 0;

    SECTION("half-open")
    {
        world.from_pod(a, connect);
        seconds = timeouts.tcp_half_open;
    }
    SECTION("answered")
    {
        answered(connect, syn | ack);
        seconds = timeouts.tcp_half_open;
    }
    SECTION("established")
    {
        answered(connect, syn | ack);
        world.from_pod(a, connect.with_flags(ack));
        seconds = timeouts.tcp_established;
    }
    SECTION("closing")
    {
        answered(connect, fin | ack);
        world.from_pod(a, connect.with_flags(fin | ack));
        seconds = timeouts.tcp_closing;
    }
    SECTION("reset, which its receiver may not believe")
    {
        answered(connect, rst);
        seconds = timeouts.tcp_half_open;
    }
    SECTION("SCTP, aborted, which its receiver may not believe")
    {
        answered(associate, 0);
        world.from_pod(a, with_chunk(associate, Chunk::abort));
        seconds = timeouts.udp_two_way;
    }
    SECTION("UDP, one way")
    {
        world.from_pod(a, ask);
        seconds = timeouts.udp_one_way;
    }
    SECTION("UDP, two ways")
    {
        answered(ask, 0);
        seconds = timeouts.udp_two_way;
    }
    SECTION("ping")
    {
        world.from_pod(a, echo);
        seconds = timeouts.icmp;
    }
    SECTION("ping, answered")
    {
        world.from_pod(a, echo);
        world.from_pod(b, pong(echo));
        seconds = timeouts.icmp;
    }
    const auto ticks = static_cast<uint32_t>((uint64_t{seconds} * 1'000'000'000 >> TW_CLOCK_SHIFT) + 1);
    REQUIRE(rows(world.arrays) == 2);
    age(world.arrays, ticks - 1);
    world.walk_flows();
    CHECK(rows(world.arrays) == 2);
    age(world.arrays, ticks + 1);
    world.walk_flows();
    CHECK(rows(world.arrays) == 0);
    CHECK(events(world, TW_FLOW_EVENT_EXPIRED) == 1);
}

TEST_CASE("a flow lives as long as one of its directions is used")
{
    World world;
    Exchanges flows(world, 1);
    flows.exchange();
    age(world.arrays, 1000);
    each_row(world.arrays, [](tw_flow &row) {
        if (row.flags & TW_FLOW_REPLY)
            row.last_seen = flow_clock();
    });
    world.walk_flows();
    CHECK(rows(world.arrays) == 2);
}

TEST_CASE("gc frees a row that has lost its other half")
{
    World world;
    Exchanges flows(world, 2);
    flows.exchange();
    bool cut = false;
    each_row(world.arrays, [&](tw_flow &row) {
        if (!std::exchange(cut, true))
            row.word = (row.word & TW_FLOW_VERSION) + TW_FLOW_VERSION_STEP;
    });
    REQUIRE(rows(world.arrays) == 3);
    world.walk_flows();
    CHECK(rows(world.arrays) == 3); // it may be half made
    age(world.arrays, 3);
    world.walk_flows();
    CHECK(rows(world.arrays) == 2);
    CHECK(events(world, TW_FLOW_EVENT_REPAIRED) == 1);
    CHECK(flows.exchange() == 0);
}

TEST_CASE("UDP flows to a backend that is gone end, TCP flows go on")
{
    World world;
    const PodSpec &a = world.pod(2);
    world.pod(3);
    world.pod(4);
    world.service("dns", {"10.96.0.1:53"}, {"10.244.1.3:53"}, Protocol::udp);
    world.service("web", {"10.96.0.2:80"}, {"10.244.1.3:80"});
    world.from_pod(a, udp("10.244.1.2:1000", "10.96.0.1:53"));
    world.from_pod(a, tcp("10.244.1.2:1000", "10.96.0.2:80"));
    const auto walk = [&] {
        for (const tw_purge &purge : world.services->take_purges())
            world.gc->purge(purge);
        world.walk_flows();
    };

    walk();
    CHECK(rows(world.arrays) == 4);
    SECTION("the backend leaves the service")
    {
        world.service("dns", {"10.96.0.1:53"}, {"10.244.1.4:53"}, Protocol::udp);
        world.service("web", {"10.96.0.2:80"}, {"10.244.1.4:80"});
    }
    SECTION("the service goes")
    {
        world.remove_service("dns");
    }
    walk();
    CHECK(rows(world.arrays) == 2);
    CHECK(events(world, TW_FLOW_EVENT_PURGED) == 1);
    CHECK_FALSE(world.gc->hurries());
}

TEST_CASE("the flows of a pod that is gone end")
{
    World world;
    const PodSpec &a = world.pod(2);
    const PodSpec &b = world.pod(3);
    world.pod(4);
    world.from_pod(a, tcp("10.244.1.2:1000", "10.244.1.3:80"));
    world.from_pod(b, tcp("10.244.1.3:1000", "10.244.2.9:80"));
    world.from_pod(a, tcp("10.244.1.2:1000", "10.244.1.4:80"));
    REQUIRE(rows(world.arrays) == 6);

    world.remove_pod(b);
    world.walk_flows();
    CHECK(rows(world.arrays) == 2);
}

TEST_CASE("flows of a table that changes its size are found in each phase, whatever program sees them", "[reloads]")
{
    for (const uint32_t size : {16'384U, 2'048U}) {
        World world;
        const PinsGone gone;
        Exchanges flows(world, 300);
        const Packet early = udp("10.244.1.2:10", "10.244.1.3:53");
        const Packet late = udp("10.244.1.2:11", "10.244.1.3:53");
        flows.exchange();
        const Fd before = World::program("from_pod");
        INFO("to " << size << " rows");

        // 1 and 2: programs that know both tables; others are still at work
        Agent agent(with_rows(size));
        REQUIRE(agent.arrays.previous);
        CHECK(agent.datapath.loaded());
        CHECK(flows.exchange() == 0);
        world.from_pod(flows.from(), early);
        CHECK(rows(agent.arrays) == 0);
        CHECK(rows(world.arrays) == 602);
        CHECK(World::run(before, flows.from().ifindex, early.build()).verdict == verdict_redirect);
        CHECK(rows(world.arrays) == 602);

        // 3: new flows in the current table, others where they were
        use_current_flow_tables(agent.arrays);
        world.from_pod(flows.from(), late);
        CHECK(flows.exchange() == 0);
        CHECK(rows(agent.arrays) == 2);
        CHECK(rows(world.arrays) == 602);

        // 4: they move
        agent.move_flows();
        agent.move_flows();
        CHECK(agent.gc.left() == 0);
        CHECK(rows(world.arrays) == 0);
        CHECK(rows(agent.arrays) == 604);
        CHECK(flows.exchange() == 0);
        CHECK(rows(agent.arrays) == 604);

        // 5: the previous table is no more
        agent.end_change();
        CHECK_FALSE(is_pinned("previous4"));
        CHECK_FALSE(is_pinned("previous6"));
        CHECK(flows.exchange() == 0);
        CHECK(rows(agent.arrays) == 604);
        CHECK(Agent(with_rows(size)).datapath.loaded() == false);
    }
}

TEST_CASE("flows keep state, translation and place of service when they move", "[reloads]")
{
    World world;
    const PinsGone gone;
    const PodSpec &a = world.pod(2);
    const PodSpec &b = world.pod(3);
    world.service("web", {"10.96.0.1:80", "[fd00:96::1]:80"}, {"10.244.1.3:8080"});
    const Packet request = tcp("10.244.1.2:1000", "10.96.0.1:80");
    const Packet answer = tcp("10.244.1.3:8080", "10.244.1.2:1000", ack | psh);
    world.from_pod(a, request);
    world.from_pod(b, answer.with_flags(syn | ack));
    world.from_pod(a, request.with_flags(ack));
    world.from_pod(a, request.with_flags(fin | ack));

    Agent agent(with_rows(8192));
    use_current_flow_tables(agent.arrays);
    agent.move_flows();
    REQUIRE(rows(agent.arrays) == 2);
    each_row(agent.arrays, [](const tw_flow &row) {
        CHECK((row.word & TW_FLOW_STATE) == TW_FLOW_ESTABLISHED);
        CHECK((row.word & TW_FLOW_FIN_ORIGINAL) != 0);
        CHECK(row.service != 0);
    });
    CHECK(world.from_pod(b, answer).frame == frame(World::in_pod(answer.with_source(address("10.96.0.1"), 80), a)));
    world.from_pod(b, answer.with_flags(fin | ack));
    each_row(agent.arrays, [](const tw_flow &row) { CHECK((row.word & TW_FLOW_STATE) == TW_FLOW_CLOSING); });
}

TEST_CASE("one flow is never in both tables")
{
    World world;
    const PinsGone gone;
    Exchanges flows(world, 100);
    Agent agent(with_rows(8192));
    flows.exchange(); // made in the previous table
    use_current_flow_tables(agent.arrays);
    for (size_t i = 0; i < 100; i++) // closed, perhaps, but there
        world.from_pod(flows.from(), flows.request(i));
    CHECK(rows(agent.arrays) == 0);
    age(world.arrays, 1000); // now dead: each is made anew, in the current table
    flows.exchange();
    CHECK(rows(agent.arrays) == 200);
    CHECK(rows(world.arrays) == 0);
}

TEST_CASE("a change of the flow table that was cut short is gone on with", "[reloads]")
{
    World world;
    const PinsGone gone;
    Exchanges flows(world, 100);
    flows.exchange();

    SECTION("before new flows went to the new table")
    {
        const Agent killed(with_rows(8192));
    }
    SECTION("while programs were replaced for the last time")
    {
        Agent killed(with_rows(8192));
        use_current_flow_tables(killed.arrays);
        killed.move_flows();
        must(killed.datapath.forget_previous_table());
    }
    {
        Agent agent(with_rows(8192));
        REQUIRE(agent.arrays.previous);
        CHECK(flows.exchange() == 0);
        use_current_flow_tables(agent.arrays);
        CHECK(flows.exchange() == 0);
        agent.move_flows();
        agent.move_flows();
        REQUIRE(agent.gc.left() == 0);
        CHECK(flows.exchange() == 0);
        CHECK(rows(agent.arrays) == 200);
        agent.end_change();
        CHECK(agent.arrays.flows4.size() == flow_buckets(8192));
        CHECK(agent.arrays.flows6.size() == flow_buckets(8192));
    }
    CHECK(flows.exchange() == 0);
}

TEST_CASE("new flow tables whose making was cut short are made again", "[reloads]")
{
    World world;
    const PinsGone gone;
    const uint32_t old4 = world.datapath->maps().flows4.id();
    const uint32_t old6 = world.datapath->maps().flows6.id();

    SECTION("before the first one")
    {
        world.arrays.layout[0].phase = TW_PHASE_PREVIOUS;
        REQUIRE(bpf_obj_pin(world.datapath->maps().flows4.fd(), fmt::format("{}/previous4", pins).c_str()) == 0);
    }
    SECTION("before the second one")
    {
        must(prepare_flow_tables(pins, 8192));
        must(pin_over(world.datapath->maps().flows6.fd(), fmt::format("{}/flows6", pins)));
        ::unlink(fmt::format("{}/previous6", pins).c_str());
    }
    must(prepare_flow_tables(pins, 8192));
    const Maps maps = must(Maps::open(pins));
    REQUIRE(maps.changing());
    CHECK(maps.previous4.id() == old4);
    CHECK(maps.previous6.id() == old6);
    CHECK(maps.flows4.capacity() == flow_buckets(8192));
    CHECK(maps.flows6.capacity() == flow_buckets(8192));
    CHECK(world.arrays.layout[0].phase == TW_PHASE_PREVIOUS);
}

TEST_CASE("a change of the flow table of which only the last pin was left is over", "[reloads]")
{
    World world;
    const PinsGone gone;
    REQUIRE(bpf_obj_pin(world.datapath->maps().flows6.fd(), fmt::format("{}/previous6", pins).c_str()) == 0);
    const Agent agent(World::options());
    CHECK_FALSE(is_pinned("previous6"));
    CHECK_FALSE(agent.arrays.previous);
}

namespace {

/// The hash by which layout version 1 placed a row: written anew, from what that version did.
template<typename Row>
uint32_t hash_of_version_1(const Row &row, uint64_t seed)
{
    const auto mix = [](uint64_t hash, uint64_t value, uint64_t factor) {
        hash = (hash ^ value) * factor;
        return hash ^ (hash >> 32);
    };
    uint64_t hash = seed;
    if constexpr (std::is_same_v<Row, tw_flow4>) {
        hash = mix(hash, uint64_t{row.source} << 32 | row.destination, 0x9e3779b97f4a7c15);
    } else {
        const auto half = [](const tw_address &address, size_t which) {
            return uint64_t{address.word[2 * which + 1]} << 32 | address.word[2 * which];
        };
        hash = mix(hash, half(row.source, 0), 0x9e3779b97f4a7c15);
        hash = mix(hash, half(row.source, 1), 0xbf58476d1ce4e5b9);
        hash = mix(hash, half(row.destination, 0), 0x94d049bb133111eb);
        hash = mix(hash, half(row.destination, 1), 0x9e3779b97f4a7c15);
    }
    const uint64_t ports = uint64_t{row.head.protocol} << 32 |
                           static_cast<uint32_t>(row.head.source_port << 16 | row.head.destination_port);
    return static_cast<uint32_t>(((hash ^ ports) * 0xd6e8feb86659fd93) >> 32);
}

/// Puts the rows that are in use where version 1 would have them.
template<typename Bucket>
void place_as_version_1(const MappedArray<Bucket> &from, MappedArray<Bucket> to, uint64_t seed)
{
    std::map<uint32_t, uint32_t> places; // old to new
    const auto row_at = [](auto &buckets, uint32_t place) -> auto & {
        return buckets[place / TW_FLOW_WAYS].row[place % TW_FLOW_WAYS];
    };
    for (uint32_t place = 0; place < from.size() * TW_FLOW_WAYS; place++) {
        const auto &row = row_at(from, place);
        if ((row.head.word & TW_FLOW_STATE) == TW_FLOW_FREE)
            continue;
        const uint32_t hash = hash_of_version_1(row, seed);
        const uint32_t bucket = hash / TW_FLOW_WAYS & (to.size() - 1);
        uint32_t nth = 0;
        const auto candidate = [&] { return bucket * TW_FLOW_WAYS + ((hash ^ nth) & (TW_FLOW_WAYS - 1)); };
        while (nth < TW_FLOW_WAYS && row_at(to, candidate()).head.word != 0)
            nth++;
        REQUIRE(nth < TW_FLOW_WAYS);
        row_at(to, candidate()) = row;
        places[place] = candidate();
    }
    for (const auto &[old, place] : places)
        row_at(to, place).head.pair = places.at(row_at(from, old).head.pair);
}

} // namespace

TEST_CASE("a table of layout version 1 is taken over with its flows", "[reloads]")
{
    World world;
    const PinsGone gone;
    Exchanges flows(world, 50);
    flows.exchange();
    const auto fabricate = [&]<typename Bucket>(const Map &map, const MappedArray<Bucket> &from) {
        bpf_map_create_opts options{};
        options.sz = sizeof(options);
        options.map_flags = map.flags();
        const uint32_t buckets = map.capacity() / 5 * 4; // without a spill area
        Fd fd(bpf_map_create(BPF_MAP_TYPE_ARRAY, map.name().c_str(), 4, map.value_size(), buckets, &options));
        const Map old = must(Map::adopt(std::move(fd), map.name()));
        place_as_version_1(from, must(MappedArray<Bucket>::of(old, true)), world.arrays.layout[0].flow_seed);
        must(pin_over(old.fd(), fmt::format("{}/{}", pins, map.name())));
    };
    REQUIRE(buckets_marked(world.arrays) == 0);
    fabricate(world.datapath->maps().flows4, world.arrays.flows4);
    fabricate(world.datapath->maps().flows6, world.arrays.flows6);
    world.arrays.layout[0].version = 1;

    Agent agent(World::options());
    REQUIRE(agent.arrays.previous);
    CHECK(agent.arrays.previous->v4.size() == 1024);
    CHECK(world.arrays.layout[0].version == TW_LAYOUT_VERSION);
    CHECK(flows.exchange() == 0);
    use_current_flow_tables(agent.arrays);
    agent.move_flows();
    agent.move_flows();
    CHECK(agent.gc.left() == 0);
    CHECK(rows(agent.arrays) == 100);
    agent.end_change();
    CHECK(flows.exchange() == 0);
    CHECK(rows(agent.arrays) == 100);
}

TEST_CASE("maps of a newer layout are left alone")
{
    World world;
    uint32_t &version = world.arrays.layout[0].version;
    version = TW_LAYOUT_VERSION + 1;
    const auto refused = Datapath::open(World::options());
    version = TW_LAYOUT_VERSION; // the next test takes them over
    REQUIRE_FALSE(refused);
    CHECK(refused.error().text().contains("layout version"));
}
