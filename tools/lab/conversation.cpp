// SPDX-License-Identifier: Apache-2.0
#include "tools/lab/conversation.h"

#include <algorithm>
#include <array>
#include <cerrno>
#include <charconv>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <random>

namespace thruway::lab {
namespace {

/// Tells this conversation's messages from those of an earlier one that had the same port.
uint64_t new_nonce()
{
    static std::mt19937_64 generator{std::random_device{}()};
    return generator();
}

uint64_t retransmitted_segments(int socket)
{
    tcp_info info{};
    socklen_t size = sizeof(info);
    ::getsockopt(socket, IPPROTO_TCP, TCP_INFO, &info, &size);
    return info.tcpi_total_retrans;
}

} // namespace

void Tally::add(const Tally &other)
{
    sent += other.sent;
    answered += other.answered;
    lost += other.lost;
    repeated += other.repeated;
    retransmitted += other.retransmitted;
    slowest_connect = std::max(slowest_connect, other.slowest_connect);
    slowest_answer = std::max(slowest_answer, other.slowest_answer);
    for (const auto &[reason, count] : other.problems)
        problems[reason] += count;
}

Conversation::Conversation(Transport transport, Fd socket)
    : transport_(transport), socket_(std::move(socket)),
      state_(transport == Transport::tcp ? State::connecting : State::greeting), nonce_(new_nonce()),
      since_(Clock::now())
{
}

Result<Conversation> Conversation::start(Transport transport, const SocketName &target,
                                         const std::optional<SocketName> &source)
{
    auto socket = begin_connect(transport, target, source);
    if (socket)
        return Conversation(transport, std::move(*socket));
    if (is_own_fault(socket.error().code()))
        return std::unexpected(socket.error());
    Conversation refused(transport, Fd());
    refused.fail_with(network_reason(socket.error().code()));
    return refused;
}

bool Conversation::can_say() const
{
    return state_ == State::open || (transport_ == Transport::udp && state_ == State::greeting);
}

void Conversation::say()
{
    if (!can_say())
        return;
    const std::string text = message(next_);
    if (state_ == State::greeting && next_ == 0)
        since_ = Clock::now();
    // A datagram that is refused here is a former one's refusal, so this is tried once more.
    auto sent = ::send(socket_.get(), text.data(), text.size(), MSG_NOSIGNAL);
    if (sent < 0 && transport_ == Transport::udp) {
        lose_oldest(network_reason(errno));
        sent = ::send(socket_.get(), text.data(), text.size(), MSG_NOSIGNAL);
    }
    waiting_.emplace(next_++, Clock::now());
    tally_.sent++;
    if (sent == static_cast<ssize_t>(text.size()))
        return;
    if (transport_ == Transport::udp)
        lose_oldest(network_reason(errno));
    else
        fail_with(sent < 0 && errno != EAGAIN ? network_reason(errno) : "no answer");
}

void Conversation::ready()
{
    std::array<char, 4096> buffer{};
    if (state_ == State::connecting && !connected())
        return;
    while (!over()) {
        const auto got = ::recv(socket_.get(), buffer.data(), buffer.size(), 0);
        const std::string_view bytes(buffer.data(), got > 0 ? static_cast<size_t>(got) : 0);
        if (got < 0 && errno == EAGAIN)
            return;
        if (transport_ == Transport::udp) {
            if (got < 0)
                lose_oldest(network_reason(errno));
            else
                receive_datagram(bytes);
        } else if (got < 0) {
            fail_with(network_reason(errno));
        } else if (got > 0) {
            receive_stream(bytes);
        } else if (state_ == State::closing) {
            end(State::ended);
        } else {
            fail_with("closed");
        }
    }
}

bool Conversation::connected()
{
    if (const int code = pending_error(socket_.get()); code != 0) {
        fail_with(network_reason(code));
        return false;
    }
    RawSocketName peer;
    if (::getpeername(socket_.get(), peer.get(), &peer.size) != 0)
        return false;
    state_ = State::greeting;
    return true;
}

void Conversation::receive_stream(std::string_view bytes)
{
    inbox_ += bytes;
    if (state_ == State::greeting) {
        const auto end = inbox_.find('\n');
        if (end == std::string::npos)
            return;
        take_greeting(std::string_view(inbox_).substr(0, end));
        inbox_.erase(0, end + 1);
    }
    while (!inbox_.empty() && !over()) {
        const std::string expected = waiting_.empty() ? std::string() : message(waiting_.begin()->first);
        if (inbox_.size() < expected.size())
            return;
        if (expected.empty() || !inbox_.starts_with(expected)) {
            fail_with("wrong data");
            return;
        }
        inbox_.erase(0, expected.size());
        take_answer(waiting_.begin()->first, waiting_.begin()->second);
    }
}

void Conversation::receive_datagram(std::string_view datagram)
{
    const auto line = datagram.find('\n');
    const auto content = line == std::string_view::npos ? datagram : datagram.substr(line + 1);
    const auto sequence = sequence_of(content);
    if (!sequence) {
        tally_.problems["wrong data"]++;
    } else if (const auto sent = waiting_.find(*sequence); sent != waiting_.end()) {
        take_greeting(datagram.substr(0, line));
        take_answer(sent->first, sent->second);
    } else {
        tally_.repeated++;
    }
}

void Conversation::take_greeting(std::string_view line)
{
    const auto space = line.rfind(' ');
    server_ = line.substr(0, space);
    client_ = space == std::string_view::npos ? "" : line.substr(space + 1);
    if (state_ == State::greeting) {
        state_ = State::open;
        tally_.slowest_connect = Clock::now() - since_;
    }
}

void Conversation::take_answer(uint64_t sequence, Clock::time_point sent)
{
    tally_.answered++;
    tally_.slowest_answer = std::max(tally_.slowest_answer, Clock::now() - sent);
    waiting_.erase(sequence);
}

/// All of one length, and no two alike.
std::string Conversation::message(uint64_t sequence) const
{
    return fmt::format("{:016x} {:016x}\n", nonce_, sequence);
}

/// Of a message of this conversation.
std::optional<uint64_t> Conversation::sequence_of(std::string_view text) const
{
    constexpr size_t begin = 17;
    uint64_t sequence = 0;
    if (text.size() > begin)
        std::from_chars(text.data() + begin, text.data() + text.size(), sequence, 16);
    return sequence < next_ && message(sequence) == text ? std::optional(sequence) : std::nullopt;
}

void Conversation::expire(Clock::time_point now, Clock::duration timeout)
{
    const auto overdue = [&](Clock::time_point since) { return now - since > timeout; };
    if (transport_ == Transport::udp) {
        while (!waiting_.empty() && overdue(waiting_.begin()->second))
            lose_oldest("timeout");
    } else if (state_ == State::connecting || state_ == State::greeting) {
        if (overdue(since_))
            fail_with("timeout");
    } else if (state_ == State::open) {
        if (!waiting_.empty() && overdue(waiting_.begin()->second))
            fail_with("no answer");
    } else if (state_ == State::closing && overdue(since_)) {
        fail_with("no end");
    }
}

void Conversation::close()
{
    if (transport_ == Transport::udp) {
        end(State::ended);
    } else if (state_ == State::open) {
        ::shutdown(socket_.get(), SHUT_WR);
        state_ = State::closing;
        since_ = Clock::now();
    }
}

void Conversation::fail_with(const std::string &reason)
{
    reason_ = reason;
    tally_.problems[reason]++;
    end(State::failed);
}

void Conversation::lose_oldest(const std::string &reason)
{
    if (waiting_.empty())
        return;
    reason_ = reason;
    tally_.problems[reason]++;
    tally_.lost++;
    waiting_.erase(waiting_.begin());
}

void Conversation::end(State state)
{
    state_ = state;
    if (transport_ == Transport::tcp && socket_)
        tally_.retransmitted = retransmitted_segments(socket_.get());
    socket_.reset();
}

} // namespace thruway::lab
