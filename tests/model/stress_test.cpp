// SPDX-License-Identifier: Apache-2.0
// The flow table under real CPUs: bpf/lib/flow.h compiled as it is, four writers and a sweep over one small table.
#include "tests/model/flow_table.h"
#include "tests/shim/shim.h"

#include <atomic>
#include <catch2/catch_get_random_seed.hpp>
#include <catch2/catch_test_macros.hpp>
#include <chrono>
#include <cstdlib>
#include <fmt/format.h>
#include <mutex>
#include <random>
#include <sched.h>
#include <thread>

using namespace thruway::model;
using Clock = std::chrono::steady_clock;

namespace {

constexpr unsigned writers = 4;
constexpr uint32_t buckets = 16;
constexpr uint32_t kept_each = 2; ///< live flows of each writer, which nothing may end
constexpr uint32_t flows = 48;    ///< more than there is room for
constexpr uint8_t ack = 0x10;
constexpr uint8_t fin = 0x01;
constexpr uint8_t syn = 0x02;
constexpr uint8_t rst = 0x04;

uint64_t number_from(const char *variable, uint64_t otherwise)
{
    const char *text = std::getenv(variable);
    return text ? std::stoull(text) : otherwise;
}

/// How long both families are at it, and how much the writers do at least, however long that takes.
std::chrono::milliseconds duration()
{
    return std::chrono::milliseconds(1000 * number_from("THRUWAY_STRESS_SECONDS", 3));
}

uint64_t operations_wanted()
{
    return number_from("THRUWAY_STRESS_OPERATIONS", 0);
}

/// The first thing that did not hold.
class Complaints {
public:
    void add(const std::string &what)
    {
        const std::scoped_lock lock(mutex_);
        if (first_.empty())
            first_ = what;
        any_ = true;
    }
    [[nodiscard]] bool any() const { return any_; }
    [[nodiscard]] const std::string &first() const { return first_; }

private:
    std::mutex mutex_;
    std::string first_;
    std::atomic<bool> any_ = false;
};

/// Ticks of half a second: a thread that is not scheduled for a while must not look at the table with a clock of long
/// ago.
uint16_t tick()
{
    using Ticks = std::chrono::duration<int64_t, std::ratio<1, 2>>;
    return static_cast<uint16_t>(std::chrono::duration_cast<Ticks>(Clock::now().time_since_epoch()).count());
}

void pin(unsigned number)
{
    const unsigned cpus = std::max(1U, std::thread::hardware_concurrency());
    cpu_set_t set;
    CPU_ZERO(&set);
    CPU_SET(number % cpus, &set);
    sched_setaffinity(0, sizeof(set), &set);
    shim_cpu = number;
}

uint32_t kept(unsigned writer, uint32_t nth)
{
    return 200 + writer * kept_each + nth;
}

/// One step in the life of some flow, from either side.
void step(const FlowTable &table, std::minstd_rand &random, uint16_t now)
{
    const auto number = static_cast<uint32_t>(1 + random() % flows);
    const bool reply = random() % 2 == 0;
    switch (random() % 16) {
    case 0:
        table.end(number, now, reply);
        break;
    case 1:
        table.repoint(number, now, random() % 2 == 0 ? FlowTable::here : FlowTable::there, reply);
        break;
    case 2:
        table.advance(number, now, random() % 2 == 0 ? fin | ack : rst, reply);
        break;
    case 3:
        table.advance(number, now, reply ? syn | ack : ack, reply);
        break;
    case 4:
    case 5:
        table.open(number + (random() % 2 == 0 ? 0x100U : 0), now); // another flow may have this reply tuple
        break;
    default:
        if (const seen seen = table.find(number, now, reply); seen.result != TABLE_MISSING)
            table_touch(&seen, now, table.v6());
        break;
    }
}

uint64_t write(const FlowTable &table, unsigned writer, unsigned seed, const std::atomic<bool> &stop)
{
    std::minstd_rand random(seed + writer);
    uint64_t operations = 0;
    pin(writer);
    while (!stop) {
        const uint16_t now = tick();
        for (int i = 0; i < 64; i++)
            step(table, random, now);
        const uint32_t mine = kept(writer, static_cast<uint32_t>(random() % kept_each));
        table.check_alive(mine, now);
        table.repoint(mine, now, random() % 2 == 0 ? FlowTable::here : FlowTable::there, random() % 2 == 0);
        operations += 67;
    }
    return operations;
}

uint64_t sweep(const FlowTable &table, const std::atomic<bool> &stop)
{
    uint64_t rows = 0;
    pin(writers);
    while (!stop) {
        table.sweep(tick());
        rows += table.places().size();
    }
    return rows;
}

/// What was done: steps in the lives of flows, and rows that gc has looked at.
struct Work {
    std::atomic<uint64_t> operations = 0;
    std::atomic<uint64_t> swept = 0;
};

/// Everybody for a while; then the table lies still and is looked at.
void round_of(const FlowTable &table, unsigned seed, std::chrono::milliseconds time, Work &work)
{
    std::atomic<bool> stop = false;
    {
        std::vector<std::jthread> threads;
        for (unsigned writer = 0; writer < writers; writer++)
            threads.emplace_back([&, writer] { work.operations += write(table, writer, seed, stop); });
        threads.emplace_back([&] { work.swept += sweep(table, stop); });
        std::this_thread::sleep_for(time);
        stop = true;
    }
    table.check_at_rest();
}

void stress(bool v6)
{
    const auto begin = Clock::now();
    const auto end = begin + duration() / 2;
    Complaints complaints;
    const FlowTable table(v6, buckets, [&](const std::string &what) { complaints.add(what); });
    config.tcp_half_open = config.tcp_closing = 1;
    for (unsigned writer = 0; writer < writers; writer++)
        for (uint32_t nth = 0; nth < kept_each; nth++)
            REQUIRE(table.create(kept(writer, nth), TW_FLOW_ESTABLISHED, tick()) == TABLE_CREATED);

    auto seed = Catch::getSeed();
    INFO("seed " << seed);
    Work work;
    while ((Clock::now() < end || work.operations < operations_wanted() / 2) && !complaints.any())
        round_of(table, seed += 100, std::chrono::milliseconds(250), work);
    const std::chrono::duration<double> took = Clock::now() - begin;
    fmt::print("  {}: {} operations and {} rows swept in {:.0f} s\n", v6 ? "v6" : "v4", work.operations.load(),
               work.swept.load(), took.count());
    INFO(complaints.first());
    CHECK_FALSE(complaints.any());
}

} // namespace

TEST_CASE("four writers and a sweep leave every IPv4 flow whole")
{
    stress(false);
}

TEST_CASE("four writers and a sweep leave every IPv6 flow whole")
{
    stress(true);
}
