// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "tools/bench/report.h"

namespace thruway::bench {

/// What packets cost in the loaded programs, above an empty program: established and new flows, by how many flows there
/// are and how full the table is, beside lookups of the same keys in the kernel's own hash maps.
///
/// A test run repeats over one packet. Here it repeats a driver (packet_path.bpf.c) that makes the packet the next one
/// of a list, in random order, and goes on in the program by a tail call: so the program is the one that agents load,
/// and finds its flows as cold as that many flows are. The list is read in order, which the CPU foresees.
///
/// Has to run in a network and mount namespace of its own.
Result<> measure_packet_path(Report &report);

} // namespace thruway::bench
