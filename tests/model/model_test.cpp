// SPDX-License-Identifier: Apache-2.0
// The flow table's protocol in every interleaving of a few packets: bpf/lib/flow.h on the machine of machine.h.
#include "tests/model/flow_table.h"
#include "tests/model/machine.h"
#include "tests/shim/shim.h"

#include <array>
#include <catch2/catch_test_macros.hpp>
#include <catch2/generators/catch_generators.hpp>
#include <cstdlib>
#include <fmt/format.h>

using namespace thruway::model;

namespace {

constexpr uint16_t now = 100;
constexpr uint8_t ack = 0x10;
constexpr uint8_t fin = 0x01;
constexpr uint8_t rst = 0x04;

using Packet = std::function<void(const FlowTable &)>;

/// What runs at once, and what it finds.
struct Scene {
    uint32_t buckets = 2;
    Packet before = [](const FlowTable &) {};
    std::vector<Packet> packets; ///< each on a CPU of its own
    std::vector<uint32_t> live;  ///< flows that nothing may end
    unsigned surprises = 2;      ///< see machine.h
};

/// Seconds for each scene beyond what its `surprises` take, so that a longer run goes deeper.
std::chrono::milliseconds time_limit()
{
    const char *seconds = std::getenv("THRUWAY_MODEL_SECONDS");
    return std::chrono::milliseconds(seconds ? 1000 * std::stoi(seconds) : 0);
}

void make(const FlowTable &table, uint32_t number, tw_flow_state state = TW_FLOW_ESTABLISHED)
{
    if (table.create(number, state, now) != TABLE_CREATED)
        throw std::runtime_error(fmt::format("no room for flow {}", number));
}

std::vector<Region> memory_of(const FlowTable &table)
{
    const size_t row = table.row_size();
    return {{table_memory(table.v6()), table.size(),
             [row](size_t at) { return fmt::format("row {} +{}", at / row, at % row); },
             // An update of a counter that is lost costs a packet in a count.
             [row](size_t at) { return at % row >= offsetof(tw_flow, packets) && at % row < sizeof(tw_flow); }}};
}

/// What must hold after each store: no key stands twice, and no original stands that was published before its reply
/// row.
class Watch {
public:
    explicit Watch(const FlowTable &table) : table_(table) {}

    void begin()
    {
        for (uint32_t place = 0; place < table_.places(); place++)
            before_.at(place) = state_of(table_.row(place));
    }

    void after_store()
    {
        for (uint32_t a = 0; a < table_.places(); a++) {
            const tw_flow &row = table_.row(a);
            if (state_of(row) == TW_FLOW_CLAIMED)
                continue;
            if (stands(row) && before_.at(a) == TW_FLOW_FREE && !(row.flags & TW_FLOW_REPLY) &&
                !table_.partner_stands(a))
                violation(fmt::format("row {} stands without a reply row", a));
            before_.at(a) = state_of(row);
            for (uint32_t b = a + 1; stands(row) && b < table_.places(); b++)
                if (stands(table_.row(b)) && table_.same_key(a, b))
                    violation(fmt::format("rows {} and {} have one key", a, b));
        }
    }

private:
    const FlowTable &table_;
    std::array<uint32_t, 32> before_{};
};

/// Plays the scene in all orders that its surprises can make, for both families and both orders of memory.
void play(const Scene &scene)
{
    const bool v6 = GENERATE(false, true);
    const Order order = GENERATE(Order::sequential, Order::weak);
    const FlowTable table(v6, scene.buckets, violation);
    config.loads_reorder = order == Order::weak;
    Watch watch(table);
    Script script;
    script.prepare = [&] { scene.before(table); };
    script.begin = [&] { watch.begin(); };
    script.after_store = [&] { watch.after_store(); };
    for (const Packet &packet : scene.packets)
        script.threads.emplace_back([&] { packet(table); });
    script.finally = [&] {
        table.check_at_rest();
        for (const uint32_t number : scene.live)
            table.check_alive(number, now);
    };
    const Report report = explore(memory_of(table), script, {order, scene.surprises, time_limit()});
    fmt::print("  {} {}: {} executions, {}\n", v6 ? "v6" : "v4", order == Order::weak ? "weak" : "sequential",
               report.executions,
               report.exhaustive ? "all there are" : fmt::format("all with {} surprises", report.surprises));
    INFO(report.violation);
    CHECK(report.violation.empty());
}

Packet open(uint32_t number)
{
    return [=](const FlowTable &table) { table.open(number, now); };
}

Packet find(uint32_t number, bool reply = false)
{
    return [=](const FlowTable &table) { table.find(number, now, reply); };
}

Packet find_both(uint32_t number)
{
    return [=](const FlowTable &table) {
        table.find(number, now, true);
        table.find(number, now);
    };
}

Packet end(uint32_t number, bool reply = false)
{
    return [=](const FlowTable &table) { table.end(number, now, reply); };
}

Packet advance(uint32_t number, uint8_t tcp_flags, bool reply = false)
{
    return [=](const FlowTable &table) { table.advance(number, now, tcp_flags, reply); };
}

Packet repoint(uint32_t number, bool reply = false)
{
    return [=](const FlowTable &table) { table.repoint(number, now, FlowTable::there, reply); };
}

/// gc, so many ticks after the flows were last seen; or before, by a clock that is behind.
Packet gc(int ticks)
{
    return [=](const FlowTable &table) {
        table_gc(table.places() / TW_FLOW_WAYS, static_cast<uint16_t>(now + ticks), false, table.v6());
    };
}

Packet one(tw_flow_state state = TW_FLOW_ESTABLISHED)
{
    return [=](const FlowTable &table) { make(table, 1, state); };
}

/// One bucket, whose four rows a live flow and one that may give way share.
void last_room(const FlowTable &table)
{
    make(table, 1);
    make(table, 2, TW_FLOW_HALF_OPEN);
}

} // namespace

