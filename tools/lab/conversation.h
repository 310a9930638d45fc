// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "agent/base/error.h"
#include "agent/base/fd.h"
#include "tools/lab/socket.h"

#include <chrono>
#include <cstdint>
#include <map>
#include <optional>
#include <string>

namespace thruway::lab {

using Clock = std::chrono::steady_clock;

/// What became of the messages of a conversation, or of many.
struct Tally {
    uint64_t sent = 0;
    uint64_t answered = 0;
    uint64_t lost = 0;                        ///< datagrams that were never answered
    uint64_t repeated = 0;                    ///< answers that came once more, or after their datagram was given up
    uint64_t retransmitted = 0;               ///< TCP segments of ours that had to be sent again
    Clock::duration slowest_connect{};        ///< until the server had said its name
    Clock::duration slowest_answer{};         ///< until a message came back
    std::map<std::string, uint64_t> problems; ///< by reason: "refused", "timeout", ...

    void add(const Tally &other);
};

/// A client's exchange with an echo server over one socket: it learns the server's name, sends messages and checks that
/// each comes back as it was. It never blocks: its user calls ready() when the socket has something (edge-triggered
/// notice will do), and expire() from time to time.
class Conversation {
public:
    enum class State : uint8_t {
        connecting,
        greeting, ///< waits to hear the server's name
        open,
        closing, ///< TCP: has ended its half and waits for the server's
        ended,
        failed, ///< not by the loss of a datagram: that ends nothing
    };

    /// Fails only by a fault of this machine's; what the network does wrong becomes the conversation's state.
    static Result<Conversation> start(Transport transport, const SocketName &target,
                                      const std::optional<SocketName> &source = {});

    [[nodiscard]] int socket() const { return socket_.get(); }
    [[nodiscard]] State state() const { return state_; }
    [[nodiscard]] bool over() const { return state_ == State::ended || state_ == State::failed; }
    [[nodiscard]] bool can_say() const;
    [[nodiscard]] bool all_answered() const { return waiting_.empty(); }

    /// Whether the server's name is or was known: a TCP connection was established in both directions.
    [[nodiscard]] bool was_open() const { return !server_.empty(); }

    /// Who answered (datagrams: the last one), and as whom it saw us.
    [[nodiscard]] const std::string &server() const { return server_; }
    [[nodiscard]] const std::string &client() const { return client_; }

    /// Why it failed, or lost a datagram last. Empty if nothing went wrong.
    [[nodiscard]] const std::string &reason() const { return reason_; }

    [[nodiscard]] const Tally &tally() const { return tally_; }

    /// Sends the next message, if can_say().
    void say();

    /// Takes whatever the socket has.
    void ready();

    /// Gives up what has waited for more than `timeout` at `now`. It must be certain that ready() was called for all
    /// that had come by then; so a pause of this process is never taken for a fault of the network.
    void expire(Clock::time_point now, Clock::duration timeout);

    /// Ends it in order, to be called when all is answered.
    void close();

private:
    Conversation(Transport transport, Fd socket);

    [[nodiscard]] bool connected();
    void receive_stream(std::string_view bytes);
    void receive_datagram(std::string_view datagram);
    void take_greeting(std::string_view line);
    void take_answer(uint64_t sequence, Clock::time_point sent);
    [[nodiscard]] std::string message(uint64_t sequence) const;
    [[nodiscard]] std::optional<uint64_t> sequence_of(std::string_view text) const;
    void fail_with(const std::string &reason);
    void lose_oldest(const std::string &reason);
    void end(State state);

    Transport transport_;
    Fd socket_;
    State state_;
    uint64_t nonce_;
    Clock::time_point since_;                       ///< when what it is doing began: connecting, closing
    uint64_t next_ = 0;                             ///< sequence number of the next message
    std::map<uint64_t, Clock::time_point> waiting_; ///< messages without an answer yet, and when each was sent
    std::string inbox_;                             ///< what came of the stream and is no whole message yet
    std::string server_;
    std::string client_;
    std::string reason_;
    Tally tally_;
};

} // namespace thruway::lab
