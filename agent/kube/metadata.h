// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "agent/kube/json.h"
#include "agent/state/objects.h"

#include <cstdint>
#include <optional>
#include <string_view>

namespace thruway {

/// What metadata says, of any kind of object. Texts live as long as the document.
struct Metadata {
    std::string_view name;
    std::string_view space;
    int64_t created = 0;        ///< ms since 1970
    bool deleted = false;       ///< deletionTimestamp: it goes once all that hangs on it has gone
    int64_t triggered = 0;      ///< ms since 1970; annotation endpoints.kubernetes.io/last-change-trigger-time
    std::string_view service;   ///< label kubernetes.io/service-name
    bool foreign_proxy = false; ///< label service.kubernetes.io/service-proxy-name
    std::string_view zone;      ///< label topology.kubernetes.io/zone
    bool headless = false;      ///< label service.kubernetes.io/headless
    std::string_view version;   ///< resourceVersion; as opaque as the API says it is
    bool initial_end = false;   ///< annotation k8s.io/initial-events-end: a watch has told all that there was
};

Metadata read_metadata(Field &field);

/// The name of an object of this kind; of one in a namespace that does not say in which, it is "default". Nothing, and
/// a refusal, if it is none that could be a name.
std::optional<ObjectName> name_of(Kind kind, const Metadata &metadata, Faults &faults);

} // namespace thruway
