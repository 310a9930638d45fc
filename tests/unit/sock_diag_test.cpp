// SPDX-License-Identifier: Apache-2.0
// Who has a port, as the kernel tells it.
#include "agent/node/sock_diag.h"

#include <catch2/catch_test_macros.hpp>
#include <netinet/in.h>
#include <sys/socket.h>
#include <sys/stat.h>

using namespace thruway;

namespace {

/// A socket of this process that is bound to a port of all addresses of a family.
struct Bound {
    Fd socket;
    uint16_t port = 0;

    Bound(int family, int type) : socket(::socket(family, type | SOCK_CLOEXEC, 0))
    {
        sockaddr_in6 name{}; // as long as the family's own; unspecified in both
        name.sin6_family = static_cast<sa_family_t>(family);
        socklen_t size = family == AF_INET ? sizeof(sockaddr_in) : sizeof(name);
        REQUIRE(::bind(socket.get(), reinterpret_cast<sockaddr *>(&name), size) == 0);
        REQUIRE(::getsockname(socket.get(), reinterpret_cast<sockaddr *>(&name), &size) == 0);
        port = ntohs(name.sin6_port); // at the same place in both families
    }
    void listen() const { REQUIRE(::listen(socket.get(), 1) == 0); }
    [[nodiscard]] uint64_t inode() const
    {
        struct stat about{};
        REQUIRE(::fstat(socket.get(), &about) == 0);
        return about.st_ino;
    }
};

const Address here4 = Address::parse("127.0.0.1").value();
const Address here6 = Address::parse("::1").value();

/// The inode, 0 if there is no such socket.
uint64_t at(const Address &address, uint16_t port, Protocol protocol)
{
    auto sockets = SockDiag::open();
    REQUIRE(sockets);
    const auto owner = sockets->at(address, port, protocol);
    INFO((owner ? "" : owner.error().text()));
    REQUIRE(owner);
    return *owner ? (*owner)->inode : 0;
}

} // namespace

TEST_CASE("a socket that listens, or waits for datagrams, is found by address and port")
{
    const Bound tcp(AF_INET, SOCK_STREAM);
    const Bound udp(AF_INET, SOCK_DGRAM);
    const Bound tcp6(AF_INET6, SOCK_STREAM);
    tcp.listen();
    tcp6.listen();
    CHECK(at(here4, tcp.port, Protocol::tcp) == tcp.inode());
    CHECK(at(here4, udp.port, Protocol::udp) == udp.inode());
    CHECK(at(here6, tcp6.port, Protocol::tcp) == tcp6.inode());
    CHECK(at(here4, tcp6.port, Protocol::tcp) == tcp6.inode()); // for both families
    CHECK(at(here6, tcp.port, Protocol::tcp) == 0);
    CHECK(socket_processes().at(tcp.inode()) == fmt::format("{} (unit_tests)", getpid()));
}

TEST_CASE("a socket that takes nothing from anybody is not found")
{
    const Bound idle(AF_INET, SOCK_STREAM);
    CHECK(at(here4, idle.port, Protocol::tcp) == 0);

    const Bound connected(AF_INET, SOCK_DGRAM);
    const Bound peer(AF_INET, SOCK_DGRAM);
    sockaddr_in name{};
    name.sin_family = AF_INET;
    name.sin_port = htons(peer.port);
    name.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    REQUIRE(::connect(connected.socket.get(), reinterpret_cast<sockaddr *>(&name), sizeof(name)) == 0);
    CHECK(at(here4, connected.port, Protocol::udp) == 0);
}
