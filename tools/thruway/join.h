// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "tools/thruway/names.h"
#include "tools/thruway/tables.h"

#include <cstdint>
#include <optional>
#include <string_view>
#include <unordered_map>
#include <vector>

namespace thruway::cli {

/// A backend of a service, with what an EndpointSlice says about it.
struct JoinedBackend {
    BackendEntry entry;
    const Endpoint *endpoint = nullptr; ///< null if no slice of the Service has it
    std::string_view pod;
};

/// One port of a Service in both families: its rows in the maps with what is known of them by name.
struct JoinedService {
    std::optional<PortName> name;        ///< none: something in the maps that no saved Service asks for
    const Service *service = nullptr;    ///< null likewise
    std::vector<uint32_t> ids;           ///< rows of `services`; empty: known by name only
    std::vector<Frontend> frontends;     ///< those in the maps
    std::vector<JoinedBackend> backends; ///< likewise: what gets traffic
    bool programmed = true;              ///< false: something that the Service asks for is not in the maps
};

/// Joins by name, in the order of the names; what has none comes last. The result points into `names`.
std::vector<JoinedService> join_services(const std::vector<ServiceEntry> &entries, const Names &names);

/// Names of services by their ids.
using ServiceNames = std::unordered_map<uint32_t, PortName>;
ServiceNames names_by_id(const std::vector<JoinedService> &services);

} // namespace thruway::cli
