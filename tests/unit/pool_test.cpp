// SPDX-License-Identifier: Apache-2.0
#include "agent/ipam/pool.h"

#include <catch2/catch_test_macros.hpp>
#include <set>

using namespace thruway;

namespace {

std::vector<Prefix> ranges(std::initializer_list<const char *> texts)
{
    std::vector<Prefix> all;
    for (const char *text : texts)
        all.push_back(Prefix::parse(text).value());
    return all;
}

} // namespace

TEST_CASE("a range gives all its addresses but those that have a meaning of their own")
{
    AddressPool pool;
    pool.set_ranges(ranges({"10.244.1.0/29"}));
    std::vector<std::string> given;
    while (const auto address = pool.allocate(Family::ipv4))
        given.push_back(address->text());
    CHECK(given == std::vector<std::string>{"10.244.1.2", "10.244.1.3", "10.244.1.4", "10.244.1.5", "10.244.1.6"});
    CHECK(pool.used() == 5);
}

TEST_CASE("each family has its own range")
{
    AddressPool pool;
    pool.set_ranges(ranges({"10.244.1.0/24", "fd00:10:244:1::/64"}));
    CHECK(pool.families() == std::vector{Family::ipv4, Family::ipv6});
    CHECK(pool.allocate(Family::ipv4)->text() == "10.244.1.2");
    CHECK(pool.allocate(Family::ipv6)->text() == "fd00:10:244:1::2");
    AddressPool single;
    single.set_ranges(ranges({"10.244.1.0/24"}));
    CHECK(single.families() == std::vector{Family::ipv4});
    CHECK_FALSE(single.allocate(Family::ipv6));
}

TEST_CASE("an address that is released comes round last")
{
    AddressPool pool;
    pool.set_ranges(ranges({"10.244.1.0/29"}));
    const Address first = *pool.allocate(Family::ipv4);
    pool.release(first);
    std::set<Address> others;
    for (int i = 0; i < 4; i++)
        others.insert(*pool.allocate(Family::ipv4));
    CHECK_FALSE(others.contains(first));
    CHECK(pool.allocate(Family::ipv4) == first);
    CHECK_FALSE(pool.allocate(Family::ipv4));
}

TEST_CASE("addresses in use before the range is known are not given out again")
{
    AddressPool pool;
    CHECK(pool.reserve(Address::parse("10.244.1.2").value()));
    CHECK_FALSE(pool.reserve(Address::parse("10.244.1.2").value()));
    pool.set_ranges(ranges({"10.244.1.0/24"}));
    CHECK(pool.allocate(Family::ipv4)->text() == "10.244.1.3");
    pool.set_ranges(ranges({"10.244.1.0/24"})); // nothing changes
    CHECK(pool.allocate(Family::ipv4)->text() == "10.244.1.4");
}

TEST_CASE("a range that goes keeps its addresses until they are released")
{
    AddressPool pool;
    pool.set_ranges(ranges({"10.244.1.0/24"}));
    const Address old = *pool.allocate(Family::ipv4);
    pool.set_ranges(ranges({"10.244.9.0/24"}));
    CHECK(pool.allocate(Family::ipv4)->text() == "10.244.9.2");
    CHECK(pool.used() == 2);
    pool.release(old);
    pool.release(old);
    CHECK(pool.used() == 1);
}
