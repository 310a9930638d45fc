// SPDX-License-Identifier: Apache-2.0
#include "tests/unit/http_peer.h"

#include <array>
#include <catch2/catch_test_macros.hpp>
#include <netinet/in.h>
#include <sys/socket.h>

namespace thruway::test {

Peer::Peer(uint16_t port, Family family)
    : socket_(::socket(family == Family::ipv4 ? AF_INET : AF_INET6, SOCK_STREAM | SOCK_CLOEXEC, 0))
{
    const timeval limit{.tv_sec = 10, .tv_usec = 0};
    ::setsockopt(socket_.get(), SOL_SOCKET, SO_RCVTIMEO, &limit, sizeof(limit));
    sockaddr_in ipv4{};
    ipv4.sin_family = AF_INET;
    ipv4.sin_port = htons(port);
    ipv4.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    sockaddr_in6 ipv6{};
    ipv6.sin6_family = AF_INET6;
    ipv6.sin6_port = htons(port);
    ipv6.sin6_addr = in6addr_loopback;
    const auto *name =
        family == Family::ipv4 ? reinterpret_cast<const sockaddr *>(&ipv4) : reinterpret_cast<const sockaddr *>(&ipv6);
    REQUIRE(::connect(socket_.get(), name, family == Family::ipv4 ? sizeof(ipv4) : sizeof(ipv6)) == 0);
}

void Peer::send(const std::string &text)
{
    ::send(socket_.get(), text.data(), text.size(), MSG_NOSIGNAL);
}

/// Empty once the other end has closed.
std::string Peer::receive_some()
{
    std::array<char, 65'536> buffer{};
    const auto got = ::recv(socket_.get(), buffer.data(), buffer.size(), 0);
    REQUIRE((got >= 0 || errno == ECONNRESET));
    return {buffer.data(), got > 0 ? static_cast<size_t>(got) : 0};
}

std::string Peer::receive_until(const std::string &end)
{
    std::string all;
    while (!all.ends_with(end)) {
        const std::string some = receive_some();
        REQUIRE_FALSE(some.empty());
        all += some;
    }
    return all;
}

std::string Peer::receive_all()
{
    std::string all;
    for (std::string some = receive_some(); !some.empty(); some = receive_some())
        all += some;
    return all;
}

std::string Peer::ask(const std::string &request)
{
    send(request);
    return receive_all();
}

Serving::Serving(HttpServer::Handler handler, const std::string &address)
{
    auto server = HttpServer::on_address(loop_, address, std::move(handler));
    REQUIRE(server);
    server_ = std::move(*server);
    port_ = server_->port();
    thread_ = std::thread([this] { loop_.run(); });
}

Serving::~Serving()
{
    loop_.post([this] { loop_.stop(); });
    thread_.join();
}

} // namespace thruway::test
