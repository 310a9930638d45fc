// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "agent/base/error.h"
#include "agent/state/objects.h"

#include <functional>
#include <string>
#include <vector>

namespace thruway {

/// What a source tells. All calls come from the agent's loop.
struct SourceEvents {
    /// Changes that were learned together and should be applied together. A source never repeats what it said: an
    /// upsert means that the object differs from the last one told.
    std::function<void(std::vector<Change> changes)> changes;

    /// Everything that exists at start has been told. Called once, after the first `changes`.
    std::function<void()> synced;

    /// Some input was refused and skipped: one line that names object, field and reason. Called once a fault, not once
    /// a reading.
    std::function<void(std::string line)> refused;
};

/// Where the objects come from: a folder of manifests, or an API server.
class Source {
public:
    Source() = default;
    Source(const Source &) = delete;
    Source &operator=(const Source &) = delete;
    virtual ~Source() = default;

    /// Begins to tell. Fails only for what a person has to mend; what may heal by itself is waited for.
    virtual Result<> start() = 0;
};

} // namespace thruway
