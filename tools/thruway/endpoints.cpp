// SPDX-License-Identifier: Apache-2.0
#include "tools/thruway/endpoints.h"

#include <set>

namespace thruway::cli {
namespace {

Row address_list(const std::vector<Address> &addresses)
{
    Row list = Row::array();
    for (const Address &address : addresses)
        list.push_back(address.text());
    return list;
}

const PodInterface *pod_with(const std::vector<PodInterface> &pods, const std::vector<Address> &addresses)
{
    for (const PodInterface &pod : pods)
        if (std::ranges::find_first_of(pod.addresses, addresses) != pod.addresses.end())
            return &pod;
    return nullptr;
}

Row endpoint_row(const EndpointEntry &endpoint, const PodInterface *pod, const Names &names)
{
    Row row = Row::object();
    const Owner *owner = names.owner(endpoint.addresses.front());
    if (owner && !owner->is_node) {
        row["namespace"] = owner->name.space.text();
        row["name"] = owner->name.name;
    }
    row["addresses"] = address_list(endpoint.addresses);
    set_text(row, "interface", pod ? pod->device : endpoint.way.interface);
    row["ifindex"] = endpoint.way.ifindex;
    if (endpoint.way.mac)
        row["mac"] = mac_text(*endpoint.way.mac);
    row["id"] = endpoint.id;
    set_text(row, "container_id", pod ? pod->container : "");
    return row;
}

/// A pod interface that the maps do not know.
Row missing_row(const PodInterface &pod)
{
    return {{"namespace", pod.pod.space.text()},
            {"name", pod.pod.name},
            {"programmed", false},
            {"addresses", address_list(pod.addresses)},
            {"interface", pod.device},
            {"ifindex", pod.ifindex},
            {"mac", mac_text(pod.mac)},
            {"container_id", pod.container}};
}

} // namespace

std::vector<Row> endpoint_rows(const std::vector<EndpointEntry> &endpoints, const Names &names)
{
    std::set<const PodInterface *> found;
    std::vector<Row> rows;
    for (const EndpointEntry &endpoint : endpoints) {
        const PodInterface *pod = pod_with(names.pods(), endpoint.addresses);
        found.insert(pod);
        rows.push_back(endpoint_row(endpoint, pod, names));
    }
    for (const PodInterface &pod : names.pods())
        if (!found.contains(&pod))
            rows.push_back(missing_row(pod));
    std::ranges::sort(rows, {}, [](const Row &row) {
        return std::tuple(!row.contains("name"), row.value("namespace", ""), row.value("name", ""), row.value("id", 0));
    });
    return rows;
}

Listing endpoint_list(const Site &site)
{
    return {.columns = {column("NAMESPACE", "/namespace"), column("NAME", "/name"), column("ADDRESSES", "/addresses"),
                        column("INTERFACE", "/interface"), column("IFINDEX", "/ifindex"), column("MAC", "/mac"),
                        column("ID", "/id"), wide(column("CONTAINER", "/container_id")),
                        wide(column("PROGRAMMED", "/programmed"))},
            .produce = [&site](const Sink &sink) -> Result<> {
                auto endpoints = read_endpoints(site);
                if (!endpoints)
                    return std::unexpected(endpoints.error());
                for (const Row &row : endpoint_rows(*endpoints, Names::read(site.run_dir)))
                    sink(row);
                return {};
            }};
}

} // namespace thruway::cli
