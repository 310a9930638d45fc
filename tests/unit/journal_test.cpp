// SPDX-License-Identifier: Apache-2.0
#include "agent/state/journal.h"

#include <algorithm>
#include <catch2/catch_test_macros.hpp>
#include <cstdlib>
#include <filesystem>
#include <fstream>

using namespace thruway;

namespace {

/// A folder that goes with the test.
struct Folder {
    std::string path = [] {
        std::string made = "/tmp/thruway-journal-XXXXXX";
        return std::string(mkdtemp(made.data()));
    }();
    ~Folder() { std::filesystem::remove_all(path); }
};

Service make_service()
{
    Service service;
    service.name = {Symbol("default"), "web"};
    service.type = ServiceType::node_port;
    service.created = 1'700'000'000;
    service.cluster_ips = {Address::parse("10.96.0.1").value(), Address::parse("fd00::1").value()};
    service.ports = {{Symbol("http"), Protocol::tcp, 80, 30080}, {Symbol(), Protocol::udp, 53, 0}};
    service.external_ips = {Address::parse("192.0.2.1").value()};
    service.balancer_ips = {Address::parse("192.0.2.2").value(), Address::parse("fd00::2").value()};
    service.source_ranges = {Prefix::parse("10.0.0.0/8").value(), Prefix::parse("fd00::/8").value()};
    service.internal_local = true;
    service.external_local = true;
    service.health_port = 30099;
    service.affinity = 600;
    return service;
}

EndpointSlice make_slice(const std::string &name)
{
    EndpointSlice slice;
    slice.name = {Symbol("default"), name};
    slice.service = "web";
    slice.family = Family::ipv6;
    slice.triggered = 1'700'000'000'123;
    slice.ports = {{Symbol("http"), Protocol::tcp, 8080}};
    slice.endpoints = {{.address = Address::parse("fd00::5").value(), .node = Symbol("n1"), .conditions = 6},
                       {.address = Address::parse("fd00::6").value()}};
    slice.endpoints[0].hints = slice.add_hints({{Symbol("n1"), Symbol("n2")}, {Symbol("east")}});
    slice.endpoints[0].pod = slice.add_pod("web-\"quoted\"-1");
    return slice;
}

std::vector<Object> some_objects()
{
    Node node{{{}, "n1"},
              {Address::parse("172.20.0.11").value()},
              {Prefix::parse("10.244.1.0/24").value()},
              Symbol("east"),
              true};
    Pod pod{{Symbol("default"), "web-1"}, Symbol("n1"), true, false, {Address::parse("10.244.1.2").value()}};
    const ServiceCidr range{{{}, "kubernetes"}, {Prefix::parse("10.96.0.0/16").value()}};
    return {make_service(), make_slice("web-a"), node, pod, range};
}

std::vector<Object> read(const std::string &path)
{
    auto objects = Journal::read(path);
    REQUIRE(objects);
    std::ranges::sort(*objects, {}, key_of);
    return *objects;
}

} // namespace

TEST_CASE("objects of every kind are read back as they were written")
{
    const Folder folder;
    const std::string path = folder.path + "/objects";
    const std::vector<Object> objects = some_objects();
    Journal journal(path, [&](const auto &visit) { std::ranges::for_each(objects, visit); });
    REQUIRE(journal.flush());
    CHECK(read(path) == objects);
}

TEST_CASE("later lines replace earlier ones, and deletes take them away")
{
    const Folder folder;
    const std::string path = folder.path + "/objects";
    const std::vector<Object> objects = some_objects();
    Journal journal(path, [&](const auto &visit) { std::ranges::for_each(objects, visit); });
    REQUIRE(journal.flush());

    Service service = make_service();
    service.ports.pop_back();
    journal.note({Upsert{service}, Upsert{make_slice("web-b")}, Delete{key_of(objects[1])}});
    REQUIRE(journal.flush());
    CHECK(read(path) == std::vector<Object>{service, make_slice("web-b"), objects[2], objects[3], objects[4]});
}

TEST_CASE("a line that was cut short costs only its own object")
{
    const Folder folder;
    const std::string path = folder.path + "/objects";
    const std::vector<Object> objects = some_objects();
    Journal journal(path, [&](const auto &visit) { std::ranges::for_each(objects, visit); });
    REQUIRE(journal.flush());
    const auto size = std::filesystem::file_size(path);
    journal.note({Upsert{make_slice("web-b")}});
    REQUIRE(journal.flush());
    const auto longer = std::filesystem::file_size(path);
    for (auto cut = size; cut < longer - 1; cut++) {
        std::filesystem::resize_file(path, longer);
        std::filesystem::copy_file(path, path + ".cut", std::filesystem::copy_options::overwrite_existing);
        std::filesystem::resize_file(path + ".cut", cut);
        REQUIRE(read(path + ".cut") == objects);
    }
}

TEST_CASE("a journal that has grown is written anew with what there is")
{
    const Folder folder;
    const std::string path = folder.path + "/objects";
    const std::vector<Object> objects = some_objects();
    Journal journal(path, [&](const auto &visit) { std::ranges::for_each(objects, visit); });
    std::uintmax_t largest = 0;
    for (int i = 0; i < 20'000; i++) {
        journal.note({Upsert{objects[1]}});
        REQUIRE(journal.flush());
        largest = std::max(largest, std::filesystem::file_size(path));
    }
    CHECK(largest < 2'000'000);
    CHECK(read(path) == objects);
}

TEST_CASE("a journal that cannot be written says where")
{
    Journal journal("/nowhere/objects", [](const auto &) {});
    auto flushed = journal.flush();
    REQUIRE_FALSE(flushed);
    CHECK(flushed.error().text() == "cannot create /nowhere/objects.new: No such file or directory");
}
