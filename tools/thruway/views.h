// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "tools/thruway/listing.h"
#include "tools/thruway/site.h"

#include <cstdint>
#include <functional>
#include <string>
#include <string_view>
#include <vector>

namespace thruway::cli {

/// A map entry by entry, its keys and values decoded into the fields of their layout.
struct MapView {
    uint64_t capacity = 0;           ///< rows and slots count, not the buckets and pairs that they come in
    std::vector<std::string> fields; ///< where an entry has what, as JSON pointers

    /// How many entries hold something.
    std::function<Result<uint64_t>()> count;

    /// Gives the entries to the sink in a fixed order: those that hold something, or `all` that an array has.
    std::function<Result<>(bool all, const Sink &sink)> each;
};

/// How to look into one of Maps::members; the site must outlive the view. Fails for a map whose entries cannot be
/// walked.
Result<MapView> view_of(const Site &site, std::string_view map);

} // namespace thruway::cli
