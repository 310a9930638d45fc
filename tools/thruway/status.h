// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "agent/datapath/flows.h"
#include "tools/thruway/listing.h"
#include "tools/thruway/site.h"

#include <string>
#include <vector>

namespace thruway::cli {

/// Where a program is attached, as its pin says.
struct Attachment {
    std::string program;
    uint32_t ifindex = 0;  ///< 0: to the node's cgroup
    std::string interface; ///< empty if there is none of this number
    bool clsact = false;   ///< by a clsact filter, for want of tcx links
};

/// How full a map is.
struct Fill {
    std::string map;
    uint64_t entries = 0;
    uint64_t capacity = 0;
};

/// What `status` is made of.
struct Status {
    Row agent = Row::object(); ///< {running, version, pid, ...}: what the agent itself answers
    std::string silence;       ///< why it does not answer
    bool names_saved = false;
    uint32_t layout_version = 0;
    std::vector<Attachment> attachments;
    std::vector<Fill> fill;
    std::array<FlowCensus, 2> flow_rows; ///< by family
    std::array<uint64_t, 2> flows{};     ///< pairs of rows
    uint64_t previous_rows = 0;          ///< left in the previous flow table
    bool table_changes = false;          ///< there is one
    FlowEvents events{};                 ///< since the tables were made
    FlowEvents news{};                   ///< while status was looking
    uint64_t endpoints = 0;
    uint64_t dropped_packets = 0;
    uint64_t dropped_bytes = 0;
    tw_snat snat{};
};

/// Lines about what a person should look after.
std::vector<std::string> attention(const Status &status);

/// The one row of `status`.
Row status_row(const Status &status);

/// `status`
Listing status_report(const Site &site);

} // namespace thruway::cli
