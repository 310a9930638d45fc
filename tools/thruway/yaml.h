// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "tools/thruway/listing.h"

#include <string>

namespace thruway::cli {

/// The value as a YAML document: the same data, types and order as its JSON.
std::string yaml_text(const Row &value);

} // namespace thruway::cli