TEST_CASE("two packets that open one flow make one flow")
{
    play({.packets = {open(1), open(1)}});
}

TEST_CASE("a packet that reads while a flow is made sees all of it or nothing")
{
    play({.packets = {open(1), find_both(1)}});
}

TEST_CASE("flows with one reply tuple do not both come to be")
{
    play({.packets = {open(0x101), open(0x201)}});
}

TEST_CASE("flows that want the last room tear neither each other nor what lives")
{
    play({.buckets = 1, .before = last_room, .packets = {open(3), open(4)}, .live = {1}});
}

TEST_CASE("a packet that reads while its flow ends sees all of it or nothing")
{
    play({.before = one(), .packets = {end(1), find_both(1)}});
}

TEST_CASE("a packet that reads while its row becomes another flow's sees no mixture")
{
    play({.buckets = 1, .before = last_room, .packets = {open(3), find(2)}, .live = {1}});
}

TEST_CASE("a packet that reads while its row is pointed elsewhere sees no mixture")
{
    play({.before = one(), .packets = {repoint(1), find(1)}, .live = {1}});
}

TEST_CASE("a flow ends while it is made anew")
{
    play({.before = one(TW_FLOW_CLOSING), .packets = {end(1), open(1)}});
}

TEST_CASE("a flow ends from both sides at once")
{
    play({.before = one(), .packets = {end(1), end(1, true)}});
}

TEST_CASE("a flow moves on while it ends")
{
    play({.before = one(), .packets = {end(1), advance(1, fin | ack)}});
}

TEST_CASE("a flow is pointed elsewhere while it ends")
{
    play({.before = one(), .packets = {end(1), repoint(1)}});
}

TEST_CASE("a flow is pointed elsewhere from both sides while it moves on")
{
    play({.before = one(), .packets = {repoint(1), repoint(1, true), advance(1, rst)}, .live = {1}, .surprises = 1});
}

TEST_CASE("gc takes no flow that is being made for a lone half")
{
    play({.packets = {open(1), gc(0)}});
}

TEST_CASE("gc ends a flow while a packet opens its successor")
{
    play({.before = one(TW_FLOW_CLOSING), .packets = {open(1), gc(10)}});
}

TEST_CASE("gc and an eviction do not end half a flow each")
{
    play({.buckets = 1, .before = last_room, .packets = {open(3), gc(10)}, .live = {1}});
}

TEST_CASE("flows that spill are found, whoever takes the spill bit back")
{
    const auto before = [](const FlowTable &table) {
        make(table, 1);
        make(table, 2);
    };
    play({.buckets = 1, .before = before, .packets = {open(3), gc(0)}, .live = {1, 2}, .surprises = 1});
}

TEST_CASE("gc whose clock is behind ends nothing")
{
    play({.before = one(), .packets = {gc(-5), find_both(1)}, .live = {1}});
}
