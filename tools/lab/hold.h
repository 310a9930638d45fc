// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "agent/base/error.h"
#include "tools/lab/conversation.h"

#include <chrono>
#include <cstdint>
#include <functional>
#include <map>
#include <string>

namespace thruway::lab {

struct HoldOptions {
    Transport transport = Transport::tcp;
    SocketName target;
    unsigned connections = 1;
    double rate = 0; ///< short conversations begun per second
    std::chrono::duration<double> length{10};
    std::chrono::milliseconds interval{100}; ///< between the messages of one held connection
    std::chrono::milliseconds timeout{5000}; ///< for a connection to come about, and for each answer
};

/// What a backend did for those that it served. A held UDP socket counts where its last answer came from.
struct Served {
    uint64_t held = 0;
    uint64_t lost = 0; ///< as HoldReport::lost
    uint64_t brief = 0;
};

/// What `hold` saw. Every connection and message that was begun is accounted for in here.
struct HoldReport {
    uint64_t connections = 0; ///< to be held
    uint64_t established = 0; ///< of these, how many came about
    uint64_t lost = 0;        ///< TCP: established ones that broke; UDP: datagrams on held sockets without an answer
    uint64_t short_ok = 0;
    uint64_t short_failed = 0;
    Tally held;
    Tally brief;
    std::map<std::string, Served> backends;
    std::map<std::string, uint64_t> own_faults; ///< connections that this machine could not even begin
    Clock::duration longest_pause{};            ///< for which the instrument did not get to look at its sockets
    std::chrono::duration<double> measured{};   ///< from when all held connections were decided

    /// By reason, among held and short ones.
    [[nodiscard]] uint64_t problems(const std::string &reason) const;

    /// Everything that was begun went well.
    [[nodiscard]] bool good() const;
};

struct HoldHooks {
    std::function<bool()> interrupted;             ///< asked all the time: whether to end before the length is over
    std::function<void(size_t open)> held_decided; ///< each held connection has come about or failed
};

/// Holds connections to a service open, with a message going back and forth on each, and opens and closes short ones
/// beside them. What it reports as lost was lost in the network or at the server: answers that had come are read before
/// anything is given up, and what this machine could not begin is told apart.
HoldReport hold(const HoldOptions &options, const HoldHooks &hooks);

} // namespace thruway::lab
