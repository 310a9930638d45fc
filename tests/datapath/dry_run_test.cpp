// SPDX-License-Identifier: Apache-2.0
// The dry run: what it tells of each path, that it decides as the real programs do, and that it leaves no trace.
#include "tests/datapath/world.h"

#include <algorithm>
#include <bpf/bpf.h>
#include <bpf/libbpf.h>
#include <catch2/catch_test_macros.hpp>
#include <catch2/generators/catch_generators.hpp>
#include <linux/bpf.h>
#include <netinet/in.h>

using namespace thruway;
using namespace thruway::test;

namespace {

using Kinds = std::vector<uint32_t>;

Kinds kinds_of(const Walk &walk)
{
    Kinds kinds;
    for (const tw_step &step : walk.steps)
        kinds.push_back(step.kind);
    return kinds;
}

/// The first record of this kind, or a test that ends.
const tw_step &step_of(const Walk &walk, tw_step_kind kind)
{
    const auto found = std::ranges::find(walk.steps, uint32_t{kind}, &tw_step::kind);
    REQUIRE(found != walk.steps.end());
    return *found;
}

std::string text_of(const tw_end &end)
{
    return endpoint_text(Address(end.address), ntohs(end.port));
}

/// Every byte of every map that a dry run could reach.
std::string contents(const World &world)
{
    const auto cpus = static_cast<size_t>(libbpf_num_possible_cpus());
    std::string all;
    for (const Maps::Member &member : Maps::members) {
        const Map &map = world.datapath->maps().*member.map;
        if (map.type() == BPF_MAP_TYPE_SK_STORAGE)
            continue;
        const size_t value_size = map.value_size() * (map.type() == BPF_MAP_TYPE_PERCPU_ARRAY ? cpus : 1U);
        REQUIRE(map.each_raw([&](const void *key, const void *value) {
            all.append(static_cast<const char *>(key), map.key_size());
            all.append(static_cast<const char *>(value), value_size);
        }));
    }
    return all;
}

} // namespace

TEST_CASE("a dry run of a new flow through a service tells each decision, and the real run decides the same")
{
    World world;
    const PodSpec &client = world.pod(2);
    const PodSpec &server = world.pod(3);
    world.service("web", {"10.96.0.1:80"}, {"10.244.1.3:8080"});
    const Packet request = tcp("10.244.1.2:40000", "10.96.0.1:80");

    const Walk walk = world.dry_run(from_pod, client.ifindex, request);
    CHECK(kinds_of(walk) == Kinds{TW_STEP_TUPLE, TW_STEP_FLOW, TW_STEP_SOURCE, TW_STEP_FRONTEND, TW_STEP_BACKEND,
                                  TW_STEP_ROUTE, TW_STEP_CREATE, TW_STEP_DELIVER});
    CHECK(text_of(walk.steps[0].tuple.source) == "10.244.1.2:40000");
    CHECK(text_of(walk.steps[0].tuple.destination) == "10.96.0.1:80");
    CHECK(walk.steps[0].tuple.protocol == IPPROTO_TCP);
    CHECK(walk.steps[1].result == TW_STEP_MISSING);
    CHECK(walk.steps[2].number == world.nexthops->endpoint_id(client.addresses[0]));
    CHECK(text_of(walk.steps[4].backend.at) == "10.244.1.3:8080");
    CHECK(walk.steps[4].backend.range.count == 1);
    CHECK(walk.steps[5].result == TW_STEP_ROUTE_ENDPOINT);
    CHECK(text_of(walk.steps[6].flow.destination) == "10.244.1.3:8080");
    CHECK(walk.steps[6].flow.service == walk.steps[3].number);
    CHECK(walk.steps[6].flow.state == TW_FLOW_HALF_OPEN);
    CHECK(walk.steps[7].result == TW_STEP_PEER);
    CHECK(walk.steps[7].nexthop.ifindex == server.ifindex);
    CHECK(std::ranges::equal(walk.steps[7].nexthop.mac, server.mac));

    const Outcome real = world.from_pod(client, request);
    CHECK(walk.verdict == real.verdict);
    CHECK(Frame{walk.frame} == real.frame);
}

TEST_CASE("a dry run shows what the row of a flow that stands says")
{
    World world;
    const PodSpec &client = world.pod(2);
    world.pod(3);
    world.service("web", {"10.96.0.1:80"}, {"10.244.1.3:8080"});
    const Packet request = tcp("10.244.1.2:40000", "10.96.0.1:80");
    world.from_pod(client, request);

    const Walk walk = world.dry_run(from_pod, client.ifindex, request);
    CHECK(kinds_of(walk) == Kinds{TW_STEP_TUPLE, TW_STEP_FLOW, TW_STEP_DELIVER});
    CHECK(walk.steps[1].result == TW_STEP_FOUND);
    CHECK(text_of(walk.steps[1].flow.source) == "10.244.1.2:40000");
    CHECK(text_of(walk.steps[1].flow.destination) == "10.244.1.3:8080");
    CHECK(walk.steps[1].flow.state == TW_FLOW_HALF_OPEN);
    CHECK(walk.steps[1].flow.flags == TW_FLOW_TRANSLATED);
    CHECK(Frame{walk.frame} == world.from_pod(client, request).frame);
}

