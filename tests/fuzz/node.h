// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "tests/fuzz/input.h"

#include <string>
#include <vector>

namespace thruway::fuzz {

/// One service of the node: written as in tests/datapath/world.h.
struct ServiceText {
    const char *name;
    std::vector<std::string> frontends;
    std::vector<std::string> backends; ///< one at most, so that the choice is no matter of chance
    uint8_t protocol;
};

/// The services that inputs may talk to, here and where they are replayed in the kernel.
const std::vector<ServiceText> &services();

/// A map of the programs.
const shim_map &map(const char *name);

/// No flow lies in a bucket behind so many.
constexpr uint32_t flow_buckets_max = 32;

/// The node of tests/datapath/world.h, put straight into the maps of the programs that are compiled for userspace.
void node_setup();

/// No flows, no counters: as after node_setup().
void node_reset();

/// Interface that the packet of this step comes in or goes out by, in the node of node_setup().
uint32_t ifindex_of(const Step &step);

} // namespace thruway::fuzz
