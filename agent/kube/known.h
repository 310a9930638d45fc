// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "agent/kube/decode.h"
#include "agent/state/objects.h"

#include <cstdint>
#include <string>
#include <unordered_map>
#include <vector>

namespace thruway {

/// What follows from a piece of an answer.
struct Learned {
    std::vector<Change> changes;
    std::vector<std::string> refused; ///< what was not refused before
};

/// The objects of one kind that the API server is known to have, as names and fingerprints. Turns what it tells, which
/// may be told twice or not at all, into what changes.
class Known {
public:
    /// The object is now like this. One that is refused stays as it was.
    void upsert(Decoded decoded, Learned &learned);

    void remove(const ObjectKey &key, Learned &learned);

    /// From here on everything is told anew...
    void begin_list() { round_++; }

    /// ...and has been told: what was left out is gone, although nobody told of its going.
    void end_list(Kind kind, Learned &learned);

    [[nodiscard]] size_t size() const { return entries_.size(); }

private:
    struct Entry {
        uint64_t fingerprint = 0; ///< of what was told
        uint64_t faults = 0;      ///< of the refusals that were told; 0: none
        uint32_t round = 0;       ///< in which it was heard of last
        bool told = false;        ///< false: it was refused from the start
    };

    std::unordered_map<ObjectName, Entry> entries_;
    uint32_t round_ = 0;
};

} // namespace thruway
