// SPDX-License-Identifier: Apache-2.0
#include "agent/base/address.h"

#include <catch2/catch_test_macros.hpp>
#include <catch2/generators/catch_generators.hpp>

using namespace thruway;

TEST_CASE("addresses of both families are read and written back")
{
    const char *text =
        GENERATE("0.0.0.0", "10.0.0.1", "255.255.255.255", "::", "::1", "fd00:10:244::1", "2001:db8::ffff");
    auto address = Address::parse(text);
    REQUIRE(address);
    CHECK(address->text() == text);
    CHECK(address->family() == (std::string(text).find(':') == std::string::npos ? Family::ipv4 : Family::ipv6));
}

TEST_CASE("what is no address is refused")
{
    const char *text =
        GENERATE("", "10.0.0", "10.0.0.256", "10.0.0.1 ", "10.0.0.1.2", "fd00::1::2", "web", "1e1.0.0.1", "0x7f.0.0.1");
    CHECK_FALSE(Address::parse(text));
    CHECK_FALSE(Address::parse_sloppy(text));
}

TEST_CASE("leading zeros are decimal and IPv4-mapped IPv6 is IPv4, as Kubernetes has always read them")
{
    CHECK(Address::parse_sloppy("010.001.000.008")->text() == "10.1.0.8");
    CHECK_FALSE(Address::parse("010.001.000.008"));
    CHECK(Address::parse_sloppy("::ffff:10.1.0.8")->text() == "10.1.0.8");
    CHECK(Address::parse_sloppy("::ffff:10.1.0.8")->family() == Family::ipv4);
}

TEST_CASE("CIDR blocks lose their host bits, and contain what lies in them")
{
    struct Case {
        const char *text, *canonical, *inside, *outside;
    };
    const Case c =
        GENERATE(Case{"10.1.2.3/8", "10.0.0.0/8", "10.255.255.255", "11.0.0.0"},
                 Case{"10.244.1.0/24", "10.244.1.0/24", "10.244.1.255", "10.244.2.0"},
                 Case{"192.0.2.7/32", "192.0.2.7/32", "192.0.2.7", "192.0.2.6"},
                 Case{" 0.0.0.0/0\n", "0.0.0.0/0", "203.0.113.1", "::1"},
                 Case{"fd00:10:244:1::/64", "fd00:10:244:1::/64", "fd00:10:244:1:ffff::1", "fd00:10:244:2::"},
                 Case{"::/0", "::/0", "2001:db8::1", "10.0.0.1"});
    auto prefix = Prefix::parse(c.text);
    REQUIRE(prefix);
    CHECK(prefix->text() == c.canonical);
    CHECK(prefix->contains(*Address::parse(c.inside)));
    CHECK_FALSE(prefix->contains(*Address::parse(c.outside)));
}

TEST_CASE("what is no CIDR block is refused")
{
    const char *text =
        GENERATE("", "10.0.0.0", "10.0.0.0/", "10.0.0.0/33", "10.0.0.0/-1", "fd00::/129", "10.0.0.0/8x", "/8");
    CHECK_FALSE(Prefix::parse(text));
}

TEST_CASE("counting on from an address carries over its words")
{
    CHECK(Address::parse("10.0.0.255")->plus(1).text() == "10.0.1.0");
    CHECK(Address::parse("fd00::ffff:ffff")->plus(1).text() == "fd00::1:0:0");
    CHECK(Address::parse("fd00::")->plus(0x1'0000'0002).text() == "fd00::1:0:2");
}

TEST_CASE("IPv4 and IPv6 endpoints are written so that the port can be told")
{
    CHECK(endpoint_text(*Address::parse("10.0.0.1"), 80) == "10.0.0.1:80");
    CHECK(endpoint_text(*Address::parse("fd00::1"), 80) == "[fd00::1]:80");
}
