// SPDX-License-Identifier: Apache-2.0
// The flow table's protocol in every interleaving of a few packets: bpf/lib/flow.h on the machine of machine.h.
#include "tests/model/flow_table.h"
#include "tests/model/machine.h"
#include "tests/shim/shim.h"

#include <algorithm>
#include <catch2/catch_test_macros.hpp>
#include <catch2/generators/catch_generators.hpp>
#include <cstdlib>
#include <fmt/format.h>
#include <span>
#include <stdexcept>

using namespace thruway::model;

namespace {

constexpr uint16_t now = 100;
constexpr PreviousTable layout1{.buckets = 2, .spills = false};
constexpr uint8_t ack = 0x10;
constexpr uint8_t fin = 0x01;
constexpr uint8_t rst = 0x04;

using Packet = std::function<void(const FlowTable &)>;

/// What runs at once, and what it finds.
struct Scene {
    uint32_t buckets = 2;
    PreviousTable previous;
    Packet before = [](const FlowTable &) {};
    std::vector<Packet> packets;             ///< each on a CPU of its own
    std::vector<FlowTable::Program> knows;   ///< on the first CPUs; on others a program that knows both tables
    std::vector<uint32_t> live;              ///< flows that nothing may end
    std::vector<uint32_t> standing;          ///< flows that stand in one of the tables at every moment
    Packet after = [](const FlowTable &) {}; ///< when all of that is over
    unsigned surprises = 2;                  ///< see machine.h
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
    std::vector<Region> regions{{table_phase(), sizeof(uint32_t), [](size_t) { return "phase"; }, {}}};
    for (const bool previous : {false, true}) {
        const std::span<std::byte> memory = table.memory(previous);
        const char *name = previous ? "previous row" : "row";
        regions.push_back(
            {memory.data(), memory.size(),
             [=](size_t at) { return fmt::format("{} {} +{}", name, at / row, at % row); },
             // An update of a counter that is lost costs a packet in a count.
             [=](size_t at) { return at % row >= offsetof(tw_flow, packets) && at % row < sizeof(tw_flow); }});
    }
    return regions;
}

/// What must hold after each store: no key stands twice in a table, no original stands that was published before its
/// reply row, and flows that are not to vanish, even for a moment, can be found.
class Watch {
public:
    Watch(const FlowTable &table, const Scene &scene) : table_(table), scene_(scene) {}

    void begin()
    {
        before_.clear();
        for (const uint32_t place : table_.places())
            before_.push_back(state_of(table_.row(place)));
    }

    void after_store()
    {
        for (size_t i = 0; i < before_.size(); i++) {
            const uint32_t place = table_.places()[i];
            const tw_flow &row = table_.row(place);
            if (state_of(row) == TW_FLOW_CLAIMED)
                continue;
            if (stands(row) && before_[i] == TW_FLOW_FREE && !(row.flags & TW_FLOW_REPLY) &&
                !table_.partner_stands(place) && !reply_stood(place))
                violation(fmt::format("row {:#x} stands without a reply row", place));
            before_[i] = state_of(row);
            if (stands(row))
                check_alone(place);
        }
        for (const uint32_t number : scene_.standing)
            for (const bool reply : {false, true})
                if (!table_.stands_somewhere(number, reply))
                    violation(fmt::format("flow {} stands in neither table", number));
    }

private:
    /// The row's other half is there; who would end it again may have claimed it already.
    [[nodiscard]] bool reply_stood(uint32_t place) const
    {
        const uint32_t table = place & TW_FLOW_PREVIOUS;
        const auto reply = std::ranges::find(table_.places(), table_.row(place).pair | table);
        return reply != table_.places().end() && table_.row(*reply).pair == (place ^ table) &&
               before_.at(static_cast<size_t>(reply - table_.places().begin())) > TW_FLOW_CLAIMED;
    }

    /// A flow that gc moves has rows in both tables for a while.
    void check_alone(uint32_t place) const
    {
        for (const uint32_t other : table_.places())
            if (other > place && !((other ^ place) & TW_FLOW_PREVIOUS) && stands(table_.row(other)) &&
                table_.same_key(place, other))
                violation(fmt::format("rows {:#x} and {:#x} have one key", place, other));
    }

