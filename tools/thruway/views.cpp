// SPDX-License-Identifier: Apache-2.0
#include "tools/thruway/views.h"

#include "agent/observe/drops.h"
#include "agent/observe/snat.h"
#include "tools/thruway/flows.h"
#include "tools/thruway/tables.h"

#include <arpa/inet.h>
#include <array>
#include <tuple>

namespace thruway::cli {
namespace {

using Fields = std::vector<std::string>;

/// A view of what is counted from 0. `used(i)` says whether entry i holds something, `row(i)` decodes it.
template<typename Used, typename Decode>
MapView array_view(Fields fields, uint32_t size, const Used &used, const Decode &row)
{
    MapView view{.capacity = size, .fields = std::move(fields)};
    view.count = [size, used] {
        uint64_t count = 0;
        for (uint32_t i = 0; i < size; i++)
            count += used(i) ? 1 : 0;
        return Result<uint64_t>(count);
    };
    view.each = [size, used, row](bool all, const Sink &sink) {
        for (uint32_t i = 0; i < size; i++)
            if (all || used(i))
                sink(row(i));
        return Result<>();
    };
    return view;
}

/// A view of a hash or trie, sorted by key.
template<typename Key, typename Value, typename Decode>
MapView hash_view(Fields fields, const Map &map, const Decode &row)
{
    MapView view{.capacity = map.capacity(), .fields = std::move(fields)};
    view.count = [&map] { return Result<uint64_t>(map.count()); };
    view.each = [&map, row](bool, const Sink &sink) -> Result<> {
        auto entries = sorted_entries<Key, Value>(map);
        if (!entries)
            return std::unexpected(entries.error());
        for (const auto &[key, value] : *entries)
            sink(row(key, value));
        return {};
    };
    return view;
}

std::string text_of(const tw_address &address)
{
    return Address(address).text();
}

Row range_row(const tw_range &range)
{
    return {{"base", range.base}, {"count", range.count}};
}

Row flag_if(bool set, const char *name)
{
    return set ? Row::array({name}) : Row::array();
}

MapView layout_view(const Site &site)
{
    const auto &layout = site.arrays.layout;
    return array_view(
        {"/version", "/flow_seed", "/programs"}, layout.size(), [&](uint32_t i) { return layout[i].version != 0; },
        [&](uint32_t i) -> Row {
            const tw_layout row = layout[i];
            return {{"version", row.version},
                    {"flow_seed", row.flow_seed},
                    {"programs", fmt::format("{:02x}", fmt::join(row.programs, ""))}};
        });
}

std::string_view frontend_kind_name(uint32_t value)
{
    constexpr std::array<std::string_view, 4> names{"ClusterIP", "NodePort", "ExternalIP", "LoadBalancer"};
    const size_t kind = kind_of(value) / TW_FRONTEND_NODE_PORT;
    return kind < names.size() ? names.at(kind) : "?";
}

MapView frontends_view(const Site &site)
{
    return hash_view<tw_frontend, uint32_t>({"/address", "/port", "/protocol", "/service", "/kind"},
                                            site.maps.frontends, [](const tw_frontend &key, uint32_t value) -> Row {
                                                return {{"address", text_of(key.address)},
                                                        {"port", ntohs(key.port)},
                                                        {"protocol", transport_name(key.protocol)},
                                                        {"service", service_of(value)},
                                                        {"kind", frontend_kind_name(value)}};
                                            });
}

MapView vips_view(const Site &site)
{
    return hash_view<tw_address, uint32_t>(
        {"/address", "/kind"}, site.maps.vips, [](const tw_address &key, uint32_t kind) -> Row {
            return {{"address", text_of(key)}, {"kind", kind == TW_VIP_CLUSTER ? "ClusterIP" : "LoadBalancer"}};
        });
}

MapView source_ranges_view(const Site &site)
{
    return hash_view<tw_source_range, uint32_t>(
        {"/service", "/clients"}, site.maps.source_ranges, [](const tw_source_range &key, uint32_t) -> Row {
            const Prefix clients = Prefix::from_mapped(Address(key.address), key.bits - TW_SOURCE_RANGE_BITS);
            return {{"service", key.service}, {"clients", clients.text()}};
        });
}

MapView affinity_view(const Site &site)
{
    return hash_view<tw_client, tw_affinity>({"/service", "/client", "/backend", "/position", "/seconds"},
                                             site.maps.affinity,
                                             [](const tw_client &key, const tw_affinity &last) -> Row {
                                                 return {{"service", key.service},
                                                         {"client", text_of(key.address)},
                                                         {"backend", last.backend},
                                                         {"position", last.position},
                                                         {"seconds", last.seconds}};
                                             });
}

Row service_flags(uint32_t flags)
{
    Row names = Row::array();
    for (const auto &[flag, name] : {std::pair{TW_SERVICE_USED, "used"},
                                     {TW_SERVICE_INTERNAL_LOCAL, "internal-local"},
                                     {TW_SERVICE_EXTERNAL_LOCAL, "external-local"},
                                     {TW_SERVICE_FILTERED, "filtered"}})
        if (flags & flag)
            names.push_back(name);
    return names;
}

Result<MapView> services_view(const Site &site)
{
    auto in_use = services_in_use(site);
    if (!in_use)
        return std::unexpected(in_use.error());
    return array_view(
        {"/service", "/cluster/base", "/cluster/count", "/local/base", "/local/count", "/flags", "/affinity_seconds"},
        site.arrays.services.size(), [used = std::move(*in_use)](uint32_t i) { return used[i]; },
        [&site](uint32_t i) -> Row {
            const tw_service row = site.arrays.services[i];
            return {{"service", i},
                    {"cluster", range_row(row.cluster)},
                    {"local", range_row(row.local)},
                    {"flags", service_flags(row.flags)},
                    {"affinity_seconds", row.affinity_seconds}};
        });
}

Result<MapView> slots_view(const Site &site)
{
    auto services = services_in_use(site);
    if (!services)
        return std::unexpected(services.error());
    return array_view(
        {"/slot", "/backend"}, site.arrays.slots.size() * 2,
        [used = slots_in_use(site.arrays, *services)](uint32_t i) { return used[i]; },
        [&site](uint32_t i) -> Row { return {{"slot", i}, {"backend", site.arrays.slot(i)}}; });
}

MapView backends_view(const Site &site)
{
    const auto &backends = site.arrays.backends;
    return array_view(
        {"/backend", "/address", "/port", "/flags"}, backends.size(),
        [&](uint32_t i) { return (backends[i].flags & TW_BACKEND_SERVING) != 0; },
        [&](uint32_t i) -> Row {
            const tw_backend row = backends[i];
            return {{"backend", i},
                    {"address", text_of(row.address)},
                    {"port", ntohs(row.port)},
                    {"flags", flag_if(row.flags & TW_BACKEND_SERVING, "serving")}};
        });
}

MapView totals_view(const Site &site)
{
    const auto &totals = site.arrays.totals;
    return array_view(
        {"/service", "/connections", "/packets", "/bytes"}, totals.size(),
        [&](uint32_t i) { return (totals[i].connections | totals[i].packets | totals[i].bytes) != 0; },
        [&](uint32_t i) -> Row {
            const tw_totals row = totals[i];
            return {{"service", i}, {"connections", row.connections}, {"packets", row.packets}, {"bytes", row.bytes}};
        });
}

/// A hash from addresses to the numbers of something.
MapView address_hash_view(const Map &map, const std::string &number)
{
    return hash_view<tw_address, uint32_t>({"/address", "/" + number}, map,
                                           [number](const tw_address &address, uint32_t value) -> Row {
                                               return {{"address", text_of(address)}, {number, value}};
                                           });
}

MapView node_port_addresses_view(const Site &site)
{
    return hash_view<tw_address, uint32_t>(
        {"/address"}, site.maps.node_port_addresses,
        [](const tw_address &address, uint32_t) -> Row { return {{"address", text_of(address)}}; });
}

MapView service_cidrs_view(const Site &site)
{
    return hash_view<tw_cidr, uint32_t>({"/cidr"}, site.maps.service_cidrs, [](const tw_cidr &key, uint32_t) -> Row {
        return {{"cidr", prefix_of(key).text()}};
    });
}

/// Which rows of `addresses` something names.
std::vector<bool> addresses_in_use(const Site &site)
{
    std::vector<bool> used(site.arrays.addresses.size());
    const auto mark = [&](uint32_t index) {
        if (index != 0 && index < used.size())
            used[index] = true;
    };
    for (uint32_t i = 0; i < site.arrays.nexthops.size(); i++) {
        const tw_nexthop row = site.arrays.nexthops[i];
        for (const uint32_t index : {row.source[0], row.source[1], row.gateway})
            mark(index);
    }
    std::ignore =
        site.maps.node_addresses.each<tw_address, uint32_t>([&](const tw_address &, uint32_t index) { mark(index); });
    return used;
}

MapView addresses_view(const Site &site)
{
    return array_view(
        {"/index", "/address"}, site.arrays.addresses.size(),
        [used = addresses_in_use(site)](uint32_t i) { return used[i]; },
        [&site](uint32_t i) -> Row { return {{"index", i}, {"address", text_of(site.arrays.addresses[i])}}; });
}

MapView nodes_view(const Site &site)
{
    return hash_view<tw_cidr, uint32_t>({"/cidr", "/nexthop"}, site.maps.nodes, [](const tw_cidr &key, uint32_t index) {
        return Row{{"cidr", prefix_of(key).text()}, {"nexthop", index}};
    });
}

MapView gateways_view(const Site &site)
{
    return hash_view<tw_gateway, uint32_t>(
        {"/address", "/ifindex", "/nexthop"}, site.maps.gateways, [](const tw_gateway &key, uint32_t index) -> Row {
            return {{"address", text_of(key.address)}, {"ifindex", key.ifindex}, {"nexthop", index}};
        });
}

MapView ifindexes_view(const Site &site)
{
    return hash_view<uint32_t, uint32_t>(
        {"/ifindex", "/nexthop"}, site.maps.ifindexes,
        [](uint32_t ifindex, uint32_t index) -> Row { return {{"ifindex", ifindex}, {"nexthop", index}}; });
}

MapView nexthops_view(const Site &site)
{
    const auto &nexthops = site.arrays.nexthops;
    return array_view(
        {"/nexthop", "/link/ifindex", "/link/mtu", "/to/mac", "/to/flags", "/from/mac", "/source/ipv4", "/source/ipv6",
         "/gateway"},
        nexthops.size(), [&](uint32_t i) { return nexthops[i].link.ifindex != 0; },
        [&](uint32_t i) -> Row {
            const tw_nexthop row = nexthops[i];
            return {{"nexthop", i},
                    {"link", {{"ifindex", row.link.ifindex}, {"mtu", row.link.mtu}}},
                    {"to",
                     {{"mac", mac_text(std::to_array(row.to.mac))},
                      {"flags", flag_if(row.to.flags & TW_NEXTHOP_RESOLVED, "resolved")}}},
                    {"from", {{"mac", mac_text(std::to_array(row.from.mac))}}},
                    {"source", {{"ipv4", row.source[0]}, {"ipv6", row.source[1]}}},
                    {"gateway", row.gateway}};
        });
}

MapView generations_view(const Site &site)
{
    const auto &generations = site.arrays.generations;
    return array_view(
        {"/nexthop", "/generation"}, generations.size(), [&](uint32_t i) { return generations[i] != 0; },
        [&](uint32_t i) -> Row { return {{"nexthop", i}, {"generation", generations[i]}}; });
}

Row end_row(const std::string &address, uint16_t port)
{
    return {{"address", address}, {"port", ntohs(port)}};
}

std::string text_of(uint32_t ipv4)
{
    return Address::from_bytes(&ipv4, Family::ipv4).text();
}

/// The row as it stands at this moment, whatever a program is doing to it.
template<typename Raw>
Row raw_flow_row(uint32_t place, const Raw &row)
{
    const tw_flow &head = row.head;
    Row fins = Row::array();
    if (head.word & TW_FLOW_FIN_ORIGINAL)
        fins.push_back("original");
    if (head.word & TW_FLOW_FIN_REPLY)
        fins.push_back("reply");
    return {{"place", place},
            {"state", flow_state_name(static_cast<tw_flow_state>(head.word & TW_FLOW_STATE))},
            {"fins", fins},
            {"version", (head.word & TW_FLOW_VERSION) / TW_FLOW_VERSION_STEP},
            {"pair", head.pair},
            {"next", head.next},
            {"back", head.back},
            {"judged", head.judged},
            {"service", head.service},
            {"protocol", transport_name(head.protocol)},
            {"flags", flow_flags(head.flags)},
            {"source", end_row(text_of(row.source), head.source_port)},
            {"destination", end_row(text_of(row.destination), head.destination_port)},
            {"new_source", end_row(text_of(row.new_source), head.new_source_port)},
            {"new_destination", end_row(text_of(row.new_destination), head.new_destination_port)},
            {"last_seen", head.last_seen},
            {"packets", head.bytes >> TW_FLOW_BYTES_BITS << 32 | head.packets},
            {"bytes", head.bytes & TW_FLOW_BYTES}};
}

template<typename Bucket>
MapView flows_view(const MappedArray<Bucket> &buckets)
{
    const auto row = [&](uint32_t place) -> const auto & {
        return buckets[place / TW_FLOW_WAYS].row[place % TW_FLOW_WAYS];
    };
    return array_view(
        {"/place",
         "/state",
         "/fins",
         "/version",
         "/pair",
         "/next",
         "/back",
         "/judged",
         "/service",
         "/protocol",
         "/flags",
         "/source/address",
         "/source/port",
         "/destination/address",
         "/destination/port",
         "/new_source/address",
         "/new_source/port",
         "/new_destination/address",
         "/new_destination/port",
         "/last_seen",
         "/packets",
         "/bytes"},
        buckets.size() * TW_FLOW_WAYS,
        [row](uint32_t place) { return (row(place).head.word & TW_FLOW_STATE) != TW_FLOW_FREE; },
        [row](uint32_t place) { return raw_flow_row(place, row(place)); });
}

MapView fragments_view(const Site &site)
{
    return array_view(
        {"/fragment", "/source", "/destination", "/protocol", "/identification", "/last_seen"}, TW_FRAGMENTS,
        [&site](uint32_t i) { return site.arrays.fragments[i].word != 0; },
        [&site](uint32_t i) -> Row {
            const tw_fragment row = site.arrays.fragments[i];
            return {{"fragment", i},
                    {"source", endpoint_text(Address(row.source), ntohs(row.source_port))},
                    {"destination", endpoint_text(Address(row.destination), ntohs(row.destination_port))},
                    {"protocol", transport_name(row.protocol)},
                    {"identification", row.identification},
                    {"last_seen", row.seen}};
        });
}

/// What gc was last told to end.
MapView purges_view(const Site &site)
{
    return array_view(
        {"/service", "/backend", "/protocol"}, TW_PURGES,
        [&site](uint32_t i) { return site.arrays.purges[i].service != 0; },
        [&site](uint32_t i) -> Row {
            const tw_purge row = site.arrays.purges[i];
            return {{"service", row.service},
                    {"backend", endpoint_text(Address(row.address), ntohs(row.port))},
                    {"protocol", transport_name(row.protocol)}};
        });
}

/// Counters of a reason at a hook, over all CPUs.
Result<MapView> drops_view(const Site &site)
{
    auto drops = read_drops(site.maps);
    if (!drops)
        return std::unexpected(drops.error());
    std::vector<tw_count> counts(size_t{TW_DROPS} * TW_HOOKS);
    for (const DropCount &drop : *drops)
        counts[size_t{drop.reason} * TW_HOOKS + drop.hook] = {drop.packets, drop.bytes};
    return array_view(
        {"/reason", "/direction", "/packets", "/bytes"}, TW_DROPS * uint32_t{TW_HOOKS},
        [counts](uint32_t i) { return counts[i].packets != 0; },
        [counts](uint32_t i) -> Row {
            return {{"reason", drop_name(static_cast<tw_drop>(i / TW_HOOKS))},
                    {"direction", hook_name(static_cast<tw_hook>(i % TW_HOOKS))},
                    {"packets", counts[i].packets},
                    {"bytes", counts[i].bytes}};
        });
}

/// Counts by what happened, over all CPUs.
Result<MapView> flow_events_view(const Site &site)
{
    auto events = read_flow_events(site.maps);
    if (!events)
        return std::unexpected(events.error());
    return array_view(
        {"/event", "/count"}, TW_FLOW_EVENT_COUNT, [counts = *events](uint32_t i) { return counts[i] != 0; },
        [counts = *events](uint32_t i) -> Row {
            return {{"event", flow_event_name(static_cast<tw_flow_event>(i))}, {"count", counts[i]}};
        });
}

Result<MapView> snat_view(const Site &site)
{
    auto snat = read_snat(site.maps);
    if (!snat)
        return std::unexpected(snat.error());
    return array_view(
        {"/ports", "/collisions", "/exhausted"}, 1, [](uint32_t) { return true; },
        [snat = *snat](uint32_t) -> Row {
            return {{"ports", snat.ports}, {"collisions", snat.collisions}, {"exhausted", snat.exhausted}};
        });
}

Result<MapView> sockets_view(const Site &)
{
    return fail("map sockets cannot be walked: its entries live in the sockets that they are about");
}

struct Viewer {
    std::string_view map;
    std::function<Result<MapView>(const Site &)> view;
};

/// How to look into each map.
const auto &viewers()
{
    static const auto all = std::to_array<Viewer>({
        {"layout", layout_view},
        {"frontends", frontends_view},
        {"vips", vips_view},
        {"source_ranges", source_ranges_view},
        {"affinity", affinity_view},
        {"service_cidrs", service_cidrs_view},
        {"services", services_view},
        {"slots", slots_view},
        {"backends", backends_view},
        {"totals", totals_view},
        {"sockets", sockets_view},
        {"endpoints", [](const Site &site) { return address_hash_view(site.maps.endpoints, "endpoint"); }},
        {"node_addresses", [](const Site &site) { return address_hash_view(site.maps.node_addresses, "index"); }},
        {"node_port_addresses", node_port_addresses_view},
        {"addresses", addresses_view},
        {"nodes", nodes_view},
        {"gateways", gateways_view},
        {"ifindexes", ifindexes_view},
        {"nexthops", nexthops_view},
        {"generations", generations_view},
        {"flows4", [](const Site &site) { return flows_view(site.arrays.flows4); }},
        {"flows6", [](const Site &site) { return flows_view(site.arrays.flows6); }},
        {"purges", purges_view},
        {"flow_events", flow_events_view},
        {"fragments", fragments_view},
        {"drops", drops_view},
        {"snat", snat_view},
    });
    static_assert(std::tuple_size_v<std::remove_cvref_t<decltype(all)>> == std::tuple_size_v<decltype(Maps::members)>,
                  "each map needs a view");
    return all;
}

} // namespace

Result<MapView> view_of(const Site &site, std::string_view map)
{
    return std::ranges::find(viewers(), map, &Viewer::map)->view(site);
}

} // namespace thruway::cli
