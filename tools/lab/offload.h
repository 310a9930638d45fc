// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "agent/base/error.h"

#include <cstdint>
#include <map>
#include <string>

/// What an interface does for the kernel, and what it counts (ethtool(8)). All of it in the calling thread's network
/// namespace.
namespace thruway::lab {

enum class Offload : uint8_t {
    checksum, ///< the device completes the checksums of what is sent (ethtool -K DEVICE tx)
    gro,      ///< what is received is joined (ethtool -K DEVICE gro); a veth then polls, and takes what XDP redirects
};

Result<> set_offload(const std::string &device, Offload offload, bool on);

/// The driver's own counters, by name (ethtool -S DEVICE).
Result<std::map<std::string, uint64_t>> driver_counters(const std::string &device);

} // namespace thruway::lab
