// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "tests/fuzz/programs.h"

#include <array>
#include <cstdint>
#include <span>
#include <vector>

namespace thruway::fuzz {

/// Numbers of the pods 10.244.1.N that inputs may come from.
constexpr std::array<unsigned, 2> pods{2, 3};

/// Of the frames that the node's uplink is meant by. XDP looks at it.
constexpr std::array<uint8_t, 6> uplink_mac{0x02, 0, 0, 0, 0, 0x02};

/// One packet of an input.
struct Step {
    program hook;
    unsigned port;   ///< which pod, for hooks of pods: index into `pods`
    unsigned linear; ///< how much of the packet the program can reach at once
    std::span<const uint8_t> bytes;
};

/// An input is a row of packets, so that flows come to stand: a head of six bytes (hook, port, length, linear), then
/// the packet. What is missing at the end is not there.
std::vector<Step> steps_of(std::span<const uint8_t> input);
void append_step(std::vector<uint8_t> &input, program hook, unsigned port, const std::vector<uint8_t> &bytes);

} // namespace thruway::fuzz
