// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "agent/datapath/layout.h"
#include "agent/datapath/programs.h"

#include <deque>

namespace thruway {

/// Walks the flow tables with program `gc` (bpf/gc.bpf.c), slice by slice, again and again.
class Gc {
public:
    Gc(const Datapath &datapath, Arrays &arrays) : datapath_(&datapath), arrays_(&arrays) {}

    /// Flows like this are to end, soon.
    void purge(const tw_purge &purge) { wanted_.push_back(purge); }

    /// Walks the next slice; if the table is changing and `moves`, flows move from the previous into the current one.
    /// True if that ended a walk through all of the tables.
    Result<bool> step(bool moves);

    /// Somebody waits for the end of this walk.
    [[nodiscard]] bool hurries() const { return purges_ > 0 || !wanted_.empty(); }

    /// Rows that the last complete walk has found in the previous table.
    [[nodiscard]] uint32_t left() const { return left_; }

private:
    void begin();
    [[nodiscard]] uint32_t buckets() const;

    const Datapath *datapath_;
    Arrays *arrays_;
    std::deque<tw_purge> wanted_;
    uint32_t purges_ = 0; // of the walk under way
    uint32_t table_ = 0;  // current IPv4, IPv6, previous IPv4, IPv6
    uint32_t bucket_ = 0;
    uint32_t counted_ = 0; // rows of the previous table, by the walk under way
    uint32_t left_ = 0;
};

} // namespace thruway
