// SPDX-License-Identifier: Apache-2.0
// Which backends a client gets, and who it seems to be: traffic policies, source ranges, session affinity. Numbers of
// rules are those of docs/kube-proxy.md.
#include "tests/datapath/world.h"

#include <algorithm>
#include <catch2/catch_test_macros.hpp>
#include <catch2/generators/catch_generators.hpp>
#include <map>
#include <set>

using namespace thruway;
using namespace thruway::test;

namespace {

/// Addresses of one family.
struct Talk {
    std::string pod2, pod3, remote, client, other_client, node, cluster, external, balancer, client_range;
};

const Talk talks[] = {
    {"10.244.1.2", "10.244.1.3", "10.244.2.9", "172.21.0.2", "198.51.100.7", "172.20.0.11", "10.96.0.1", "203.0.113.1",
     "203.0.113.2", "172.21.0.0/16"},
    {"[fd00:10:244:1::2]", "[fd00:10:244:1::3]", "[fd00:10:244:2::9]", "[fd21::2]", "[fd99::7]", "[fd20::11]",
     "[fd00:96::1]", "[fd98::1]", "[fd98::2]", "fd21::/64"},
};

Backend backend(const std::string &text)
{
    return {host(text), 8080};
}

/// A service with a frontend of each kind: ClusterIP, NodePort, external IP, address of a load balancer.
void all_kinds(World &world, const Talk &t, const std::vector<std::string> &backends,
               const std::function<void(ServicePlan &)> &adjust = {})
{
    const std::string any = t.node.starts_with('[') ? "[]" : "";
    world.service("web", {t.cluster + ":80", any + ":30080", t.external + ":80", t.balancer + ":80"}, backends,
                  Protocol::tcp, [&](ServicePlan &plan) {
                      plan.frontends[2].kind = TW_FRONTEND_EXTERNAL;
                      plan.frontends[3].kind = TW_FRONTEND_BALANCER;
                      if (adjust)
                          adjust(plan);
                  });
}

std::vector<std::string> externals(const Talk &t)
{
    return {t.node + ":30080", t.external + ":80", t.balancer + ":80"};
}

/// Puts Local on the way from outside, with these backends of the node.
std::function<void(ServicePlan &)> external_local(const std::vector<std::string> &local)
{
    return [=](ServicePlan &plan) {
        plan.external_local = true;
        for (const std::string &text : local)
            plan.local.push_back(backend(text));
    };
}

/// The source that the backend of this pod sees.
bool sees(const Outcome &out, const Packet &request, const std::string &source, const std::string &to,
          const PodSpec &pod)
{
    return out.verdict == verdict_redirect &&
           out.frame ==
               frame(World::in_pod(
                   request.with_source(host(source), source_port_of(out.frame.bytes)).with_destination(host(to), 8080),
                   pod));
}

} // namespace

TEST_CASE("rules 8, 27: external traffic with policy Local goes to this node's backends and keeps its source")
{
    World world;
    const Talk &t = talks[GENERATE(0, 1)];
    const PodSpec &pod = world.pod(2);
    all_kinds(world, t, {t.pod2 + ":8080", t.remote + ":8080"}, external_local({t.pod2}));
    unsigned port = 1000;
    for (const std::string &frontend : externals(t))
        for (int i = 0; i < 8; i++) { // the choice among all would be random
            const Packet request = tcp(fmt::format("{}:{}", t.client, port++), frontend);
            CHECK(sees(world.from_net(request), request, t.client, t.pod2, pod));
        }
    // The ClusterIP has a policy of its own.
    std::set<size_t> ways;
    for (int i = 0; i < 32; i++)
        ways.insert(world.from_net(tcp(fmt::format("{}:{}", t.client, port++), t.cluster + ":80")).mark);
    CHECK(ways.size() == 2);
}

TEST_CASE("rule 27: with policy Cluster external traffic is seen as the node's, and so it is on the node itself")
{
    World world;
    const Talk &t = talks[GENERATE(0, 1)];
    const PodSpec &pod = world.pod(2);
    all_kinds(world, t, {t.pod2 + ":8080"});
    unsigned port = 1000;
    for (const std::string &frontend : externals(t)) {
        const Packet request = tcp(fmt::format("{}:{}", t.client, port++), frontend);
        CHECK(sees(world.from_net(request), request, t.node, t.pod2, pod));
    }
}