    const FlowTable &table_;
    const Scene &scene_;
    std::vector<uint32_t> before_;
};

/// Plays the scene in all orders that its surprises can make, for both families and both orders of memory.
void play(const Scene &scene)
{
    const bool v6 = GENERATE(false, true);
    const Order order = GENERATE(Order::sequential, Order::weak);
    FlowTable table(v6, scene.buckets, violation, scene.previous);
    config.loads_reorder = order == Order::weak;
    Watch watch(table, scene);
    Script script;
    script.prepare = [&] { scene.before(table); };
    script.begin = [&] { watch.begin(); };
    script.enter = [&](size_t cpu) {
        table.load(cpu < scene.knows.size() ? scene.knows[cpu] : FlowTable::Program::both);
    };
    script.after_store = [&] { watch.after_store(); };
    for (const Packet &packet : scene.packets)
        script.threads.emplace_back([&] { packet(table); });
    script.finally = [&] {
        table.load(FlowTable::Program::both);
        scene.after(table);
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

Packet seek(uint32_t number, bool reply = false)
{
    return [=](const FlowTable &table) { table.seek(number, now, reply); };
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

/// A SYN on the tuple of a flow that is closing.
Packet reopen(uint32_t number)
{
    return [=](const FlowTable &table) {
        table.end(number, now);
        table.open(number, now);
    };
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
    return [=](const FlowTable &table) { table.sweep(static_cast<uint16_t>(now + ticks)); };
}

/// gc, while the table changes its size.
Packet move()
{
    return [](const FlowTable &table) { table.move(now); };
}

/// gc, when it comes round again. A flow that was changing all the time stays, but only so long.
void move_rest(const FlowTable &table)
{
    table.move(now);
    for (const uint32_t place : table.places())
        if (place & TW_FLOW_PREVIOUS && stands(table.row(place)))
            violation(fmt::format("row {:#x} stays in the previous table", place));
}

/// As open(), of a packet that comes when new flows have just begun to be made in the current table.
Packet open_in_current(uint32_t number)
{
    return [=](const FlowTable &table) {
        table.use_current();
        table.open(number, now);
    };
}

Packet one(tw_flow_state state = TW_FLOW_ESTABLISHED)
{
    return [=](const FlowTable &table) { make(table, 1, state); };
}

/// The scene with flow 1 in the previous table, all programs having come to know the current one.
Scene while_it_moves(Scene scene, tw_flow_state state = TW_FLOW_ESTABLISHED)
{
    scene.buckets = 4;
    scene.previous.buckets = 2;
    scene.before = [=](const FlowTable &table) {
        make(table, 1, state);
        table.use_current();
        for (const bool reply : {false, true})
            if (table.find(1, now, reply).result == TABLE_MISSING)
                throw std::runtime_error("flow 1 cannot be found in the previous table");
    };
    scene.after = move_rest;
    return scene;
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

TEST_CASE("a packet is not taken for nobody's while its flow is pointed elsewhere from both sides")
{
    play({.before = one(), .packets = {repoint(1), repoint(1, true), seek(1)}, .live = {1}, .surprises = 1});
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

TEST_CASE("a flow can be found at every moment while it moves to a larger table")
{
    play(while_it_moves({.packets = {move(), find_both(1)}, .live = {1}, .standing = {1}}));
}

TEST_CASE("a packet is not taken for nobody's while its flow moves to a larger table")
{
    const bool reply = GENERATE(false, true);
    play(while_it_moves({.packets = {move(), seek(1, reply)}, .live = {1}}));
}

TEST_CASE("a flow that moves to a larger table is not opened a second time")
{
    play(while_it_moves({.packets = {move(), open(1)}, .live = {1}, .standing = {1}}));
}

TEST_CASE("a flow ends while it moves to a larger table")
{
    play(while_it_moves({.packets = {move(), end(1)}}));
}

TEST_CASE("a flow can be found at every moment while its state moves on and it moves to a larger table")
{
    play(while_it_moves({.packets = {move(), advance(1, fin | ack), advance(1, rst, true)},
                         .live = {1},
                         .standing = {1},
                         .surprises = 1}));
}

TEST_CASE("a flow is pointed elsewhere while it moves to a larger table")
{
    play(while_it_moves({.packets = {move(), repoint(1)}, .live = {1}}));
}

TEST_CASE("a closing flow is opened anew while it moves to a larger table")
{
    play(while_it_moves({.packets = {move(), reopen(1)}}, TW_FLOW_CLOSING));
}

TEST_CASE("programs that know one table and programs that know both make one flow")
{
    play({.buckets = 4, .previous = {2}, .packets = {open(1), open(1)}, .knows = {FlowTable::Program::before}});
}

TEST_CASE("a flow ends and is opened anew by programs that know one table, and is found by those that know both")
{
    using enum FlowTable::Program;
    play({.buckets = 4,
          .previous = {2},
          .packets = {end(1), find_both(1), open(1)},
          .knows = {before, both, before},
          .surprises = 1});
}

TEST_CASE("one flow is not made in both tables while new flows come to go to the larger one")
{
    play({.buckets = 4, .previous = {2}, .packets = {open(1), open_in_current(1)}});
}

TEST_CASE("flows with one reply tuple do not both come to be, each in another table")
{
    play({.buckets = 4, .previous = {2}, .packets = {open(0x101), open_in_current(0x201)}});
}

TEST_CASE("flows move out of a table of layout version 1, and can be found at every moment")
{
    const Packet packet = GENERATE(find_both(1), seek(1), seek(1, true), open(1));
    play(while_it_moves({.previous = layout1, .packets = {move(), packet}, .live = {1}, .standing = {1}}));
}

TEST_CASE("a flow is pointed elsewhere while it moves out of a table of layout version 1")
{
    play(while_it_moves({.previous = layout1, .packets = {move(), repoint(1)}, .live = {1}}));
}

TEST_CASE("a flow ends, or is opened anew, while it moves out of a table of layout version 1")
{
    const Packet packet = GENERATE(end(1), reopen(1));
    play(while_it_moves({.previous = layout1, .packets = {move(), packet}}, TW_FLOW_CLOSING));
}

TEST_CASE("one flow is not made in both tables, the previous one of layout version 1")
{
    play({.buckets = 4, .previous = layout1, .packets = {open(1), open_in_current(1)}});
}
