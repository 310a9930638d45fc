// SPDX-License-Identifier: Apache-2.0
#include "tools/lab/echo.h"

#include "tools/lab/socket.h"

#include <array>
#include <cstdio>
#include <functional>
#include <netinet/in.h>
#include <sys/epoll.h>
#include <unordered_map>

namespace thruway::lab {
namespace {

constexpr int backlog = 4096;
constexpr size_t buffer_size = 65536; // holds the largest datagram

struct Client {
    Fd socket;
    std::string pending;  ///< has to be written before more is read
    bool blocked = false; ///< waits until it can be written to
    bool ended = false;   ///< will send no more
};

/// A wildcard socket for both families.
Result<Fd> bind_socket(Transport transport, uint16_t port)
{
    const int type = transport == Transport::tcp ? SOCK_STREAM : SOCK_DGRAM;
    Fd socket(::socket(AF_INET6, type | SOCK_NONBLOCK | SOCK_CLOEXEC, 0));
    const int on = 1;
    const int off = 0;
    ::setsockopt(socket.get(), IPPROTO_IPV6, IPV6_V6ONLY, &off, sizeof(off));
    if (transport == Transport::tcp)
        ::setsockopt(socket.get(), SOL_SOCKET, SO_REUSEADDR, &on, sizeof(on));
    else
        ::setsockopt(socket.get(), IPPROTO_IPV6, IPV6_RECVPKTINFO, &on, sizeof(on));

    RawSocketName name({.address = Address::any(Family::ipv6), .port = port});
    if (::bind(socket.get(), name.get(), name.size) != 0 ||
        (transport == Transport::tcp && ::listen(socket.get(), backlog) != 0))
        return fail_errno("cannot listen on {} port {}", transport == Transport::tcp ? "tcp" : "udp", port);
    return socket;
}

class EchoServer {
public:
    explicit EchoServer(std::string name) : name_(std::move(name)), epoll_(::epoll_create1(EPOLL_CLOEXEC)) {}

    Result<> listen(Transport transport, uint16_t port);
    [[noreturn]] void run();

private:
    [[nodiscard]] std::string greeting(const SocketName &client) const;
    void accept_all(int listener);
    void answer_datagrams(int socket);
    void answer(int socket, const SocketName &client, msghdr &message);
    void serve(Client &client);
    bool flush(Client &client) const;
    void watch(int socket, int operation, uint32_t events) const;