TEST_CASE("rule 27: to a pod of the node external frontends lead anywhere, though their policy is Local")
{
    World world;
    const Talk &t = talks[GENERATE(0, 1)];
    const PodSpec &pod = world.pod(2);
    all_kinds(world, t, {t.remote + ":8080"}, external_local({}));
    unsigned port = 1000;
    for (const std::string &frontend : externals(t)) {
        const Packet request = tcp(fmt::format("{}:{}", t.pod2, port++), frontend);
        CHECK(world.from_pod(pod, request).frame ==
              frame(world.on_wire(request.with_destination(host(t.remote), 8080))));
    }
}

TEST_CASE("rule 19: Local without a backend here drops, and a service without any backend refuses")
{
    World world;
    const Talk &t = talks[GENERATE(0, 1)];
    const PodSpec &pod = world.pod(2);
    all_kinds(world, t, {t.remote + ":8080"}, external_local({}));
    for (const std::string &frontend : externals(t))
        CHECK(world.from_net(tcp(t.client + ":1000", frontend)).verdict == verdict_drop);
    CHECK(world.drops(TW_DROP_NO_LOCAL_BACKEND) == 3);
    CHECK(world.from_pod(pod, tcp(t.pod2 + ":1000", t.cluster + ":80")).verdict == verdict_redirect);

    all_kinds(world, t, {t.remote + ":8080"}, [](ServicePlan &plan) { plan.internal_local = true; });
    CHECK(world.from_pod(pod, tcp(t.pod2 + ":1001", t.cluster + ":80")).verdict == verdict_drop);
    CHECK(world.drops(TW_DROP_NO_LOCAL_BACKEND) == 4);
    CHECK(world.from_net(tcp(t.client + ":1001", t.external + ":80")).verdict == verdict_redirect);

    all_kinds(world, t, {}, [](ServicePlan &plan) { plan.internal_local = true; });
    std::ignore = world.from_pod(pod, tcp(t.pod2 + ":1002", t.cluster + ":80"));
    CHECK(world.drops(TW_DROP_NO_LOCAL_BACKEND) == 4);
    CHECK(world.drops(TW_DROP_NO_BACKEND) == 1);
}

TEST_CASE("rule 31: a service without backends refuses at once: TCP by a reset, SCTP by an ABORT, all else by ICMP")
{
    World world;
    const bool v6 = GENERATE(false, true);
    const Talk &t = talks[v6];
    const PodSpec &pod = world.pod(2);
    const std::string any = v6 ? "[]" : "";
    for (const Protocol protocol : {Protocol::tcp, Protocol::udp, Protocol::sctp})
        world.service(fmt::format("{}", protocol_name(protocol)), {t.cluster + ":80", any + ":30080"}, {}, protocol);
    uint64_t refused = 0;
    const auto check = [&](const Outcome &out, const Packet &refusal) {
        CHECK(out.verdict == verdict_redirect);
        CHECK(out.mark == TW_MARK_HANDLED);
        CHECK(out.frame == frame(refusal));
        CHECK(world.drops(TW_DROP_NO_BACKEND) == ++refused);
    };
    for (const bool outside : {false, true}) {
        const std::string from = (outside ? t.client : t.pod2) + ":1000";
        for (const std::string &to : {t.cluster + ":80", t.node + ":30080"}) {
            const auto dial = [&](const Packet &request) {
                return outside ? world.from_net(request) : world.from_pod(pod, request);
            };
            const Packet opening = tcp(from, to);
            check(dial(opening), reset_for(opening, 1 + static_cast<uint32_t>(opening.payload.size())));
            for (const Packet &request : {udp(from, to), udp(from, to).with_payload(1400)})
                check(dial(request), own_error(Fault::port_unreachable, request.destination, request));
            for (const Packet &request :
                 {with_chunk(sctp(from, to), Chunk::init, 0x89abcdef), sctp(from, to), sctp(from, to).with_payload(1)})
                check(dial(request), abort_for(request));
        }
    }
}

