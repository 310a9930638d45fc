// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "agent/base/error.h"
#include "tools/lab/socket.h"

#include <chrono>
#include <cstdint>
#include <string>

namespace thruway::lab {

struct BulkOptions {
    SocketName target;
    uint64_t bytes = 0;
    int until = -1; ///< a descriptor: bytes are sent until it has something to read or ends, and only then counted
    uint64_t seed = 1;
    uint32_t rate = UINT32_MAX;                 ///< bytes a second, at most
    std::chrono::milliseconds patience{10'000}; ///< how long nothing may move
};

struct BulkReport {
    std::string name; ///< of the echo server
    uint64_t bytes = 0;
    std::chrono::duration<double> took{};
};

/// Sends pseudo-random bytes to an echo server over TCP, reads them back meanwhile and compares every one.
Result<BulkReport> bulk(const BulkOptions &options);

} // namespace thruway::lab
