// SPDX-License-Identifier: Apache-2.0
#include "tools/lab/fabric.h"

#include "tools/lab/manifest.h"
#include "tools/lab/namespaces.h"
#include "tools/lab/offload.h"

namespace thruway::lab {
namespace {

constexpr const char *bridge_name = "br0";
constexpr const char *uplink_name = "eth0";
constexpr uint32_t no_pods_table = 100;

constexpr std::array<Family, 2> families{Family::ipv4, Family::ipv6};

Result<> add_addresses(Netlink &netlink, unsigned link, const AddressPair &addresses)
{
    for (size_t i = 0; i < addresses.size(); i++) {
        if (auto added = netlink.add_address(link, addresses[i], subnet_length[i]); !added)
            return added;
    }
    return {};
}

Result<> add_routes(Netlink &netlink, const PrefixPair &destinations, const AddressPair &gateways)
{
    for (size_t i = 0; i < destinations.size(); i++) {
        if (auto added = netlink.set_route({.destination = destinations[i], .gateway = gateways[i]}); !added)
            return added;
    }
    return {};
}

/// The bridge that all nodes of a switched fabric are on. Its router knows the way to pods, for the client's sake, but
/// does not show it to the nodes: traffic between pods that lacks a route on a node has to fail and not to take a
/// detour.
Result<> add_switch(const Lab &lab, Netlink &router)
{
    auto bridge = router.add_bridge(bridge_name, lab.options().mtu);
    if (!bridge)
        return std::unexpected(bridge.error());
    if (auto added = add_addresses(router, bridge->index, lab.topology().nodes.front().gateways); !added)
        return added;
    for (const Family family : families) {
        const Route route{.destination = lab.topology().all_pods.at(family_index(family)),
                          .type = Route::Type::unreachable,
                          .table = no_pods_table};
        if (auto added = router.set_route(route); !added)
            return added;
        if (auto added = router.add_rule({.family = family, .in_interface = bridge_name, .table = no_pods_table});
            !added)
            return added;
    }
    return {};
}

Result<> suit_xdp(const Lab &lab, const std::string &netns, const std::string &device)
{
    auto file = lab.keeper().netns(netns);
    if (!file)
        return std::unexpected(file.error());
    auto visit = NetnsVisit::enter(file->get());
    if (!visit)
        return std::unexpected(visit.error());
    if (auto set = set_offload(device, Offload::checksum, false); !set)
        return set;
    return set_offload(device, Offload::gro, true);
}

/// Wires a station to the router by its eth0. `bridge` is the port's bridge; without one, the router's end has the
/// gateway's addresses itself.
Result<> connect_station(const Lab &lab, const Station &station, NetnsRole role, unsigned bridge)
{
    if (auto made = make_netns(lab.keeper(), station.name, role); !made)
        return made;
    auto netns = lab.keeper().netns(station.name);
    if (!netns)
        return std::unexpected(netns.error());
    auto router = netlink_in(lab.keeper(), fabric_netns);
    if (!router)
        return std::unexpected(router.error());
    auto host = netlink_in(lab.keeper(), station.name);
    if (!host)
        return std::unexpected(host.error());

    if (auto made = router->add_veth({.name = station.name,
                                      .peer = uplink_name,
                                      .peer_netns = netns->get(),
                                      .mtu = lab.options().mtu,
                                      .master = bridge});
        !made)
        return made;
    auto near = router->link(station.name);
    if (!near)
        return std::unexpected(near.error());
    auto far = host->link(uplink_name);
    if (!far)
        return std::unexpected(far.error());
    if (auto up = host->set_up(far->index); !up)
        return up;
    if (lab.options().xdp)
        for (const auto &[netns_name, device] :
             {std::pair<std::string, std::string>{fabric_netns, station.name}, {station.name, uplink_name}})
            if (auto suited = suit_xdp(lab, netns_name, device); !suited)
                return suited;
    if (!bridge) {
        if (auto added = add_addresses(*router, near->index, station.gateways); !added)
            return added;
    }
    if (auto added = add_addresses(*host, far->index, station.addresses); !added)
        return added;
    const PrefixPair everywhere{Prefix(Address::any(Family::ipv4), 0), Prefix(Address::any(Family::ipv6), 0)};
    return add_routes(*host, everywhere, station.gateways);
}

/// Without Thruway, neighbours on a switched fabric know each other's pods by kernel routes.
Result<> add_plain_pod_routes(const Lab &lab, const Node &node)
{
    if (lab.options().dataplane != Dataplane::none || lab.options().fabric != FabricKind::switched)
        return {};
    auto netlink = netlink_in(lab.keeper(), node.name);
    if (!netlink)
        return std::unexpected(netlink.error());
    for (const Node &other : lab.topology().nodes) {
        if (other.name == node.name)
            continue;
        if (auto added = add_routes(*netlink, other.pod_cidrs, other.addresses); !added)
            return added;
    }
    return {};
}

Result<> make_node_folders(const Lab &lab, const Node &node)
{
    const Folder &folder = lab.folder();
    for (const auto &path : {folder.run_dir(node.name), folder.bpffs(node.name), folder.addresses(node.name),
                             lab.pods_cgroup(node.name)}) {
        if (auto made = make_folder(path); !made)
            return made;
    }
    return mount_bpffs(lab.keeper(), lab.folder().bpffs(node.name));
}

/// The index of the bridge that nodes are ports of, 0 on a routed fabric.
Result<unsigned> bridge_index(const Lab &lab, Netlink &router)
{
    if (lab.options().fabric == FabricKind::routed)
        return 0;
    auto bridge = router.link(bridge_name);
    if (!bridge)
        return std::unexpected(bridge.error());
    return bridge->index;
}

} // namespace

Result<> build_fabric(const Lab &lab)
{
    auto netns = lab.keeper().netns(fabric_netns);
    if (!netns)
        return std::unexpected(netns.error());
    if (auto prepared = prepare_netns(netns->get(), NetnsRole::router); !prepared)
        return prepared;
    auto router = netlink_in(lab.keeper(), fabric_netns);
    if (!router)
        return std::unexpected(router.error());
    if (lab.options().fabric == FabricKind::switched) {
        if (auto added = add_switch(lab, *router); !added)
            return added;
    }
    return connect_station(lab, lab.topology().client, NetnsRole::host, 0);
}

Result<> build_node(const Lab &lab, const Node &node)
{
    auto router = netlink_in(lab.keeper(), fabric_netns);
    if (!router)
        return std::unexpected(router.error());
    auto bridge = bridge_index(lab, *router);
    if (!bridge)
        return std::unexpected(bridge.error());
    if (auto connected = connect_station(lab, node, NetnsRole::router, *bridge); !connected)
        return connected;
    if (auto added = add_routes(*router, node.pod_cidrs, node.addresses); !added)
        return added;
    if (auto added = add_plain_pod_routes(lab, node); !added)
        return added;
    if (auto made = make_node_folders(lab, node); !made)
        return made;
    return lab.put_manifest(manifest_name(node), manifest_text(node));
}

} // namespace thruway::lab