namespace {

/// A connection: its segments as they are sent and as they come out, in both directions.
struct Carried {
    std::function<Outcome(const Packet &)> send, answer;
    Packet sent, arrives, answered, returns;
};

/// A segment goes through, and nothing but its addresses, ports and hops changes.
void check_carried(const Carried &c, bool back, uint8_t flags, uint32_t sequence)
{
    const auto segment = [&](Packet packet) {
        packet.flags = flags;
        packet.sequence = sequence;
        return packet;
    };
    const Outcome out = back ? c.answer(segment(c.answered)) : c.send(segment(c.sent));
    CHECK(out.frame == frame(segment(back ? c.returns : c.arrives)));
}

/// Segments from far out of the window, from either side, are carried, and so are the others after them.
void check_undisturbed(const Carried &c, uint8_t flags)
{
    constexpr uint32_t here = 1000;
    constexpr uint32_t far = 0x80000000;
    check_carried(c, false, syn, here);
    check_carried(c, true, syn | ack, here);
    check_carried(c, false, ack, here);
    for (const auto &[there, back] : {std::pair(true, false), std::pair(false, true), std::pair(true, true)}) {
        if (there)
            check_carried(c, false, flags, far);
        if (back)
            check_carried(c, true, flags, far);
        check_carried(c, there, ack, here);
        check_carried(c, !there, ack, here);
    }
}

} // namespace

TEST_CASE("rule 36: no segment out of the window is kept back, or ends its connection")
{
    World world;
    const Talk &t = talks[GENERATE(0, 1)];
    const uint8_t flags = GENERATE(ack, psh | ack, syn, syn | ack, fin | ack, rst, rst | ack);
    const PodSpec &client = world.pod(2);
    const PodSpec &server = world.pod(3);

    SECTION("between pods through a ClusterIP")
    {
        all_kinds(world, t, {t.pod3 + ":8080"});
        Carried c{.send = [&](const Packet &packet) { return world.from_pod(client, packet); },
                  .answer = [&](const Packet &packet) { return world.from_pod(server, packet); },
                  .sent = tcp(t.pod2 + ":1000", t.cluster + ":80")};
        c.arrives = World::in_pod(c.sent.with_destination(host(t.pod3), 8080), server);
        c.answered = c.arrives.reversed().with_hops(64);
        c.returns = World::in_pod(c.answered.with_source(host(t.cluster), 80), client);
        check_undisturbed(c, flags);
    }
    SECTION("from outside through a NodePort to another node, by tc and by XDP")
    {
        const bool xdp = GENERATE(false, true);
        all_kinds(world, t, {t.remote + ":8080"});
        const auto take = [&](const Packet &packet) {
            return xdp ? world.xdp_net(world.off_wire(packet)) : world.from_net(world.off_wire(packet));
        };
        Carried c{.send = take, .answer = take, .sent = tcp(t.client + ":1000", t.node + ":30080")};
        const uint16_t port = source_port_of(take(c.sent).frame.bytes);
        c.arrives = world.on_wire(c.sent.with_source(host(t.node), port).with_destination(host(t.remote), 8080));
        c.answered = c.arrives.reversed().with_hops(64);
        c.returns = world.on_wire(c.sent.reversed());
        check_undisturbed(c, flags);
    }
    CHECK(world.drops(TW_DROP_NO_CONNECTION) == 0);
}

TEST_CASE("rule 10: NodePorts are on the addresses that are meant and on no others of the node")
{
    World world;
    const Talk &t = talks[GENERATE(0, 1)];
    const PodSpec &pod = world.pod(2);
    const Address node = host(t.node);
    all_kinds(world, t, {t.pod2 + ":8080"});
    const auto node_port = [&](unsigned from) {
        return world.from_net(tcp(fmt::format("{}:{}", t.client, from), t.node + ":30080")).verdict;
    };
    CHECK(node_port(1000) == verdict_redirect);

    REQUIRE(world.nexthops->set_node_port_addresses({}));
    CHECK(node_port(1001) == verdict_next);
    CHECK(node_port(1000) == verdict_redirect); // under way
    CHECK(world.from_net(tcp(t.client + ":1000", t.external + ":80")).verdict == verdict_redirect);
    CHECK(world.from_pod(pod, tcp(t.pod2 + ":1000", t.cluster + ":80")).verdict == verdict_redirect);

    REQUIRE(world.nexthops->set_node_port_addresses({node}));
    CHECK(node_port(1002) == verdict_redirect);
}

