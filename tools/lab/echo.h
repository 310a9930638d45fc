// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "agent/base/error.h"

#include <cstdint>
#include <string>
#include <vector>

namespace thruway::lab {

struct EchoOptions {
    std::string name;
    std::vector<uint16_t> tcp;
    std::vector<uint16_t> udp;
};

/// Serves on all addresses, IPv4 and IPv6, until killed. A TCP client is told "NAME CLIENT:PORT\n" and gets back every
/// byte it sends until it ends; each datagram is answered with such a line and its own content behind it.
///
/// Says one line on standard output when it listens on all ports, then closes it. Returns only if that fails.
Result<> serve_echo(const EchoOptions &options);

} // namespace thruway::lab
