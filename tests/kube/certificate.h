// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <string>

namespace thruway::testing {

/// A certificate that signs itself, and so is its own authority; good for 127.0.0.1 and `name`. PEM.
struct Certificate {
    std::string text;
    std::string key;

    static Certificate make(const std::string &name);
};

} // namespace thruway::testing