TEST_CASE("rule 32: what a ClusterIP has no service for is refused, wherever it comes from")
{
    World world;
    const Talk &t = talks[GENERATE(0, 1)];
    const PodSpec &pod = world.pod(2);
    all_kinds(world, t, {t.pod3 + ":8080"});
    uint64_t refused = 0;
    const auto check = [&](const Outcome &out, const Packet &refusal) {
        CHECK(out.verdict == verdict_redirect);
        CHECK(out.frame == frame(refusal));
        CHECK(world.drops(TW_DROP_NO_SERVICE) == ++refused);
    };
    const auto dials = [&](const std::string &from, const std::function<Outcome(const Packet &)> &dial) {
        const Packet opening = tcp(from + ":1000", t.cluster + ":81");
        check(dial(opening), reset_for(opening, 1 + static_cast<uint32_t>(opening.payload.size())));
        const Packet datagram = udp(from + ":1000", t.cluster + ":80");
        check(dial(datagram), own_error(Fault::port_unreachable, datagram.destination, datagram));
        const Packet init = with_chunk(sctp(from + ":1000", t.cluster + ":80"), Chunk::init);
        check(dial(init), abort_for(init));
    };
    dials(t.pod2, [&](const Packet &request) { return world.from_pod(pod, request); });
    dials(t.client, [&](const Packet &request) { return world.from_net(request); });
    dials(t.node, [&](const Packet &request) { return world.to_net(request); });

    // Whose else the address may be is asked of the routes.
    for (const std::string &other : {t.external, t.balancer}) {
        CHECK(world.from_net(tcp(t.client + ":1000", other + ":81")).verdict == verdict_next);
        CHECK(world.from_pod(pod, tcp(t.pod2 + ":1000", other + ":81")).mark == TW_MARK_HANDLED);
    }
    CHECK(world.drops(TW_DROP_NO_SERVICE) == refused);

    world.remove_service("web");
    CHECK(world.from_net(tcp(t.client + ":1001", t.cluster + ":81")).verdict == verdict_next);
}

TEST_CASE("rule 32: what no service has of the Service range does not leave the node, if no other proxy translates it")
{
    World world;
    const Talk &t = talks[GENERATE(0, 1)];
    const PodSpec &pod = world.pod(2);
    all_kinds(world, t, {t.remote + ":8080"});
    const bool v6 = t.cluster.starts_with('[');
    const std::string nobody = v6 ? "[fd00:96::ffff]" : "10.96.255.255", elsewhere = v6 ? "[fd01::1]" : "192.0.2.1";
    const auto requests = [&](const std::string &from, const std::string &to) {
        return std::vector{tcp(from + ":1000", to + ":80"), udp(from + ":1000", to + ":80"),
                           sctp(from + ":1000", to + ":80"), ping(from, to, 7)};
    };
    const auto leaves = [&](const std::string &from, const std::string &to) {
        size_t count = 0;
        for (const Packet &request : requests(from, to))
            count += world.to_net(request).verdict == verdict_next;
        return count;
    };
    const std::vector<std::string> sources{t.node, t.pod2, t.client};
    for (const std::string &from : sources)
        CHECK(leaves(from, nobody) == 4);

    REQUIRE(world.services->set_cidrs({*Prefix::parse("10.96.0.0/16"), *Prefix::parse("fd00:96::/112")}));
    for (const std::string &from : sources) {
        CHECK(leaves(from, nobody) == 0);
        CHECK(leaves(from, elsewhere) == 4);
    }
    CHECK(world.drops(TW_DROP_UNALLOCATED) == 12);
    // What a pod or somebody outside sends comes to the stack first, where another proxy may know the address.
    for (const Packet &request : requests(t.pod2, nobody))
        CHECK(world.from_pod(pod, request).verdict == verdict_next);
    for (const Packet &request : requests(t.client, nobody))
        CHECK(world.from_net(request).verdict == verdict_next);
    CHECK(world.drops(TW_DROP_UNALLOCATED) == 12);
    CHECK(world.from_pod(pod, tcp(t.pod2 + ":1000", elsewhere + ":80")).mark == TW_MARK_HANDLED);
    CHECK(world.from_pod(pod, tcp(t.pod2 + ":1000", t.cluster + ":80")).mark == TW_MARK_HANDLED);

    REQUIRE(world.services->set_cidrs({}));
    CHECK(leaves(t.node, nobody) == 4);
}

