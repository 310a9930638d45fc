// SPDX-License-Identifier: Apache-2.0
#include "tools/thruway/services.h"

#include "agent/datapath/flows.h"

namespace thruway::cli {
namespace {

/// What kind of frontend it is; empty if only its Service could tell.
std::string_view frontend_kind(const Frontend &frontend, const Service *service)
{
    if (frontend.address.is_unspecified())
        return "NodePort";
    if (service && std::ranges::find(service->cluster_ips, frontend.address) != service->cluster_ips.end())
        return "ClusterIP";
    return {};
}

Row frontend_row(const Frontend &frontend, const Service *service)
{
    Row row = Row::object();
    set_text(row, "kind", frontend_kind(frontend, service));
    if (!frontend.address.is_unspecified())
        row["address"] = frontend.address.text();
    row["port"] = frontend.port;
    return row;
}

Row backend_row(const JoinedBackend &backend)
{
    Row row{{"address", backend.entry.at.address.text()}, {"port", backend.entry.at.port}};
    if (!backend.endpoint)
        return row;
    const uint8_t conditions = backend.endpoint->conditions;
    set_text(row, "node", backend.endpoint->node.text());
    set_text(row, "pod", backend.pod);
    row["ready"] = (conditions & Endpoint::ready) != 0;
    row["serving"] = (conditions & Endpoint::serving) != 0;
    row["terminating"] = (conditions & Endpoint::terminating) != 0;
    return row;
}

/// Addresses first, then the NodePort, which both families share.
Row frontend_rows(const JoinedService &service)
{
    Row rows = Row::array();
    for (const bool node_port : {false, true})
        for (const Frontend &frontend : service.frontends)
            if (frontend.address.is_unspecified() == node_port)
                if (Row row = frontend_row(frontend, service.service); std::ranges::find(rows, row) == rows.end())
                    rows.push_back(std::move(row));
    return rows;
}

/// "10.96.0.1:80", or "*:30080" for any address of the node.
std::string end_text(const Row &row)
{
    if (!row.contains("address"))
        return fmt::format("*:{}", row["port"].get<uint16_t>());
    const std::string address = row["address"];
    return fmt::format(fmt::runtime(address.contains(':') ? "[{}]:{}" : "{}:{}"), address, row["port"].get<uint16_t>());
}

/// What `text` makes of each element of the array under a key, with something between them.
template<typename Text>
std::function<std::string(const Row &)> joined(const char *key, const char *between, Text text)
{
    return [key, between, text](const Row &row) {
        std::string all;
        for (const Row &element : row[key])
            all += (all.empty() ? "" : between) + text(element);
        return all;
    };
}

/// "2", and whether that is what the Service asks for.
std::string backend_count(const Row &row)
{
    const size_t count = row["backends"].size();
    return row.contains("programmed") ? fmt::format("{} (not programmed)", count) : fmt::format("{}", count);
}

std::string frontend_line(const Row &row)
{
    return row.value("kind", "address") + " " + end_text(row);
}

/// "10.244.1.2:8080  web-1 on node1, ready"
std::string backend_line(const Row &row)
{
    std::string line = end_text(row);
    if (row.contains("pod"))
        line += "  " + row["pod"].get<std::string>();
    if (row.contains("node"))
        line += " on " + row["node"].get<std::string>();
    for (const char *condition : {"ready", "serving", "terminating"})
        if (row.value(condition, false))
            line += std::string(", ") + condition;
    return line;
}

/// Adds what the service's rows count: ended flows and live ones.
void add_totals(Row &row, const JoinedService &service, const Arrays &arrays, const std::vector<tw_totals> &live)
{
    tw_totals sum{};
    for (const uint32_t id : service.ids) {
        const tw_totals ended = arrays.totals[id];
        sum.connections += ended.connections;
        sum.packets += ended.packets + live[id].packets;
        sum.bytes += ended.bytes + live[id].bytes;
    }
    row["connections"] = sum.connections;
    row["packets"] = sum.packets;
    row["bytes"] = sum.bytes;
    row["ids"] = service.ids;
}

Result<> produce_get(const Site &site, const ObjectName &name, const Sink &sink)
{
    const Names names = Names::read(site.run_dir);
    if (auto known = names.expect_service(name); !known)
        return known;
    if (!names.service(name)->proxied)
        return fail("Service {} is not for us: it is headless, of type ExternalName, or left to another proxy",
                    name.text());
    auto entries = read_services(site);
    if (!entries)
        return std::unexpected(entries.error());
    const std::vector<tw_totals> live = live_totals(site.arrays, site.arrays.previous.get(), site.arrays.totals.size());
    for (const JoinedService &service : join_services(*entries, names)) {
        if (!service.name || service.name->service != name)
            continue;
        Row row = service_row(service);
        add_totals(row, service, site.arrays, live);
        sink(row);
    }
    return {};
}

} // namespace

Row service_row(const JoinedService &service)
{
    Row row = Row::object();
    if (service.name)
        row = port_row(*service.name);
    else if (!service.frontends.empty())
        row["protocol"] = protocol_name(service.frontends.front().protocol);
    if (service.service)
        row["type"] = service_type_name(service.service->type);
    if (!service.programmed)
        row["programmed"] = false;
    row["frontends"] = frontend_rows(service);
    Row backends = Row::array();
    for (const JoinedBackend &backend : service.backends)
        backends.push_back(backend_row(backend));
    row["backends"] = std::move(backends);
    return row;
}

Row port_row(const PortName &name)
{
    Row row{{"namespace", name.service.space.text()}, {"name", name.service.name}};
    set_text(row, "port_name", name.port.text());
    row["protocol"] = protocol_name(name.protocol);
    return row;
}

std::string port_text(const Row &row)
{
    std::string text = row["namespace"].get<std::string>() + "/" + row["name"].get<std::string>();
    if (row.contains("port_name"))
        text += ":" + row["port_name"].get<std::string>();
    return text;
}

Listing service_list(const Site &site)
{
    return {.columns = {column("NAMESPACE", "/namespace"),
                        column("NAME", "/name"),
                        column("PORT", "/port_name"),
                        column("PROTOCOL", "/protocol"),
                        column("TYPE", "/type"),
                        {"FRONTENDS", joined("frontends", ",", end_text)},
                        {"BACKENDS", backend_count},
                        {"BACKEND ADDRESSES", joined("backends", ",", end_text), true}},
            .produce = [&site](const Sink &sink) -> Result<> {
                auto entries = read_services(site);
                if (!entries)
                    return std::unexpected(entries.error());
                const Names names = Names::read(site.run_dir);
                for (const JoinedService &service : join_services(*entries, names))
                    sink(service_row(service));
                return {};
            }};
}

Listing service_get(const Site &site, const ObjectName &name)
{
    return {.shape = Shape::records,
            .columns = {column("NAMESPACE", "/namespace"),
                        column("NAME", "/name"),
                        column("PORT", "/port_name"),
                        column("PROTOCOL", "/protocol"),
                        column("TYPE", "/type"),
                        column("PROGRAMMED", "/programmed"),
                        {"FRONTENDS", joined("frontends", "\n", frontend_line)},
                        {"BACKENDS", joined("backends", "\n", backend_line)},
                        column("CONNECTIONS", "/connections"),
                        column("PACKETS", "/packets"),
                        column("BYTES", "/bytes"),
                        wide(column("IDS", "/ids"))},
            .produce = [&site, name](const Sink &sink) { return produce_get(site, name, sink); }};
}

} // namespace thruway::cli
