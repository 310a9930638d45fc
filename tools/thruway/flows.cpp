// SPDX-License-Identifier: Apache-2.0
#include "tools/thruway/flows.h"

#include "tools/thruway/services.h"

#include <netinet/in.h>

namespace thruway::cli {
namespace {

/// Both tuples as the original direction has them: what was dialled, and what became of it.
bool any_end(const Flow &flow, const auto &is)
{
    for (const Tuple *tuple : {&flow.original.match, &flow.original.rewrite})
        if (is(tuple->source, tuple->source_port) || is(tuple->destination, tuple->destination_port))
            return true;
    return false;
}

bool is_icmp(uint8_t protocol)
{
    return protocol == IPPROTO_ICMP || protocol == IPPROTO_ICMPV6;
}

uint8_t protocol_number(const std::string &name)
{
    if (name == "tcp")
        return IPPROTO_TCP;
    return name == "udp" ? IPPROTO_UDP : IPPROTO_SCTP;
}

void set_name(Row &row, const char *kind, const ObjectName &name)
{
    row["kind"] = kind;
    set_text(row, "namespace", name.space.text());
    row["name"] = name.name;
}

void set_ends(Row &row, const Tuple &tuple, uint8_t protocol, const Names &names)
{
    row["source"] = end_row(tuple.source, tuple.source_port, protocol, names);
    row["destination"] = end_row(tuple.destination, tuple.destination_port, protocol, names);
}

/// A column for one end of the flow, or of what it is translated to.
Column end_column(std::string header, const std::string &pointer, bool named)
{
    return {std::move(header), [at = Row::json_pointer(pointer), named](const Row &row) {
                return row.contains(at) ? end_text(row[at], named) : "";
            }};
}

std::string service_text(const Row &row)
{
    return row.contains("service") ? port_text(row["service"]) : "";
}

Result<> produce(const Site &site, const FlowFilter &filter, const Sink &sink)
{
    const Names names = Names::read(site.run_dir);
    if (filter.service)
        if (auto known = names.expect_service(*filter.service); !known)
            return known;
    auto entries = read_services(site);
    if (!entries)
        return std::unexpected(entries.error());
    const ServiceNames services = names_by_id(join_services(*entries, names));
    const auto of_service = [&](uint32_t id) {
        const auto found = services.find(id);
        return found != services.end() && found->second.service == *filter.service;
    };
    uint64_t left = filter.limit.value_or(UINT64_MAX);
    each_flow(site.arrays, [&](const Flow &flow) {
        if (left == 0 || !matches(filter, flow) || (filter.service && !of_service(flow.original.service)))
            return;
        sink(flow_row(flow, names, services));
        left--;
    });
    return {};
}

} // namespace

Row end_row(const Address &address, uint16_t port, uint8_t protocol, const Names &names)
{
    Row row{{"address", address.text()}};
    if (port != 0) // an ICMP identifier stands on the side that asks
        row["port"] = port;
    if (const ServiceKey *service = names.service_at({address, port, static_cast<Protocol>(protocol)}))
        set_name(row, "service", service->service);
    else if (const Owner *owner = names.owner(address))
        set_name(row, owner->is_node ? "node" : "pod", owner->name);
    return row;
}

std::string end_text(const Row &end, bool named)
{
    const std::string address = end["address"];
    std::string text = address.contains(':') ? "[" + address + "]" : address;
    if (named && end.contains("name"))
        text = end.contains("namespace") ? end["namespace"].get<std::string>() + "/" + end["name"].get<std::string>()
                                         : end["name"].get<std::string>();
    return end.contains("port") ? fmt::format("{}:{}", text, end["port"].get<uint16_t>()) : text;
}

std::string transport_name(uint8_t protocol)
{
    switch (protocol) {
    case IPPROTO_TCP:
        return "TCP";
    case IPPROTO_UDP:
        return "UDP";
    case IPPROTO_SCTP:
        return "SCTP";
    case IPPROTO_ICMP:
        return "ICMP";
    case IPPROTO_ICMPV6:
        return "ICMPv6";
    default:
        return fmt::format("{}", protocol);
    }
}

Row flow_flags(uint8_t flags)
{
    Row names = Row::array();
    for (const auto &[flag, name] :
         {std::pair{TW_FLOW_REPLY, "reply"}, {TW_FLOW_TRANSLATED, "translated"}, {TW_FLOW_SNAT, "snat"}})
        if (flags & flag)
            names.push_back(name);
    return names;
}

bool matches(const FlowFilter &filter, const Flow &flow)
{
    const uint8_t protocol = flow.original.protocol;
    if (filter.protocol &&
        !(*filter.protocol == "icmp" ? is_icmp(protocol) : protocol == protocol_number(*filter.protocol)))
        return false;
    if (filter.address && !any_end(flow, [&](const Address &a, uint16_t) { return a == *filter.address; }))
        return false;
    return !filter.port || any_end(flow, [&](const Address &, uint16_t port) { return port == *filter.port; });
}

Row flow_row(const Flow &flow, const Names &names, const ServiceNames &services)
{
    const FlowRow &original = flow.original;
    Row row{{"protocol", transport_name(original.protocol)}, {"state", flow_state_name(original.state)}};
    set_ends(row, original.match, original.protocol, names);
    if (original.flags & TW_FLOW_TRANSLATED)
        set_ends(row["translated"], original.rewrite, original.protocol, names);
    row["flags"] = flow_flags(original.flags);
    if (const auto service = services.find(original.service); service != services.end())
        row["service"] = port_row(service->second);
    row["idle_seconds"] = std::min(original.idle_seconds, flow.reply.idle_seconds);
    row["original"] = {{"packets", original.packets}, {"bytes", original.bytes}};
    row["reply"] = {{"packets", flow.reply.packets}, {"bytes", flow.reply.bytes}};
    return row;
}

Listing flow_list(const Site &site, const FlowFilter &filter)
{
    return {.columns = {column("PROTOCOL", "/protocol"),
                        column("STATE", "/state"),
                        end_column("SOURCE", "/source", true),
                        end_column("DESTINATION", "/destination", true),
                        end_column("TRANSLATED TO", "/translated/destination", true),
                        {"SERVICE", service_text},
                        column("IDLE", "/idle_seconds"),
                        column("PACKETS", "/original/packets"),
                        column("REPLIES", "/reply/packets"),
                        wide(end_column("SOURCE ADDRESS", "/source", false)),
                        wide(end_column("DESTINATION ADDRESS", "/destination", false)),
                        wide(end_column("TRANSLATED SOURCE", "/translated/source", false)),
                        wide(end_column("TRANSLATED DESTINATION", "/translated/destination", false)),
                        wide(column("FLAGS", "/flags")),
                        wide(column("BYTES", "/original/bytes")),
                        wide(column("REPLY BYTES", "/reply/bytes"))},
            .produce = [&site, filter](const Sink &sink) { return produce(site, filter, sink); }};
}

} // namespace thruway::cli