TEST_CASE("rules 13, 14: source ranges hold for the load balancer's address, whoever dials it, and for new flows only")
{
    World world;
    const Talk &t = talks[GENERATE(0, 1)];
    const PodSpec &pod = world.pod(2);
    const auto filtered = [&](ServicePlan &plan) {
        plan.filtered = true;
        plan.source_ranges = {*Prefix::parse(t.client_range)};
    };
    const Packet first = tcp(t.other_client + ":1000", t.balancer + ":80");
    all_kinds(world, t, {t.remote + ":8080"});
    CHECK(world.from_net(first).verdict == verdict_redirect);
    all_kinds(world, t, {t.remote + ":8080"}, filtered);
    CHECK(world.from_net(first.with_flags(ack)).verdict == verdict_redirect);

    CHECK(world.from_net(tcp(t.client + ":1001", t.balancer + ":80")).verdict == verdict_redirect);
    CHECK(world.from_net(tcp(t.other_client + ":1001", t.balancer + ":80")).verdict == verdict_drop);
    CHECK(world.from_pod(pod, tcp(t.pod2 + ":1001", t.balancer + ":80")).verdict == verdict_drop);
    CHECK(world.drops(TW_DROP_SOURCE_RANGE) == 2);
    // Rule 12: NodePorts and external IPs know no ranges.
    CHECK(world.from_net(tcp(t.other_client + ":1002", t.node + ":30080")).verdict == verdict_redirect);
    CHECK(world.from_net(tcp(t.other_client + ":1002", t.external + ":80")).verdict == verdict_redirect);

    // Other ranges take their place, and another agent finds them.
    all_kinds(world, t, {t.remote + ":8080"}, [&](ServicePlan &plan) {
        plan.filtered = true;
        plan.source_ranges = {{host(t.other_client), static_cast<unsigned>(host(t.other_client).size() * 8)}};
    });
    CHECK(world.datapath->maps().source_ranges.count() == 1U);
    CHECK(world.from_net(tcp(t.other_client + ":1003", t.balancer + ":80")).verdict == verdict_redirect);
    CHECK(world.from_net(tcp(t.client + ":1003", t.balancer + ":80")).verdict == verdict_drop);
    world.remove_service("web");
    CHECK(world.datapath->maps().source_ranges.count() == 0U);
}

namespace {

/// The backends that so many new connections of a client get.
std::set<std::string> dialled(World &world, const std::string &client, const std::string &frontend, unsigned port,
                              unsigned count = 24)
{
    std::set<std::string> got;
    for (unsigned i = 0; i < count; i++) {
        const Outcome out = world.from_net(tcp(fmt::format("{}:{}", client, port + i), frontend));
        CHECK(out.verdict == verdict_redirect);
        got.insert(destination_of(out.frame.bytes));
    }
    return got;
}

} // namespace

