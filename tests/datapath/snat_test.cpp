// SPDX-License-Identifier: Apache-2.0
// Source ports: flows that would become equal, sockets of the node, and an end of all ports.
#include "tests/datapath/world.h"

#include <arpa/inet.h>
#include <catch2/catch_test_macros.hpp>
#include <catch2/generators/catch_generators.hpp>
#include <netinet/in.h>
#include <set>
#include <sys/socket.h>

using namespace thruway;
using namespace thruway::test;

namespace {

/// The same scene in both families, for TCP and for UDP.
struct Talk {
    bool v6;
    bool is_tcp;

    [[nodiscard]] std::string pod(unsigned number) const
    {
        return v6 ? fmt::format("[fd00:10:244:1::{}]", number) : fmt::format("10.244.1.{}", number);
    }
    [[nodiscard]] std::string remote(unsigned number) const
    {
        return v6 ? fmt::format("[fd00:10:244:2::{}]", number) : fmt::format("10.244.2.{}", number);
    }
    [[nodiscard]] std::string vip(unsigned number) const
    {
        return v6 ? fmt::format("[fd00:96::{}]", number) : fmt::format("10.96.0.{}", number);
    }
    [[nodiscard]] std::string client(unsigned number) const
    {
        return v6 ? fmt::format("[fd21::{}]", number) : fmt::format("172.21.0.{}", number);
    }
    [[nodiscard]] std::string node() const { return v6 ? "[fd20::11]" : "172.20.0.11"; }
    [[nodiscard]] std::string node_port(unsigned port) const { return fmt::format("{}:{}", v6 ? "[]" : "", port); }
    [[nodiscard]] Protocol protocol() const { return is_tcp ? Protocol::tcp : Protocol::udp; }
    [[nodiscard]] Packet packet(const std::string &from, const std::string &to) const
    {
        return is_tcp ? tcp(from, to) : udp(from, to);
    }
    [[nodiscard]] Packet answer(const std::string &from, const std::string &to) const
    {
        return packet(from, to).with_flags(is_tcp ? syn | ack : 0);
    }
    [[nodiscard]] uint16_t source_port(const Outcome &out) const
    {
        const size_t at = v6 ? 54 : 34;
        return static_cast<uint16_t>(out.frame.bytes.at(at) << 8 | out.frame.bytes.at(at + 1));
    }
};

Talk any_talk()
{
    return {.v6 = GENERATE(false, true), .is_tcp = GENERATE(true, false)};
}

struct RawName {
    sockaddr_storage storage{};
    socklen_t size;

    RawName(const Address &address, uint16_t port)
    {
        if (address.family() == Family::ipv4) {
            auto *name = reinterpret_cast<sockaddr_in *>(&storage);
            name->sin_family = AF_INET;
            name->sin_port = htons(port);
            REQUIRE(inet_pton(AF_INET, address.text().c_str(), &name->sin_addr) == 1);
            size = sizeof(*name);
        } else {
            auto *name = reinterpret_cast<sockaddr_in6 *>(&storage);
            name->sin6_family = AF_INET6;
            name->sin6_port = htons(port);
            REQUIRE(inet_pton(AF_INET6, address.text().c_str(), &name->sin6_addr) == 1);
            size = sizeof(*name);
        }
    }
    [[nodiscard]] const sockaddr *get() const { return reinterpret_cast<const sockaddr *>(&storage); }
};

/// A socket of the node on this port of its address.
Fd bound_socket(const Talk &talk, uint16_t port)
{
    Fd socket(::socket(talk.v6 ? AF_INET6 : AF_INET,
                       (talk.is_tcp ? SOCK_STREAM : SOCK_DGRAM) | SOCK_NONBLOCK | SOCK_CLOEXEC, 0));
    const int yes = 1;
    REQUIRE(::setsockopt(socket.get(), SOL_SOCKET, SO_REUSEADDR, &yes, sizeof(yes)) == 0);
    const RawName name(host(talk.node()), port);
    REQUIRE(::bind(socket.get(), name.get(), name.size) == 0);
    return socket;
}

/// One that talks, or tries to, to the other end.
Fd talking_socket(const Talk &talk, uint16_t port, const Address &to, uint16_t to_port)
{
    Fd socket = bound_socket(talk, port);
    const RawName name(to, to_port);
    const int result = ::connect(socket.get(), name.get(), name.size);
    REQUIRE((result == 0 || errno == EINPROGRESS));
    return socket;
}

} // namespace

TEST_CASE("one client port can talk to two services and to their backend directly at the same time")
{
    World world;
    const Talk s = any_talk();
    const PodSpec &client = world.pod(2);
    const PodSpec &server = world.pod(3);
    world.service("a", {s.vip(1) + ":80"}, {s.pod(3) + ":8080"}, s.protocol());
    world.service("b", {s.vip(2) + ":80"}, {s.pod(3) + ":8080"}, s.protocol());

    const std::string dialled[] = {s.pod(3) + ":8080", s.vip(1) + ":80", s.vip(2) + ":80"};
    std::vector<uint16_t> ports;
    for (const std::string &destination : dialled) {
        const Outcome out = world.from_pod(client, s.packet(s.pod(2) + ":40000", destination));
        REQUIRE(out.verdict == verdict_redirect);
        ports.push_back(s.source_port(out));
    }
    CHECK(ports[0] == 40000);
    CHECK(std::set(ports.begin(), ports.end()).size() == 3);

    // Each answer finds its own way back.
    const std::string sources[] = {s.pod(3), s.vip(1), s.vip(2)};
    for (size_t i = 0; i < 3; i++) {
        const Packet answer = s.answer(s.pod(3) + ":8080", fmt::format("{}:{}", s.pod(2), ports[i]));
        const Packet arrived = World::in_pod(
            answer.with_source(host(sources[i]), i == 0 ? 8080 : 80).with_destination(host(s.pod(2)), 40000), client);
        CHECK(world.from_pod(server, answer).frame == frame(arrived));
    }
}

