// SPDX-License-Identifier: Apache-2.0
#include "tools/lab/socket.h"

#include <algorithm>
#include <array>
#include <cerrno>
#include <charconv>
#include <cstring>
#include <netinet/in.h>
#include <poll.h>
#include <sys/resource.h>

namespace thruway::lab {
namespace {

/// 0: not a port.
uint16_t parse_port(std::string_view text)
{
    uint16_t port = 0;
    const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), port);
    return error == std::errc{} && end == text.data() + text.size() ? port : uint16_t{0};
}

/// Without the brackets that set an IPv6 address off from its port. Any other IPv6 address is not one here.
std::string_view address_part(std::string_view text)
{
    if (text.starts_with('[') && text.ends_with(']'))
        return text.substr(1, text.size() - 2);
    return text.find(':') == std::string_view::npos ? text : std::string_view();
}

} // namespace

Result<SocketName> parse_socket_name(std::string_view text)
{
    const auto colon = text.rfind(':');
    if (colon != std::string_view::npos) {
        auto address = Address::parse(address_part(text.substr(0, colon)));
        const uint16_t port = parse_port(text.substr(colon + 1));
        if (address && port)
            return SocketName{.address = *address, .port = port};
    }
    return fail("\"{}\" is not ADDRESS:PORT (with IPv6: [ADDRESS]:PORT)", text);
}

Result<SocketName> parse_source(std::string_view text)
{
    if (auto address = Address::parse(text))
        return SocketName{.address = *address};
    return parse_socket_name(text);
}

RawSocketName::RawSocketName(const SocketName &name)
{
    if (name.address.family() == Family::ipv4) {
        auto *raw = reinterpret_cast<sockaddr_in *>(&storage);
        raw->sin_family = AF_INET;
        raw->sin_port = htons(name.port);
        std::memcpy(&raw->sin_addr, name.address.bytes(), name.address.size());
        size = sizeof(*raw);
    } else {
        auto *raw = reinterpret_cast<sockaddr_in6 *>(&storage);
        raw->sin6_family = AF_INET6;
        raw->sin6_port = htons(name.port);
        std::memcpy(&raw->sin6_addr, name.address.bytes(), name.address.size());
        size = sizeof(*raw);
    }
}

SocketName RawSocketName::name() const
{
    if (storage.ss_family == AF_INET) {
        const auto *raw = reinterpret_cast<const sockaddr_in *>(&storage);
        return {.address = Address::from_bytes(&raw->sin_addr, Family::ipv4), .port = ntohs(raw->sin_port)};
    }
    const auto *raw = reinterpret_cast<const sockaddr_in6 *>(&storage);
    return {.address = Address::from_bytes(&raw->sin6_addr, Family::ipv6), .port = ntohs(raw->sin6_port)};
}

Result<Fd> begin_connect(Transport transport, const SocketName &target, const std::optional<SocketName> &source)
{
    RawSocketName to(target);
    const int type = (transport == Transport::tcp ? SOCK_STREAM : SOCK_DGRAM) | SOCK_NONBLOCK | SOCK_CLOEXEC;
    Fd socket(::socket(to.storage.ss_family, type, 0));
    if (!socket)
        return fail_errno("cannot make a socket");
    if (source) {
        RawSocketName from(*source);
        const int on = 1;
        ::setsockopt(socket.get(), SOL_SOCKET, SO_REUSEADDR, &on, sizeof(on));
        if (::bind(socket.get(), from.get(), from.size) != 0)
            return fail_errno("cannot bind to {}", source->text());
    }
    if (::connect(socket.get(), to.get(), to.size) != 0 && errno != EINPROGRESS)
        return fail_errno("cannot connect to {}", target.text());
    return socket;
}

Result<Fd> connect_within(const SocketName &target, std::chrono::milliseconds timeout)
{
    auto socket = begin_connect(Transport::tcp, target);
    if (!socket)
        return socket;
    pollfd writable{.fd = socket->get(), .events = POLLOUT, .revents = 0};
    if (::poll(&writable, 1, static_cast<int>(timeout.count())) != 1)
        return fail_code(ETIMEDOUT, "cannot connect to {}", target.text());
    if (const int code = pending_error(socket->get()); code != 0)
        return fail_code(code, "cannot connect to {}", target.text());
    return socket;
}

int pending_error(int socket)
{
    int code = 0;
    socklen_t size = sizeof(code);
    ::getsockopt(socket, SOL_SOCKET, SO_ERROR, &code, &size);
    return code;
}

std::string network_reason(int code)
{
    switch (code) {
    case ECONNREFUSED:
        return "refused";
    case ECONNRESET:
    case EPIPE:
        return "reset";
    case ETIMEDOUT:
        return "timeout";
    case EHOSTUNREACH:
    case ENETUNREACH:
        return "unreachable";
    default:
        return std::generic_category().message(code);
    }
}

bool is_own_fault(int code)
{
    constexpr std::array own{EMFILE, ENFILE, EADDRNOTAVAIL, EADDRINUSE, ENOBUFS, ENOMEM, EINVAL, EAFNOSUPPORT};
    return std::ranges::find(own, code) != own.end();
}

void raise_descriptor_limit()
{
    rlimit limit{};
    ::getrlimit(RLIMIT_NOFILE, &limit);
    limit.rlim_cur = limit.rlim_max;
    ::setrlimit(RLIMIT_NOFILE, &limit);
}

} // namespace thruway::lab