TEST_CASE("rule 30: a client stays with its backend, at all addresses of the port, while the backend is in use")
{
    World world;
    const Talk &t = talks[GENERATE(0, 1)];
    const std::string stem = t.remote.starts_with('[') ? "[fd00:10:244:2::{:x}]:8080" : "10.244.2.{}:8080";
    std::vector<std::string> backends;
    for (unsigned i = 1; i <= 100; i++)
        backends.push_back(fmt::format(fmt::runtime(stem), i));
    const auto affine = [](ServicePlan &plan) { plan.affinity = 100; };
    all_kinds(world, t, backends, affine);

    const auto first = dialled(world, t.client, t.balancer + ":80", 1000);
    REQUIRE(first.size() == 1);
    const auto is_first = [&](const std::string &text) {
        return first.contains(host(text.substr(0, text.rfind(':'))).text());
    };
    CHECK(dialled(world, t.client, t.node + ":30080", 1100) == first);
    CHECK(dialled(world, t.client, t.cluster + ":80", 1200) == first);
    // Other clients need not have the same.
    std::set<std::string> all;
    for (unsigned i = 10; i < 40; i++) {
        const std::string client =
            t.client.starts_with('[') ? fmt::format("[fd21::{:x}]", i) : fmt::format("172.21.0.{}", i);
        all.merge(dialled(world, client, t.external + ":80", 1300, 2));
    }
    CHECK(all.size() > 10);

    SECTION("and where it stands among the others does not matter")
    {
        std::erase_if(backends,
                      [&, i = 0](const std::string &text) mutable { return i++ % 2 == 0 && !is_first(text); });
        all_kinds(world, t, backends, affine);
        CHECK(dialled(world, t.client, t.balancer + ":80", 2000) == first);
    }
    SECTION("but not longer than the backend is in use")
    {
        std::erase_if(backends, [&](const std::string &text) { return is_first(text); });
        all_kinds(world, t, backends, affine);
        const auto second = dialled(world, t.client, t.balancer + ":80", 2000);
        CHECK(second.size() == 1);
        CHECK(second != first);
    }
    SECTION("nor longer than the service says")
    {
        world.age_affinity(101);
        std::set<std::string> later;
        for (unsigned i = 0; i < 4; i++) { // one may be the same by chance
            const auto got = dialled(world, t.client, t.balancer + ":80", 2000 + i * 100);
            CHECK(got.size() == 1);
            later.insert(*got.begin());
        }
        CHECK(later.size() == 1);
    }
    SECTION("and without affinity connections spread")
    {
        all_kinds(world, t, backends);
        CHECK(dialled(world, t.client, t.balancer + ":80", 2000).size() > 5);
    }
}

TEST_CASE("rule 20: each backend gets its share of connections")
{
    World world;
    const Talk &t = talks[GENERATE(0, 1)];
    const size_t count = GENERATE(2U, 7U, 16U);
    const unsigned share = 1000;
    std::vector<std::string> backends;
    for (size_t i = 1; i <= count; i++)
        backends.push_back(t.remote.starts_with('[') ? fmt::format("[fd00:10:244:2::{:x}]:8080", i)
                                                     : fmt::format("10.244.2.{}:8080", i));
    all_kinds(world, t, backends);
    std::map<std::string, unsigned> got;
    for (unsigned i = 0; i < share * count; i++)
        got[destination_of(
            world.from_net(tcp(fmt::format("{}:{}", t.client, 1024 + i), t.node + ":30080")).frame.bytes)]++;
    // Chernoff: one of them is off by 30 % with a probability of at most 16 * 2 * exp(-1000 * 0.3^2 / 3) = 3e-12.
    CHECK(got.size() == count);
    for (const auto &[backend, connections] : got) {
        INFO(backend);
        CHECK(connections >= 700);
        CHECK(connections <= 1300);
    }
}

TEST_CASE("rule 35: a UDP flow stays while its backend serves, and is to end when it does not")
{
    World world;
    const Talk &t = talks[GENERATE(0, 1)];
    const auto with = [&](const std::vector<std::string> &ready, const std::vector<std::string> &serving) {
        world.service("dns", {t.cluster + ":53"}, ready, Protocol::udp, [&](ServicePlan &plan) {
            plan.serving.clear();
            for (const std::string &text : serving)
                plan.serving.push_back(backend(text));
            std::ranges::sort(plan.serving);
        });
        return world.services->take_purges();
    };
    CHECK(with({t.pod2 + ":8080", t.pod3 + ":8080"}, {t.pod2, t.pod3}).empty());
    CHECK(with({t.pod3 + ":8080"}, {t.pod2, t.pod3}).empty());
    const auto purges = with({t.pod3 + ":8080"}, {t.pod3});
    REQUIRE(purges.size() == 1);
    CHECK(Address(purges[0].address) == host(t.pod2));
    CHECK(with({}, {}).size() == 1);
}
