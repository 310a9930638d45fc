// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <optional>
#include <span>
#include <string>

namespace thruway::fuzz {

/// Whether the checksums of a frame are right, the slow and obvious way. None if the frame is nothing whose checksums
/// can be told.
struct Sums {
    bool header;    ///< of IPv4
    bool transport; ///< also true for UDP that has none
};
std::optional<Sums> sums_of(std::span<const uint8_t> frame);

/// Sets all lengths and checksums that the frame's headers speak of.
void repair(std::span<uint8_t> frame);

/// Runs an input through the programs. Returns what is wrong with what they did, or nothing.
std::string judge(std::span<const uint8_t> input);

} // namespace thruway::fuzz
