// SPDX-License-Identifier: Apache-2.0
#include "agent/base/numbers.h"

#include <catch2/catch_test_macros.hpp>
#include <map>
#include <random>

using namespace thruway;

TEST_CASE("ranges are handed out best fit, and neighbours that come back grow together")
{
    RangeAllocator ranges(100);
    CHECK(ranges.allocate(30) == 0);
    CHECK(ranges.allocate(50) == 30);
    CHECK(ranges.allocate(21) == std::nullopt);
    CHECK(ranges.allocate(20) == 80);
    CHECK(ranges.used() == 100);

    ranges.release(0, 30);
    ranges.release(80, 20);
    CHECK(ranges.allocate(20) == 80); // the smaller hole
    ranges.release(30, 50);
    CHECK(ranges.allocate(80) == 0);
}

TEST_CASE("a range that is in use can be reserved once")
{
    RangeAllocator ranges(100);
    CHECK(ranges.reserve(10, 20));
    CHECK_FALSE(ranges.reserve(29, 1));
    CHECK_FALSE(ranges.reserve(90, 11));
    CHECK_FALSE(ranges.reserve(0, 0));
    CHECK(ranges.allocate(11) == 30);
    CHECK(ranges.allocate(10) == 0);
}

TEST_CASE("ranges never overlap, whatever the order of use")
{
    const unsigned seed = std::random_device{}();
    INFO("seed " << seed);
    std::mt19937 random(seed);
    RangeAllocator ranges(1000);
    std::map<uint32_t, uint32_t> held;
    uint32_t total = 0;

    for (int i = 0; i < 20'000; i++) {
        if (random() % 2 == 0 && !held.empty()) {
            auto victim = held.begin();
            std::advance(victim, random() % held.size());
            ranges.release(victim->first, victim->second);
            total -= victim->second;
            held.erase(victim);
        } else {
            const uint32_t count = 1 + static_cast<uint32_t>(random()) % 40;
            if (const auto base = ranges.allocate(count)) {
                const auto after = held.lower_bound(*base);
                REQUIRE((after == held.end() || *base + count <= after->first));
                REQUIRE((after == held.begin() || std::prev(after)->first + std::prev(after)->second <= *base));
                REQUIRE(*base + count <= 1000);
                held.emplace(*base, count);
                total += count;
            }
        }
        REQUIRE(ranges.used() == total);
    }
}

TEST_CASE("a number that came back is used again only when all others have been")
{
    IndexAllocator numbers(1, 4);
    CHECK(numbers.allocate() == 1);
    numbers.release(1);
    CHECK(numbers.allocate() == 2);
    CHECK(numbers.allocate() == 3);
    CHECK(numbers.allocate() == 1);
    CHECK(numbers.allocate() == std::nullopt);
    numbers.release(3);
    numbers.release(2);
    CHECK(numbers.allocate() == 3);
    CHECK(numbers.allocate() == 2);
}

TEST_CASE("reserved numbers are not handed out until they are released")
{
    IndexAllocator numbers(0, 3);
    CHECK(numbers.reserve(1));
    CHECK_FALSE(numbers.reserve(1));
    CHECK_FALSE(numbers.reserve(3));
    CHECK(numbers.allocate() == 0);
    CHECK(numbers.allocate() == 2);
    CHECK(numbers.allocate() == std::nullopt);
    numbers.release(1);
    CHECK(numbers.allocate() == 1);
    CHECK(numbers.used() == 3);
}

TEST_CASE("a number that was reserved and released before its turn is handed out in its turn")
{
    IndexAllocator numbers(0, 2);
    CHECK(numbers.reserve(1));
    numbers.release(1);
    CHECK(numbers.allocate() == 0);
    CHECK(numbers.allocate() == 1);
    CHECK(numbers.allocate() == std::nullopt);
}
