// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <ostream>

namespace thruway::cli {

/// Exit codes, as the contract has them.
enum Exit : int { good = 0, failed = 1, wrong_usage = 2 };

/// The whole program: does what the arguments say, writes what it finds to `out` and one line for what goes wrong to
/// `err`.
int run(int argc, const char *const *argv, std::ostream &out, std::ostream &err);

} // namespace thruway::cli
