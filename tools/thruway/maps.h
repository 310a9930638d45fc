// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "tools/thruway/listing.h"
#include "tools/thruway/site.h"

#include <string>

namespace thruway::cli {

/// `map list`
Listing map_list(const Site &site);

/// `map dump`: what one of Maps::members holds, in the fields of its layout; of an array `all` rows, or those in use.
Result<Listing> map_dump(const Site &site, const std::string &map, bool all);

} // namespace thruway::cli
