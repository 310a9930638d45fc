// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "agent/base/error.h"
#include "agent/state/objects.h"

#include <cstdint>
#include <functional>
#include <optional>
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

/// How it stands with the following of one kind of objects.
struct WatchStatus {
    std::string resource; ///< "services"
    std::string state;    ///< "listing", "watching", or "waiting" for the next try
    std::string server;   ///< that is asked
    std::string version;  ///< resource version up to which everything is known; empty: none yet
    std::string trouble;  ///< why it does not work; empty: it does
    std::string last_error;
    std::optional<double> last_error_age; ///< seconds, here and below
    std::optional<double> version_age;    ///< since the server has told it
    std::optional<double> event_age;      ///< since the last object that was told
    uint64_t objects = 0;
    uint64_t bytes = 0; ///< received
    uint64_t reconnects = 0;
};

/// Something that an object's owner should hear of, where Kubernetes has it: as an Event.
struct Event {
    ObjectKey regarding;
    bool warning = false;
    std::string reason; ///< one word, for machines
    std::string action; ///< what was done or tried: one word
    std::string note;   ///< for people
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

    /// Tells those who wrote the objects; a source that cannot does not.
    virtual void post(const Event & /*event*/) {}

    /// What it follows, for those who want to know; a source without watches has none.
    [[nodiscard]] virtual std::vector<WatchStatus> watches() const { return {}; }
};

} // namespace thruway
