// SPDX-License-Identifier: Apache-2.0
#include "agent/node/reserved_ports.h"

#include <catch2/catch_test_macros.hpp>

namespace thruway {
namespace {

std::string round_trip(const std::string &text)
{
    const auto set = PortSet::parse(text);
    return set ? set->text() : set.error().text();
}

TEST_CASE("port sets are read and written as the kernel does")
{
    for (const std::string text : {"", "80", "0-65535", "80,443,8000-8079", "65535"})
        CHECK(round_trip(text) == text);
    CHECK(round_trip("443,80,81-90,85-100") == "80-100,443");
    CHECK(round_trip("5-5") == "5");
    for (const std::string text : {"a", "80,", ",80", "80-", "-80", "90-80", "80 81", "65536", "80;"})
        CHECK(round_trip(text) == "\"" + text + "\" is no list of ports");
}

TEST_CASE("what is added to a port set and taken away again leaves what was there")
{
    const PortSet before = *PortSet::parse("80,50000-50100");
    const PortSet ours = PortSet::range(49'152, 65'535).without(before);
    CHECK(ours.text() == "49152-49999,50101-65535");
    CHECK(before.with(ours).text() == "80,49152-65535");
    CHECK(before.with(ours).without(ours).text() == before.text());
    CHECK(before.without(before).empty());
}

} // namespace
} // namespace thruway
