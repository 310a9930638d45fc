// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "agent/base/address.h"

#include <cstdint>
#include <vector>

namespace thruway::cli {

/// A packet that could open a conversation.
struct Probe {
    Address source;
    Address destination;      ///< of the same family
    uint16_t source_port = 0; ///< of ICMP the identifier of an echo request
    uint16_t destination_port = 0;
    uint8_t protocol = 0;

    /// As a frame: of TCP a SYN, of UDP and SCTP nothing but the header. Checksums are left open: no program reads
    /// them.
    [[nodiscard]] std::vector<uint8_t> frame() const;
};

} // namespace thruway::cli