TEST_CASE("two clients with one port reach one backend through the node, each by a port of its own")
{
    World world;
    const Talk s = any_talk();
    world.service("web", {s.node_port(30080)}, {s.remote(7) + ":8080"}, s.protocol());

    std::vector<uint16_t> ports;
    for (const unsigned client : {2, 3}) {
        const Packet request = s.packet(s.client(client) + ":50000", s.node() + ":30080");
        const Outcome out = world.from_net(request);
        REQUIRE(out.verdict == verdict_redirect);
        const uint16_t port = s.source_port(out);
        CHECK(port >= snat_first);
        CHECK(out.frame == frame(world.on_wire(
                               request.with_source(host(s.node()), port).with_destination(host(s.remote(7)), 8080))));
        ports.push_back(port);
    }
    CHECK(ports[0] != ports[1]);
    for (const unsigned i : {0, 1}) {
        const Packet answer = s.answer(s.remote(7) + ":8080", fmt::format("{}:{}", s.node(), ports.at(i)));
        CHECK(world.from_net(answer).frame ==
              frame(world.on_wire(
                  answer.with_source(host(s.node()), 30080).with_destination(host(s.client(2 + i)), 50000))));
    }
}

TEST_CASE("a port that a socket of the node talks from to the backend is not taken")
{
    World world([](DatapathOptions &options) { options.snat_ports = 2; });
    const Talk s = any_talk();
    constexpr unsigned backends = 8; // a blind choice passes one time in 256

    for (unsigned i = 1; i <= backends; i++) {
        const Fd socket = talking_socket(s, snat_first, host(s.remote(i)), 8080);
        world.service(fmt::format("web-{}", i), {s.node_port(30080 + i)}, {s.remote(i) + ":8080"}, s.protocol());
        const Outcome out = world.from_net(s.packet(s.client(2) + ":50000", fmt::format("{}:{}", s.node(), 30080 + i)));
        REQUIRE(out.verdict == verdict_redirect);
        CHECK(s.source_port(out) == snat_first + 1);
    }
    CHECK(world.snat().ports == backends);
    CHECK(world.snat().exhausted == 0);
}

TEST_CASE("a socket that only listens for TCP takes no port from SNAT")
{
    World world([](DatapathOptions &options) { options.snat_ports = 2; });
    const Talk s{.v6 = GENERATE(false, true), .is_tcp = true};
    const Fd listener = bound_socket(s, snat_first);
    REQUIRE(::listen(listener.get(), 1) == 0);
    world.service("web", {s.node_port(30080)}, {s.remote(7) + ":8080"});

    for (const unsigned client : {2, 3})
        CHECK(world.from_net(s.packet(s.client(client) + ":50000", s.node() + ":30080")).verdict == verdict_redirect);
}

TEST_CASE("when all ports towards a backend are in use, the flow is dropped by its own reason, and others go on")
{
    World world([](DatapathOptions &options) { options.snat_ports = 2; });
    const Talk s = any_talk();
    world.service("web", {s.node_port(30080)}, {s.remote(7) + ":8080"}, s.protocol());
    world.service("other", {s.node_port(30081)}, {s.remote(8) + ":8080"}, s.protocol());
    const auto dial = [&](unsigned client, unsigned port) {
        return world.from_net(s.packet(s.client(client) + ":50000", fmt::format("{}:{}", s.node(), port))).verdict;
    };

    CHECK(dial(2, 30080) == verdict_redirect);
    CHECK(dial(3, 30080) == verdict_redirect);
    const uint64_t collisions = world.snat().collisions;
    CHECK(collisions <= 1);
    CHECK(dial(4, 30080) == verdict_drop);
    CHECK(world.drops(TW_DROP_PORTS_EXHAUSTED) == 1);
    CHECK(world.snat().ports == 2);
    CHECK(world.snat().exhausted == 1);
    CHECK(world.snat().collisions > collisions + 1);

    CHECK(dial(2, 30080) == verdict_redirect); // what stands goes on
    CHECK(dial(4, 30081) == verdict_redirect); // another backend has ports of its own
}

TEST_CASE("the host talks to a backend directly and by its service from one port, and each answer is told apart")
{
    World world;
    const Talk s = any_talk();
    const Fd direct = talking_socket(s, 1000, host(s.remote(7)), 8080);
    world.service("web", {s.vip(1) + ":80"}, {s.remote(7) + ":8080"}, s.protocol());

    const Packet request = s.packet(s.node() + ":1000", s.vip(1) + ":80");
    const Outcome out = world.to_net(request);
    REQUIRE(out.verdict == verdict_redirect);
    const uint16_t port = s.source_port(out);
    CHECK(port >= snat_first);

    const Packet answer = s.answer(s.remote(7) + ":8080", fmt::format("{}:{}", s.node(), port));
    CHECK(world.from_net(answer).frame ==
          frame(answer.with_source(host(s.vip(1)), 80).with_destination(host(s.node()), 1000)));
    const Packet other = s.answer(s.remote(7) + ":8080", s.node() + ":1000");
    const Outcome untouched = world.from_net(other);
    CHECK(untouched.verdict == verdict_next);
    CHECK(untouched.frame == frame(other));
}
