// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "agent/base/error.h"

#include <cstdint>

namespace thruway {

/// The length of a jiffy in nanoseconds.
uint32_t jiffy();

/// The nanoseconds to add to jiffies * jiffy() for CLOCK_MONOTONIC, modulo 2^64, to within a jiffy. The two keep their
/// distance: the kernel counts jiffies, also those that passed without an interrupt, by CLOCK_MONOTONIC
/// (tick_do_update_jiffies64 in kernel/time/tick-sched.c). Fails if programs may not be loaded.
Result<uint64_t> monotonic_less_jiffies();

/// CLOCK_MONOTONIC in ticks of tw_clock (include/thruway/flow.h), which count on here beyond 16 bits.
uint32_t tick_now();

/// A time in ticks, rounded up.
uint32_t ticks(uint32_t seconds);

} // namespace thruway
