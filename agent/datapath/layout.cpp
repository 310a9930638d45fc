// SPDX-License-Identifier: Apache-2.0
#include "agent/datapath/layout.h"

namespace thruway {

const std::array<Maps::Member, 27> Maps::members{{
    {"layout", &Maps::layout},
    {"frontends", &Maps::frontends},
    {"vips", &Maps::vips},
    {"services", &Maps::services},
    {"slots", &Maps::slots},
    {"backends", &Maps::backends},
    {"totals", &Maps::totals},
    {"sockets", &Maps::sockets},
    {"endpoints", &Maps::endpoints},
    {"node_addresses", &Maps::node_addresses},
    {"addresses", &Maps::addresses},
    {"nodes", &Maps::nodes},
    {"gateways", &Maps::gateways},
    {"ifindexes", &Maps::ifindexes},
    {"nexthops", &Maps::nexthops},
    {"generations", &Maps::generations},
    {"flows4", &Maps::flows4},
    {"flows6", &Maps::flows6},
    {"purges", &Maps::purges},
    {"flow_events", &Maps::flow_events},
    {"fragments", &Maps::fragments},
    {"drops", &Maps::drops},
    {"snat", &Maps::snat},
    {"source_ranges", &Maps::source_ranges},
    {"affinity", &Maps::affinity},
    {"node_port_addresses", &Maps::node_port_addresses},
    {"service_cidrs", &Maps::service_cidrs},
}};

Result<Maps> Maps::open(const std::string &folder)
{
    Maps maps;
    for (const Member &member : members) {
        auto map = Map::open(fmt::format("{}/{}", folder, member.name), std::string(member.name));
        if (!map)
            return std::unexpected(map.error());
        maps.*member.map = std::move(*map);
    }
    auto previous4 = Map::open(folder + "/previous4", "previous4");
    auto previous6 = Map::open(folder + "/previous6", "previous6");
    if (previous4 && previous6) {
        maps.previous4 = std::move(*previous4);
        maps.previous6 = std::move(*previous6);
    }
    return maps;
}

namespace {

template<typename Row>
Result<> map_array(MappedArray<Row> &array, const Map &map, bool writable)
{
    auto mapped = MappedArray<Row>::of(map, writable);
    if (!mapped)
        return std::unexpected(mapped.error());
    array = std::move(*mapped);
    return {};
}

} // namespace

Result<Arrays> Arrays::of(const Maps &maps, bool writable)
{
    Arrays arrays;
    const auto all = {
        map_array(arrays.layout, maps.layout, writable),
        map_array(arrays.services, maps.services, writable),
        map_array(arrays.slots, maps.slots, writable),
        map_array(arrays.backends, maps.backends, writable),
        map_array(arrays.totals, maps.totals, writable),
        map_array(arrays.addresses, maps.addresses, writable),
        map_array(arrays.nexthops, maps.nexthops, writable),
        map_array(arrays.generations, maps.generations, writable),
        map_array(arrays.flows4, maps.flows4, writable),
        map_array(arrays.flows6, maps.flows6, writable),
        map_array(arrays.fragments, maps.fragments, writable),
        map_array(arrays.purges, maps.purges, writable),
    };
    for (const auto &result : all)
        if (!result)
            return std::unexpected(result.error());
    if (maps.changing()) {
        auto previous = std::make_shared<FlowArrays>();
        for (const auto &result :
             {map_array(previous->v4, maps.previous4, false), map_array(previous->v6, maps.previous6, false)})
            if (!result)
                return std::unexpected(result.error());
        arrays.previous = std::move(previous);
    }
    return arrays;
}

tw_cidr raw_of(const Prefix &prefix)
{
    tw_cidr raw{.bits = prefix.mapped_length(), .word = {}};
    std::ranges::copy(prefix.address().raw().word, raw.word);
    return raw;
}

Prefix prefix_of(const tw_cidr &raw)
{
    tw_address address{};
    std::ranges::copy(raw.word, address.word);
    return Prefix::from_mapped(Address(address), raw.bits);
}

std::string_view drop_name(tw_drop reason)
{
    switch (reason) {
#define X(id, name, meaning)                                                                                           \
    case TW_DROP_##id:                                                                                                 \
        return name;
        TW_DROP_REASONS(X)
#undef X
    default:
        return "none";
    }
}

std::string_view drop_meaning(tw_drop reason)
{
    switch (reason) {
#define X(id, name, meaning)                                                                                           \
    case TW_DROP_##id:                                                                                                 \
        return meaning;
        TW_DROP_REASONS(X)
#undef X
    default:
        return "not dropped";
    }
}

std::string_view hook_name(tw_hook hook)
{
    switch (hook) {
#define X(id, name)                                                                                                    \
    case TW_HOOK_##id:                                                                                                 \
        return name;
        TW_HOOKS_LIST(X)
#undef X
    default:
        return "unknown";
    }
}

} // namespace thruway
