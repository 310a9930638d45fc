// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "agent/base/address.h"
#include "agent/datapath/layout.h"

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

/// "half_open", "established", ... as users see it.
std::string_view flow_state_name(tw_flow_state state);

/// Calls `visit` for each flow of which both rows stand. Reads the memory that the programs write: no lock, no system
/// call; a row that changes while it is read is read again.
void each_flow(const Arrays &arrays, const std::function<void(const Flow &)> &visit);

/// Packets and bytes of live flows by service id; `services` is the number of ids.
std::vector<tw_totals> live_totals(const Arrays &arrays, uint32_t services);

/// Rows in use, by family.
struct FlowFill {
    uint32_t rows4 = 0;
    uint32_t rows6 = 0;
};
FlowFill flow_fill(const Arrays &arrays);

} // namespace thruway
