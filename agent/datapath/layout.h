// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "agent/base/address.h"
#include "agent/datapath/map.h"
#include "agent/planner/plan.h"

#include <array>
#include <memory>
#include <string_view>
#include <thruway/drop.h>
#include <thruway/flow.h>
#include <thruway/fragment.h>
#include <thruway/limits.h>
#include <thruway/nexthop.h>
#include <thruway/service.h>
#include <thruway/snat.h>

namespace thruway {

/// How many entries the maps have. Times the sizes in bpf/lib/maps.h this is the datapath's memory.
struct Sizes {
    uint32_t services = 65'536;
    uint32_t frontends = 131'072;
    uint32_t backends = 131'072;
    uint32_t slots = 524'288;
    uint32_t endpoints = 1'024;
    uint32_t nexthops = 16'384; ///< endpoints included
    uint32_t nodes = 16'384;
    uint32_t node_addresses = 1'024;
    uint32_t flows = 262'144; ///< rows a family; a power of two, two rows make a flow
};

/// Entries of `flows4` and `flows6` for so many rows: their buckets, and a quarter more for the spill area.
constexpr uint32_t flow_buckets(uint32_t rows)
{
    return rows / TW_FLOW_WAYS / 4 * 5;
}

/// All maps that other processes may open, by their names under the bpffs folder.
struct Maps {
    Map layout;
    Map frontends;
    Map vips;
    Map source_ranges;
    Map affinity;
    Map service_cidrs;
    Map services;
    Map slots;
    Map backends;
    Map totals;
    Map sockets;
    Map endpoints;
    Map node_addresses;
    Map node_port_addresses;
    Map addresses;
    Map nodes;
    Map gateways;
    Map ifindexes;
    Map nexthops;
    Map generations;
    Map flows4;
    Map flows6;
    Map purges;
    Map flow_events;
    Map fragments;
    Map drops;
    Map snat;

    struct Member {
        std::string_view name;
        Map Maps::*map;
    };
    static const std::array<Member, 27> members;

    /// The flow table before, while its size or layout changes (see flow_tables.h); otherwise not there.
    Map previous4;
    Map previous6;
    [[nodiscard]] bool changing() const { return previous4.fd() >= 0; }

    /// Opens what an agent has pinned in `folder`.
    static Result<Maps> open(const std::string &folder);
};

/// A flow table: both families.
struct FlowArrays {
    MappedArray<tw_bucket4> v4;
    MappedArray<tw_bucket6> v6;
};

/// The array maps, as memory.
struct Arrays {
    MappedArray<tw_layout> layout;
    MappedArray<tw_service> services;
    MappedArray<tw_slots> slots;
    MappedArray<tw_backend> backends;
    MappedArray<tw_totals> totals;
    MappedArray<tw_address> addresses;
    MappedArray<tw_nexthop> nexthops;
    MappedArray<uint32_t> generations;
    MappedArray<tw_bucket4> flows4;
    MappedArray<tw_bucket6> flows6;
    MappedArray<tw_fragment> fragments;
    MappedArray<tw_purge> purges;
    std::shared_ptr<const FlowArrays> previous; ///< while the flow table changes its size or layout

    static Result<Arrays> of(const Maps &maps, bool writable);

    /// Slot `at` of the table that ranges count in.
    uint32_t &slot(uint32_t at) { return slots[at / 2].backend[at % 2]; }
    [[nodiscard]] uint32_t slot(uint32_t at) const { return slots[at / 2].backend[at % 2]; }
};

/// Key of `nodes` and of `service_cidrs`.
tw_cidr raw_of(const Prefix &prefix);
Prefix prefix_of(const tw_cidr &raw);

std::string_view drop_name(tw_drop reason);
std::string_view drop_meaning(tw_drop reason);
std::string_view hook_name(tw_hook hook);

} // namespace thruway
