// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "agent/kube/json.h"
#include "agent/kube/metadata.h"
#include "agent/state/objects.h"

#include <optional>

namespace thruway {

/// An EndpointSlice (discovery.k8s.io/v1), all but its name. A bad endpoint is skipped; any other fault refuses the
/// slice. Nothing for slices that no proxy wants: those of headless Services, which are resolved by DNS alone, and
/// those that hold names instead of addresses (FQDN).
std::optional<EndpointSlice> read_endpoint_slice(Field &root, const Metadata &metadata);

} // namespace thruway