TEST_CASE("a dry run of a flow whose end has moved judges it again")
{
    World world;
    const PodSpec &a = world.pod(2);
    const PodSpec &b = world.pod(3);
    const Packet packet = tcp("10.244.1.2:1000", "10.244.1.3:80");
    world.from_pod(a, packet);
    world.remove_pod(b);
    const PodSpec &heir = world.pod(3);

    const Walk walk = world.dry_run(from_pod, a.ifindex, packet);
    CHECK(kinds_of(walk) == Kinds{TW_STEP_TUPLE, TW_STEP_FLOW, TW_STEP_SOURCE, TW_STEP_ROUTE, TW_STEP_DELIVER});
    CHECK(walk.steps[1].result == TW_STEP_STALE);
    CHECK(walk.steps[4].nexthop.ifindex == heir.ifindex);
}

TEST_CASE("a dry run tells by what right a packet goes which way")
{
    World world;
    const PodSpec &pod = world.pod(2);
    const auto route_to = [&](const char *destination) {
        return world.dry_run(from_pod, pod.ifindex, tcp("10.244.1.2:1000", destination));
    };

    const Walk node = route_to("10.244.2.9:80");
    CHECK(step_of(node, TW_STEP_ROUTE).result == TW_STEP_ROUTE_CIDR);
    CHECK(step_of(node, TW_STEP_DELIVER).result == TW_STEP_REDIRECT);
    CHECK(step_of(node, TW_STEP_DELIVER).nexthop.ifindex == world.uplink.index);
    CHECK(step_of(node, TW_STEP_DELIVER).nexthop.mtu == 1500);
    CHECK(std::ranges::equal(step_of(node, TW_STEP_DELIVER).nexthop.mac, world.neighbour_mac));
    const Walk world_outside = route_to("192.0.2.1:443");
    CHECK(step_of(world_outside, TW_STEP_ROUTE).result == TW_STEP_ROUTE_KERNEL);
    CHECK(step_of(world_outside, TW_STEP_DELIVER).result == TW_STEP_REDIRECT);
    const Walk host = route_to("172.20.0.11:10250");
    CHECK(step_of(host, TW_STEP_ROUTE).result == TW_STEP_ROUTE_NODE);
    CHECK(step_of(host, TW_STEP_DELIVER).result == TW_STEP_STACK);
    CHECK(host.verdict == verdict_next);
}

TEST_CASE("a dry run of a NodePort tells the address and port that stand for the client")
{
    World world;
    const bool v6 = GENERATE(false, true);
    world.service("web", {v6 ? "[]:30080" : ":30080"}, {v6 ? "[fd00:10:244:2::7]:8080" : "10.244.2.7:8080"});

    const Walk walk =
        world.dry_run(from_net, world.uplink.index,
                      v6 ? tcp("[fd21::2]:50000", "[fd20::11]:30080") : tcp("172.21.0.2:50000", "172.20.0.11:30080"));
    CHECK(kinds_of(walk) == Kinds{TW_STEP_TUPLE, TW_STEP_FLOW, TW_STEP_FRONTEND, TW_STEP_BACKEND, TW_STEP_ROUTE,
                                  TW_STEP_SNAT, TW_STEP_CREATE, TW_STEP_DELIVER});
    const tw_end &source = step_of(walk, TW_STEP_SNAT).tuple.source;
    CHECK(Address(source.address) == address(v6 ? "fd20::11" : "172.20.0.11"));
    CHECK(ntohs(source.port) >= 49152);
    CHECK(ntohs(source.port) == source_port_of(walk.frame));
    CHECK((step_of(walk, TW_STEP_CREATE).flow.flags & TW_FLOW_SNAT) != 0);
}

TEST_CASE("a dry run of a packet that is left to the host stack says so")
{
    World world;
    world.service("web", {":30080"}, {"10.244.2.7:8080"});
    const Walk walk = world.dry_run(from_net, world.uplink.index, tcp("172.21.0.2:1000", "172.20.0.11:22"));

    CHECK(kinds_of(walk) == Kinds{TW_STEP_TUPLE, TW_STEP_FLOW, TW_STEP_DELIVER});
    CHECK(walk.steps[2].result == TW_STEP_STACK);
    CHECK(walk.verdict == verdict_next);
}

