// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "agent/base/error.h"
#include "tools/lab/ask.h"
#include "tools/lab/socket.h"

#include <chrono>
#include <cstdint>
#include <string>
#include <vector>

/// SCTP in user space, by raw sockets: kernels without it can be endpoints all the same. An association has one address
/// at each end, since nobody translates those that INIT chunks list (RFC 9260 section 3.3.2.1).
namespace thruway::lab {

struct SctpServeOptions {
    std::string name;
    std::vector<SocketName> listen;
};

/// Serves until killed. Each message is answered with "NAME CLIENT:PORT\n" and its own content behind it. Says one line
/// on standard output when it listens, then closes it. Returns only if that fails.
Result<> serve_sctp(const SctpServeOptions &options);

struct SctpDialOptions {
    SocketName target;
    uint16_t source_port = 0; ///< 0: any
    unsigned messages = 1;
    size_t size = 100;                       ///< bytes of each message
    std::chrono::milliseconds pause{0};      ///< before each message but the first
    std::chrono::milliseconds timeout{1000}; ///< for setup, each answer and shutdown
};

/// Sets up an association, sends messages that it knows again in the answers, and shuts the association down, which the
/// server has to agree to. An error's text is the reason in a word or two, as of ask().
Result<Answer> dial_sctp(const SctpDialOptions &options);

} // namespace thruway::lab
