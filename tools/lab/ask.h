// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "agent/base/error.h"
#include "tools/lab/socket.h"

#include <chrono>
#include <optional>
#include <string>

namespace thruway::lab {

struct AskOptions {
    Transport transport = Transport::tcp;
    SocketName target;
    std::optional<SocketName> source;
    std::chrono::milliseconds timeout{1000};
};

struct Answer {
    std::string name;   ///< of the echo server
    std::string client; ///< the address and port that it saw
    std::chrono::microseconds took{};
};

/// Asks an echo server once who it is and whom it sees, and exchanges a message with it. An error's text is the reason
/// in a word or two: "refused", "timeout".
Result<Answer> ask(const AskOptions &options);

} // namespace thruway::lab
