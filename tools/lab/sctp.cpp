// SPDX-License-Identifier: Apache-2.0
#include "tools/lab/sctp.h"

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstdio>
#include <cstring>
#include <random>
#include <thread>
#include <unistd.h>
#include <usrsctp.h>
#include <utility>

namespace thruway::lab {
namespace {

using Clock = std::chrono::steady_clock;

constexpr int backlog = 128;
constexpr size_t buffer_size = 256 * 1024; // of the library; holds a message of any size that is sent here
constexpr std::chrono::milliseconds poll_interval(1);

/// The library's state is the process's, and so are its threads: it starts once and is never ended.
void start_library()
{
    usrsctp_init(0, nullptr, nullptr);
    usrsctp_sysctl_set_sctp_no_csum_on_loopback(0); // checksums are made and looked at everywhere
    // A raw socket has what every other one of its namespace has, and what is not for this process may be for another.
    usrsctp_sysctl_set_sctp_blackhole(2);
    usrsctp_sysctl_set_sctp_sendspace(buffer_size);
    usrsctp_sysctl_set_sctp_recvspace(buffer_size);
}

/// What was received: a message, or something that happened to its association.
struct Received {
    std::string content;
    bool notification = false;
    SocketName from;
    sctp_assoc_t association = 0;
};

class SctpSocket {
public:
    static Result<SctpSocket> make(Family family, int type);

    SctpSocket(SctpSocket &&other) noexcept : socket_(std::exchange(other.socket_, nullptr)) {}
    SctpSocket &operator=(SctpSocket &&) = delete;
    SctpSocket(const SctpSocket &) = delete;
    SctpSocket &operator=(const SctpSocket &) = delete;
    ~SctpSocket()
    {
        if (socket_)
            usrsctp_close(socket_);
    }

    [[nodiscard]] struct socket *get() const { return socket_; }

    Result<> bind(const SocketName &name) const;

    /// Sends a whole message; `association` counts where a socket has several.
    Result<> send(const std::string &message, sctp_assoc_t association = 0) const;

    /// The next whole message or notification, or the errno of having none.
    Result<Received> receive();

private:
    explicit SctpSocket(struct socket *socket) : socket_(socket) {}

    struct socket *socket_;
    Received partial_;
};

Result<SctpSocket> SctpSocket::make(Family family, int type)
{
    const int domain = family == Family::ipv4 ? AF_INET : AF_INET6;
    SctpSocket made(usrsctp_socket(domain, type, IPPROTO_SCTP, nullptr, nullptr, 0, nullptr));
    if (!made.socket_)
        return fail_errno("cannot make an SCTP socket");
    const int on = 1;
    const sctp_event changes{.se_assoc_id = SCTP_FUTURE_ASSOC, .se_type = SCTP_ASSOC_CHANGE, .se_on = 1};
    if (usrsctp_setsockopt(made.socket_, IPPROTO_SCTP, SCTP_EVENT, &changes, sizeof(changes)) != 0 ||
        usrsctp_setsockopt(made.socket_, IPPROTO_SCTP, SCTP_NODELAY, &on, sizeof(on)) != 0)
        return fail_errno("cannot set up an SCTP socket");
    return made;
}

Result<> SctpSocket::bind(const SocketName &name) const
{
    RawSocketName raw(name);
    if (usrsctp_bind(socket_, raw.get(), raw.size) != 0)
        return fail_errno("cannot bind to {}", name.text());
    return {};
}

Result<> SctpSocket::send(const std::string &message, sctp_assoc_t association) const
{
    sctp_sndinfo info{};
    info.snd_assoc_id = association;
    if (usrsctp_sendv(socket_, message.data(), message.size(), nullptr, 0, &info, sizeof(info), SCTP_SENDV_SNDINFO, 0) <
        0)
        return fail_errno("cannot send");
    return {};
}

Result<Received> SctpSocket::receive()
{
    while (true) {
        std::array<char, 65536> buffer{};
        RawSocketName from;
        sctp_rcvinfo info{};
        socklen_t info_size = sizeof(info);
        unsigned kind = 0;
        int flags = 0;
        const auto got = usrsctp_recvv(socket_, buffer.data(), buffer.size(), from.get(), &from.size, &info, &info_size,
                                       &kind, &flags);
        if (got < 0)
            return fail_errno("cannot receive");
        if (got == 0)
            return fail_code(ECONNRESET, "the association is over");
        partial_.content.append(buffer.data(), static_cast<size_t>(got));
        if (!(flags & MSG_EOR))
            continue;
        partial_.notification = flags & MSG_NOTIFICATION;
        partial_.from = from.name();
        partial_.association = kind == SCTP_RECVV_RCVINFO ? info.rcv_assoc_id : 0;
        return std::exchange(partial_, {});
    }
}

Result<SctpSocket> listen(const SocketName &name)
{
    auto socket = SctpSocket::make(name.address.family(), SOCK_SEQPACKET);
    if (!socket)
        return socket;
    const int on = 1;
    usrsctp_setsockopt(socket->get(), IPPROTO_SCTP, SCTP_RECVRCVINFO, &on, sizeof(on));
    if (auto bound = socket->bind(name); !bound)
        return std::unexpected(bound.error());
    if (usrsctp_listen(socket->get(), backlog) != 0)
        return fail_errno("cannot listen on {}", name.text());
    return socket;
}

/// Answers every message that comes by this socket.
void answer_all(SctpSocket socket, const std::string &name)
{
    while (true) {
        const auto message = socket.receive();
        if (!message || message->notification)
            continue;
        // An answer that cannot be sent is one whose client is gone.
        [[maybe_unused]] const auto sent =
            socket.send(fmt::format("{} {}\n{}", name, message->from.text(), message->content), message->association);
    }
}

/// The address from which this machine sends to the target.
Result<SocketName> way_to(const SocketName &target)
{
    auto probe = begin_connect(Transport::udp, target);
    if (!probe)
        return std::unexpected(probe.error());
    RawSocketName own;
    if (::getsockname(probe->get(), own.get(), &own.size) != 0)
        return fail_errno("cannot tell the way to {}", target.text());
    return own.name();
}

/// The client's end of one association.
class Dialling {
public:
    Dialling(const SctpDialOptions &options, SctpSocket socket) : options_(options), socket_(std::move(socket)) {}

