// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "agent/state/objects.h"

#include <cstdint>

namespace thruway {

/// A hash over every field of an object, to see whether a new version differs without keeping the old one. Versions
/// that differ in one word never have the same; others by a chance of 1 in 2^64. Holds within this process only.
uint64_t fingerprint_of(const Object &object);

} // namespace thruway
