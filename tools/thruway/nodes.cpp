// SPDX-License-Identifier: Apache-2.0
#include "tools/thruway/nodes.h"

#include "tools/thruway/names.h"

#include <map>
#include <unordered_map>

namespace thruway::cli {
namespace {

/// {cidr, gateway, interface, ifindex, mac, resolved, mtu}; only the first for pods of this node.
Row cidr_row(const NodeEntry &entry)
{
    Row row{{"cidr", entry.prefix.text()}};
    if (!entry.way)
        return row;
    const HopEntry &way = *entry.way;
    if (way.gateway)
        row["gateway"] = way.gateway->text();
    set_text(row, "interface", way.interface);
    row["ifindex"] = way.ifindex;
    if (way.mac)
        row["mac"] = mac_text(*way.mac);
    row["resolved"] = way.mac.has_value();
    row["mtu"] = way.mtu;
    return row;
}

void add_cidr(Row &row, const NodeEntry &entry)
{
    row["local"] = !entry.way.has_value();
    row["pod_cidrs"].push_back(cidr_row(entry));
}

/// The row of a node that has no way in the maps yet.
Row node_row(const Node &node)
{
    Row row{{"name", node.name.name}, {"addresses", Row::array()}, {"local", false}, {"pod_cidrs", Row::array()}};
    for (const Address &address : node.addresses)
        row["addresses"].push_back(address.text());
    return row;
}

/// Whose pods a CIDR is for. Of several nodes that claim it the first by name has it, as the planner has it.
std::unordered_map<Prefix, std::string> holders_of(const std::vector<Node> &nodes)
{
    std::unordered_map<Prefix, std::string> holders;
    for (const Node &node : nodes)
        for (const Prefix &prefix : node.pod_cidrs)
            if (const auto [found, first] = holders.try_emplace(prefix, node.name.name); !first)
                found->second = std::min(found->second, node.name.name);
    return holders;
}

} // namespace

std::vector<Row> node_rows(const std::vector<NodeEntry> &entries, const std::vector<Node> &nodes)
{
    const auto holders = holders_of(nodes);
    std::map<std::string, Row> by_name;
    std::vector<Row> nameless;
    for (const Node &node : nodes)
        by_name.emplace(node.name.name, node_row(node));
    for (const NodeEntry &entry : entries) {
        const auto holder = holders.find(entry.prefix);
        add_cidr(holder == holders.end() ? nameless.emplace_back(Row::object()) : by_name[holder->second], entry);
    }
    for (const Node &node : nodes)
        if (by_name[node.name.name]["pod_cidrs"].size() < node.pod_cidrs.size())
            by_name[node.name.name]["programmed"] = false;

    std::vector<Row> rows;
    rows.reserve(by_name.size() + nameless.size());
    for (auto &[name, row] : by_name)
        rows.push_back(std::move(row));
    std::ranges::move(nameless, std::back_inserter(rows));
    return rows;
}

Listing node_list(const Site &site)
{
    return {.columns = {column("NAME", "/name"), column("LOCAL", "/local"),
                        column_of_each("POD CIDRS", "/pod_cidrs", "cidr"),
                        column_of_each("NEXT HOPS", "/pod_cidrs", "gateway"),
                        column_of_each("INTERFACE", "/pod_cidrs", "interface"),
                        column_of_each("RESOLVED", "/pod_cidrs", "resolved"), wide(column("ADDRESSES", "/addresses")),
                        wide(column_of_each("MACS", "/pod_cidrs", "mac")),
                        wide(column_of_each("MTU", "/pod_cidrs", "mtu")), wide(column("PROGRAMMED", "/programmed"))},
            .produce = [&site](const Sink &sink) -> Result<> {
                auto entries = read_nodes(site);
                if (!entries)
                    return std::unexpected(entries.error());
                for (const Row &row : node_rows(*entries, Names::read(site.run_dir).nodes()))
                    sink(row);
                return {};
            }};
}

} // namespace thruway::cli