    Result<> set_up();
    Result<> exchange();
    Result<> shut_down();
    [[nodiscard]] Answer answer() const { return answer_; }

private:
    Result<std::string> next(bool notification);
    Result<> expect(uint16_t state);
    Result<> check(const std::string &got, const std::string &message);

    SctpDialOptions options_;
    SctpSocket socket_;
    Answer answer_;
};

/// The next message, or the next notification. One of the other kind is the end of the association.
Result<std::string> Dialling::next(bool notification)
{
    const auto deadline = Clock::now() + options_.timeout;
    while (Clock::now() < deadline) {
        auto received = socket_.receive();
        if (received && received->notification == notification)
            return std::move(received->content);
        if (received)
            return fail("reset");
        if (received.error().code() != EWOULDBLOCK)
            return fail("{}", network_reason(received.error().code()));
        std::this_thread::sleep_for(poll_interval);
    }
    return fail("timeout");
}

/// Waits until the association comes into a state (SCTP_COMM_UP, ...), which is to be the next thing that happens.
Result<> Dialling::expect(uint16_t state)
{
    const auto happened = next(true);
    if (!happened)
        return std::unexpected(happened.error());
    sctp_assoc_change change{};
    std::memcpy(&change, happened->data(), std::min(sizeof(change), happened->size()));
    if (change.sac_type == SCTP_ASSOC_CHANGE && change.sac_state == state)
        return {};
    return fail("{}", change.sac_state == SCTP_CANT_STR_ASSOC ? "refused" : "reset");
}

Result<> Dialling::set_up()
{
    RawSocketName to(options_.target);
    usrsctp_set_non_blocking(socket_.get(), 1);
    if (usrsctp_connect(socket_.get(), to.get(), to.size) != 0 && errno != EINPROGRESS)
        return fail("{}", network_reason(errno));
    return expect(SCTP_COMM_UP);
}

Result<> Dialling::exchange()
{
    std::mt19937 bytes(options_.target.port);
    std::string message(options_.size, '\0');
    for (unsigned i = 0; i < options_.messages; i++) {
        if (i > 0)
            std::this_thread::sleep_for(options_.pause);
        for (char &byte : message)
            byte = static_cast<char>(bytes());
        if (auto sent = socket_.send(message); !sent)
            return fail("{}", network_reason(sent.error().code()));
        const auto got = next(false);
        if (!got)
            return std::unexpected(got.error());
        if (auto checked = check(*got, message); !checked)
            return checked;
    }
    return {};
}

/// Of an association all messages have one server, and one client, too.
Result<> Dialling::check(const std::string &got, const std::string &message)
{
    const size_t end = got.find('\n');
    if (end == std::string::npos || got.substr(end + 1) != message)
        return fail("wrong answer");
    const std::string name = got.substr(0, got.rfind(' ', end));
    const std::string client = got.substr(name.size() + 1, end - name.size() - 1);
    if (!answer_.name.empty() && (name != answer_.name || client != answer_.client))
        return fail("another server's answer");
    answer_.name = name;
    answer_.client = client;
    return {};
}

Result<> Dialling::shut_down()
{
    if (usrsctp_shutdown(socket_.get(), SHUT_WR) != 0)
        return fail("{}", network_reason(errno));
    return expect(SCTP_SHUTDOWN_COMP);
}

} // namespace

Result<> serve_sctp(const SctpServeOptions &options)
{
    start_library();
    std::vector<SctpSocket> sockets;
    for (const SocketName &name : options.listen) {
        auto socket = listen(name);
        if (!socket)
            return std::unexpected(socket.error());
        sockets.push_back(std::move(*socket));
    }
    fmt::print("{} listens\n", options.name);
    std::fflush(stdout);
    ::close(STDOUT_FILENO);
    std::vector<std::jthread> threads;
    for (SctpSocket &socket : sockets)
        threads.emplace_back(answer_all, std::move(socket), options.name);
    return {};
}

Result<Answer> dial_sctp(const SctpDialOptions &options)
{
    auto own = way_to(options.target);
    if (!own)
        return std::unexpected(own.error());
    own->port = options.source_port;
    start_library();
    auto socket = SctpSocket::make(own->address.family(), SOCK_STREAM);
    if (!socket)
        return std::unexpected(socket.error());
    if (auto bound = socket->bind(*own); !bound)
        return std::unexpected(bound.error());

    const auto begin = Clock::now();
    Dialling dialling(options, std::move(*socket));
    for (const auto step : {&Dialling::set_up, &Dialling::exchange, &Dialling::shut_down}) {
        if (auto done = (dialling.*step)(); !done)
            return std::unexpected(done.error());
    }
    Answer answer = dialling.answer();
    answer.took = std::chrono::duration_cast<std::chrono::microseconds>(Clock::now() - begin);
    return answer;
}

} // namespace thruway::lab
