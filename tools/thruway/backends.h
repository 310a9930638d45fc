// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "tools/thruway/join.h"
#include "tools/thruway/listing.h"

#include <optional>
#include <vector>

namespace thruway::cli {

/// Gives a row for each backend in use to the sink, with the services that use it. With `only`, those of one Service.
void backend_rows(std::vector<BackendEntry> backends, const std::vector<JoinedService> &services,
                  const std::optional<ObjectName> &only, const Sink &sink);

/// `backend list`
Listing backend_list(const Site &site, const std::optional<ObjectName> &service);

} // namespace thruway::cli