TEST_CASE("the reason of a drop is the last record of a dry run, and is not counted")
{
    World world;
    const PodSpec &pod = world.pod(2);
    world.service("none", {"10.96.0.1:80"}, {});
    const auto &[packet, reason] = GENERATE(table<Packet, tw_drop>({
        {tcp("10.244.1.9:1000", "10.244.2.9:80"), TW_DROP_BAD_SOURCE},
        {tcp("10.244.1.2:1000", "10.96.0.1:80"), TW_DROP_NO_BACKEND},
        {tcp("10.244.1.2:1000", "10.244.1.99:80"), TW_DROP_NO_ENDPOINT},
        {tcp("10.244.1.2:1000", "10.244.2.9:80").with_hops(1), TW_DROP_HOPS},
    }));

    const Walk walk = world.dry_run(from_pod, pod.ifindex, packet);
    CHECK(walk.verdict == verdict_drop);
    CHECK(walk.steps.back().kind == TW_STEP_DROP);
    CHECK(walk.steps.back().result == reason);
    CHECK(walk.steps.back().number == TW_HOOK_FROM_POD);
    CHECK(world.drops(reason) == 0);
    // In earnest, the sender is told in the packet's place that its hops have ended, or that nobody serves.
    const bool told = reason == TW_DROP_HOPS || reason == TW_DROP_NO_BACKEND;
    CHECK(world.from_pod(pod, packet).verdict == (told ? verdict_redirect : verdict_drop));
    CHECK(world.drops(reason) == 1);
}

TEST_CASE("a dry run tells what would be answered, and leaves no answer")
{
    World world;
    const PodSpec &pod = world.pod(2);
    world.service("web", {"10.96.0.1:80"}, {"10.244.2.7:8080"});

    const Walk pinged = world.dry_run(from_pod, pod.ifindex, ping("10.244.1.2", "10.96.0.1", 7));
    CHECK(pinged.verdict == verdict_redirect);
    CHECK(pinged.steps.back().kind == TW_STEP_ANSWER);
    CHECK(pinged.steps.back().result == TW_PASS);
    const Walk expired = world.dry_run(from_pod, pod.ifindex, tcp("10.244.1.2:1000", "10.244.2.9:80").with_hops(1));
    CHECK(expired.verdict == verdict_drop);
    CHECK(step_of(expired, TW_STEP_ANSWER).result == TW_DROP_HOPS);
}

TEST_CASE("dry runs of every path leave every byte of every map as it was")
{
    World world;
    const PodSpec &a = world.pod(2);
    const PodSpec &b = world.pod(3);
    const PodSpec &c = world.pod(4);
    world.service("web", {"10.96.0.1:80", ":30080"}, {"10.244.1.3:8080"});
    world.service("none", {"10.96.0.2:80"}, {});
    const Packet request = tcp("10.244.1.2:40000", "10.96.0.1:80");
    const Packet answer = tcp("10.244.1.3:8080", "10.244.1.2:40000", syn | ack);
    const Packet stale = tcp("10.244.1.2:1000", "10.244.1.4:80");
    const Packet closing = tcp("10.244.1.2:1001", "10.244.1.3:80");
    world.from_pod(a, request);
    world.from_pod(a, stale);
    world.remove_pod(c);
    world.pod(4);
    world.from_pod(a, closing);
    world.from_pod(b, closing.reversed().with_flags(rst));
    const std::string before = contents(world);

    for (const Packet &packet :
         {request, request.with_flags(rst), stale, closing, tcp("10.244.1.2:2000", "10.96.0.1:80"),
          tcp("10.244.1.2:2000", "10.96.0.2:80"), tcp("10.244.1.9:2000", "10.244.1.3:80"),
          tcp("10.244.1.2:2000", "192.0.2.1:80"), udp("10.244.1.2:2000", "10.244.2.9:53"),
          ping("10.244.1.2", "10.244.1.3", 7), tcp("[fd00:10:244:1::2]:2000", "[fd00:10:244:1::3]:80")})
        world.dry_run(from_pod, a.ifindex, packet);
    world.dry_run(from_pod, b.ifindex, answer);
    world.dry_run(to_pod, b.ifindex, tcp("172.20.0.11:2000", "10.244.1.3:80"));
    world.dry_run(from_net, world.uplink.index, tcp("172.21.0.2:50000", "172.20.0.11:30080"));
    world.dry_run(from_net, world.uplink.index, tcp("10.244.1.2:50000", "172.20.0.11:30080"));
    world.dry_run(to_net, world.uplink.index, answer);

    CHECK(contents(world) == before);
    world.from_pod(a, request); // the comparison can fail
    CHECK(contents(world) != before);
}

TEST_CASE("the programs that see traffic have no map for steps: all that would write to it is dead code")
{
    const World world;
    const Fd program(bpf_obj_get(fmt::format("{}/programs/from_pod", pins).c_str()));
    std::array<uint32_t, 64> ids{};
    bpf_prog_info info{};
    uint32_t length = sizeof(info);
    info.nr_map_ids = ids.size();
    info.map_ids = reinterpret_cast<uint64_t>(ids.data());
    REQUIRE(bpf_prog_get_info_by_fd(program.get(), &info, &length) == 0);
    REQUIRE(info.nr_map_ids > 0);
    for (uint32_t i = 0; i < info.nr_map_ids; i++) {
        bpf_map_info map{};
        length = sizeof(map);
        const Fd fd(bpf_map_get_fd_by_id(ids[i]));
        REQUIRE(bpf_map_get_info_by_fd(fd.get(), &map, &length) == 0);
        CHECK(std::string_view(map.name) != "steps");
    }
}
