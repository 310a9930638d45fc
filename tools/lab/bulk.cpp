// SPDX-License-Identifier: Apache-2.0
#include "tools/lab/bulk.h"

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstring>
#include <optional>
#include <poll.h>
#include <sys/socket.h>
#include <vector>

namespace thruway::lab {
namespace {

constexpr size_t chunk_size = 256 * 1024;

/// The bytes of a seed, one block after the other. Both sides of the comparison make them anew, so that a transfer may
/// be of any length.
class RandomBytes {
public:
    explicit RandomBytes(uint64_t seed) : state_(seed) {}

    void fill(std::vector<char> &block)
    {
        for (size_t i = 0; i < block.size(); i += sizeof(uint64_t)) {
            const uint64_t word = next();
            std::memcpy(block.data() + i, &word, sizeof(word));
        }
    }

private:
    /// A multiplicative generator with its high half folded in: every bit changes from word to word.
    uint64_t next()
    {
        state_ = state_ * 6364136223846793005ULL + 1442695040888963407ULL;
        return state_ ^ (state_ >> 32);
    }

    uint64_t state_;
};

/// A walk along the bytes of a seed.
class Walk {
public:
    explicit Walk(uint64_t seed) : bytes_(seed), block_(chunk_size) { bytes_.fill(block_); }

    /// What comes next, as far as it is at hand; never empty.
    [[nodiscard]] std::string_view next() const { return {block_.data() + at_, block_.size() - at_}; }

    void advance(size_t count)
    {
        at_ += count;
        position_ += count;
        if (at_ == block_.size()) {
            bytes_.fill(block_);
            at_ = 0;
        }
    }

    [[nodiscard]] uint64_t position() const { return position_; }

private:
    RandomBytes bytes_;
    std::vector<char> block_;
    size_t at_ = 0;
    uint64_t position_ = 0;
};

class Transfer {
public:
    Transfer(const BulkOptions &options, Fd socket)
        : options_(options), end_(options.until < 0 ? options.bytes : UINT64_MAX), socket_(std::move(socket)),
          outgoing_(options.seed), incoming_(options.seed), buffer_(chunk_size)
    {
    }

    Result<> run();
    [[nodiscard]] const std::string &name() const { return name_; }
    [[nodiscard]] uint64_t bytes() const { return incoming_.position(); }

private:
    Result<> send_some();
    Result<> receive_some();
    Result<> compare(std::string_view bytes);
    std::string_view strip_greeting(std::string_view bytes);

    BulkOptions options_;
    uint64_t end_; ///< how many bytes in all
    Fd socket_;
    Walk outgoing_;
    Walk incoming_;
    std::vector<char> buffer_;
    std::string greeting_;
    bool greeted_ = false;
    std::string name_;
};

Result<> Transfer::run()
{
    std::array<pollfd, 2> waited{
        {{.fd = socket_.get(), .events = 0, .revents = 0}, {.fd = options_.until, .events = POLLIN, .revents = 0}}};
    auto &[socket, until] = waited;
    while (!greeted_ || incoming_.position() < end_) {
        socket.events = outgoing_.position() < end_ ? POLLIN | POLLOUT : POLLIN;
        if (::poll(waited.data(), waited.size(), static_cast<int>(options_.patience.count())) == 0)
            return fail("nothing moved for {} ms: {} bytes sent, {} came back", options_.patience.count(),
                        outgoing_.position(), incoming_.position());
        if (until.revents) {
            until.fd = -1;
            end_ = outgoing_.position() + options_.bytes;
        }
        if (socket.revents & POLLOUT) {
            if (auto sent = send_some(); !sent)
                return sent;
        }
        if (socket.revents & ~POLLOUT) {
            if (auto received = receive_some(); !received)
                return received;
        }
    }
    return {};
}

Result<> Transfer::send_some()
{
    const auto bytes = outgoing_.next().substr(0, end_ - outgoing_.position());
    const auto sent = ::send(socket_.get(), bytes.data(), bytes.size(), MSG_NOSIGNAL | MSG_DONTWAIT);
    if (sent < 0)
        return errno == EAGAIN ? Result<>() : fail("{} after {} bytes", network_reason(errno), outgoing_.position());
    outgoing_.advance(static_cast<size_t>(sent));
    return {};
}

Result<> Transfer::receive_some()
{
    const auto got = ::recv(socket_.get(), buffer_.data(), buffer_.size(), MSG_DONTWAIT);
    if (got < 0)
        return errno == EAGAIN ? Result<>() : fail("{} after {} bytes", network_reason(errno), incoming_.position());
    if (got == 0)
        return fail("closed after {} bytes", incoming_.position());
    return compare(strip_greeting({buffer_.data(), static_cast<size_t>(got)}));
}

/// The bytes behind the line in which the server says its name.
std::string_view Transfer::strip_greeting(std::string_view bytes)
{
    if (greeted_)
        return bytes;
    const auto end = bytes.find('\n');
    greeting_ += bytes.substr(0, end);
    if (end == std::string_view::npos)
        return {};
    greeted_ = true;
    name_ = greeting_.substr(0, greeting_.rfind(' '));
    return bytes.substr(end + 1);
}

Result<> Transfer::compare(std::string_view bytes)
{
    while (!bytes.empty()) {
        const auto expected = incoming_.next().substr(0, bytes.size());
        const auto got = bytes.substr(0, expected.size());
        if (got != expected) {
            const auto wrong = std::ranges::mismatch(expected, got).in1 - expected.begin();
            return fail("byte {} came back wrong", incoming_.position() + static_cast<uint64_t>(wrong));
        }
        incoming_.advance(got.size());
        if (incoming_.position() > outgoing_.position())
            return fail("more came back than the {} bytes that were sent", outgoing_.position());
        bytes.remove_prefix(got.size());
    }
    return {};
}

} // namespace

Result<BulkReport> bulk(const BulkOptions &options)
{
    auto socket = connect_within(options.target, options.patience);
    if (!socket)
        return std::unexpected(socket.error());
    if (::setsockopt(socket->get(), SOL_SOCKET, SO_MAX_PACING_RATE, &options.rate, sizeof(options.rate)) != 0)
        return fail_errno("cannot limit the rate");
    const auto begin = std::chrono::steady_clock::now();
    Transfer transfer(options, std::move(*socket));
    if (auto done = transfer.run(); !done)
        return std::unexpected(done.error());
    return BulkReport{
        .name = transfer.name(), .bytes = transfer.bytes(), .took = std::chrono::steady_clock::now() - begin};
}

} // namespace thruway::lab