    std::string name_;
    Fd epoll_;
    std::unordered_map<int, Client> clients_;
    std::unordered_map<int, std::function<void()>> listeners_;
    std::vector<Fd> sockets_;
    std::array<char, buffer_size> buffer_{};
};

Result<> EchoServer::listen(Transport transport, uint16_t port)
{
    auto socket = bind_socket(transport, port);
    if (!socket)
        return std::unexpected(socket.error());
    const int fd = socket->get();
    if (transport == Transport::tcp)
        listeners_[fd] = [this, fd] { accept_all(fd); };
    else
        listeners_[fd] = [this, fd] { answer_datagrams(fd); };
    watch(fd, EPOLL_CTL_ADD, EPOLLIN);
    sockets_.push_back(std::move(*socket));
    return {};
}

void EchoServer::run()
{
    std::array<epoll_event, 64> events{};
    while (true) {
        const int count = ::epoll_wait(epoll_.get(), events.data(), events.size(), -1);
        for (int i = 0; i < count; i++) {
            const int fd = events.at(i).data.fd;
            if (const auto listener = listeners_.find(fd); listener != listeners_.end())
                listener->second();
            else if (const auto client = clients_.find(fd); client != clients_.end())
                serve(client->second);
        }
    }
}

std::string EchoServer::greeting(const SocketName &client) const
{
    return fmt::format("{} {}\n", name_, client.text());
}

void EchoServer::accept_all(int listener)
{
    while (true) {
        RawSocketName name;
        Fd socket(::accept4(listener, name.get(), &name.size, SOCK_NONBLOCK | SOCK_CLOEXEC));
        if (!socket)
            return;
        const int fd = socket.get();
        watch(fd, EPOLL_CTL_ADD, EPOLLIN);
        auto [client, added] =
            clients_.insert_or_assign(fd, Client{.socket = std::move(socket), .pending = greeting(name.name())});
        serve(client->second);
    }
}

void EchoServer::serve(Client &client)
{
    const int fd = client.socket.get();
    while (true) {
        if (!flush(client))
            return;
        if (client.ended) {
            clients_.erase(fd);
            return;
        }
        const auto got = ::recv(fd, buffer_.data(), buffer_.size(), 0);
        if (got < 0 && errno == EAGAIN)
            return;
        if (got < 0) {
            clients_.erase(fd);
            return;
        }
        client.ended = got == 0;
        client.pending.assign(buffer_.data(), static_cast<size_t>(got));
    }
}

/// Whether everything is written and the client is still there. Waits for whichever the client is slower at.
bool EchoServer::flush(Client &client) const
{
    const int fd = client.socket.get();
    if (client.pending.empty())
        return true;
    const auto sent = ::send(fd, client.pending.data(), client.pending.size(), MSG_NOSIGNAL);
    if (sent < 0 && errno != EAGAIN) {
        client.ended = true;
        client.pending.clear();
        return true;
    }
    client.pending.erase(0, sent < 0 ? 0 : static_cast<size_t>(sent));
    if (const bool blocked = !client.pending.empty(); blocked != client.blocked) {
        client.blocked = blocked;
        watch(fd, EPOLL_CTL_MOD, blocked ? EPOLLOUT : EPOLLIN);
    }
    return !client.blocked;
}

void EchoServer::answer_datagrams(int socket)
{
    while (true) {
        RawSocketName client;
        iovec content{.iov_base = buffer_.data(), .iov_len = buffer_.size()};
        alignas(cmsghdr) std::array<char, CMSG_SPACE(sizeof(in6_pktinfo))> control{};
        msghdr message{};
        message.msg_name = client.get();
        message.msg_namelen = client.size;
        message.msg_iov = &content;
        message.msg_iovlen = 1;
        message.msg_control = control.data();
        message.msg_controllen = control.size();

        const auto got = ::recvmsg(socket, &message, 0);
        if (got < 0)
            return;
        content.iov_len = static_cast<size_t>(got);
        answer(socket, client.name(), message);
    }
}

/// Answers from the address that the datagram was sent to: the control data that says which it was goes back as it is,
/// but for the interface, for which the routing table knows best.
void EchoServer::answer(int socket, const SocketName &client, msghdr &message)
{
    if (cmsghdr *header = CMSG_FIRSTHDR(&message); header && header->cmsg_type == IPV6_PKTINFO)
        reinterpret_cast<in6_pktinfo *>(CMSG_DATA(header))->ipi6_ifindex = 0;

    std::string line = greeting(client);
    std::array<iovec, 2> parts{iovec{.iov_base = line.data(), .iov_len = line.size()}, *message.msg_iov};
    message.msg_iov = parts.data();
    message.msg_iovlen = parts.size();
    ::sendmsg(socket, &message, MSG_NOSIGNAL); // an answer that cannot be sent is a datagram lost
}

void EchoServer::watch(int socket, int operation, uint32_t events) const
{
    epoll_event event{};
    event.events = events;
    event.data.fd = socket;
    ::epoll_ctl(epoll_.get(), operation, socket, &event);
}

} // namespace

Result<> serve_echo(const EchoOptions &options)
{
    raise_descriptor_limit();
    EchoServer server(options.name);
    for (const uint16_t port : options.tcp) {
        if (auto listening = server.listen(Transport::tcp, port); !listening)
            return listening;
    }
    for (const uint16_t port : options.udp) {
        if (auto listening = server.listen(Transport::udp, port); !listening)
            return listening;
    }
    fmt::print("{} listens\n", options.name);
    std::fflush(stdout);
    ::close(STDOUT_FILENO);
    server.run();
}

} // namespace thruway::lab
