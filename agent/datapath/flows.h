// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "agent/base/address.h"
#include "agent/datapath/layout.h"

#include <array>
#include <functional>
#include <optional>
#include <vector>

namespace thruway {

/// One direction of a conversation.
struct Tuple {
    Address source;
    Address destination;
    uint16_t source_port = 0;
    uint16_t destination_port = 0;
};

/// One row of the flow table, as it was at one moment.
struct FlowRow {
    Tuple match;
    Tuple rewrite;
    uint8_t protocol = 0;
    tw_flow_state state = TW_FLOW_FREE;
    uint8_t flags = 0; ///< enum tw_flow_flag
    uint32_t pair = 0;
    uint32_t next = 0;
    uint32_t back = 0;
    uint32_t service = 0;
    uint64_t packets = 0;
    uint64_t bytes = 0;
    uint32_t idle_seconds = 0;
};

/// Both directions of a flow.
struct Flow {
    FlowRow original;
    FlowRow reply;
};

/// What the programs take for now: ticks of tw_clock.
uint16_t flow_clock();

/// "half_open", "established", ... as users see it.
std::string_view flow_state_name(tw_flow_state state);

/// Calls `visit` for each flow of which both rows stand. Reads the memory that the programs write: no lock, no system
/// call; a row that changes while it is read is read again.
void each_flow(const Arrays &arrays, const std::function<void(const Flow &)> &visit);

/// Packets and bytes of live flows by service id; `services` is the number of ids. `previous` is null, or the table
/// that the flow table was before (which an agent that runs may let go of at any time: so it is not asked of `arrays`).
std::vector<tw_totals> live_totals(const Arrays &arrays, const FlowArrays *previous, uint32_t services);

/// What is in the table of one family.
struct FlowCensus {
    std::array<uint32_t, 8> rows{}; ///< in use, by enum tw_flow_state
    uint32_t spilled = 0;           ///< of them, in the spill area

    [[nodiscard]] uint32_t total() const;
};

/// Counts a table, by family.
struct FlowTable {
    const MappedArray<tw_bucket4> *v4;
    const MappedArray<tw_bucket6> *v6;
};
std::array<FlowCensus, 2> flow_census(const FlowTable &table);

/// "spilled", "evicted_half_open", ... as users see it, and what it means.
std::string_view flow_event_name(tw_flow_event event);
std::string_view flow_event_meaning(tw_flow_event event);

/// How often each event happened since the tables were made, over all CPUs.
using FlowEvents = std::array<uint64_t, TW_FLOW_EVENT_COUNT>;
Result<FlowEvents> read_flow_events(const Maps &maps);

} // namespace thruway
