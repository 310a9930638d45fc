// SPDX-License-Identifier: Apache-2.0
#include "agent/node/host.h"

#include "agent/node/host_link.h"

#include <algorithm>
#include <spdlog/spdlog.h>

namespace thruway {
namespace {

/// Changes come in bursts: an interface that comes up brings addresses and routes along.
constexpr auto refresh_delay = std::chrono::milliseconds(20);

/// An address by which others reach this node, or that a client may dial.
bool counts_as_node_address(const Address &address)
{
    return !address.is_loopback() && !address.is_link_local() && !address.is_multicast() && !address.is_unspecified();
}

} // namespace

HostNetwork::HostNetwork(Loop &loop, Datapath &datapath, NextHopTables &nexthops, Netlink netlink)
    : loop_(&loop), datapath_(&datapath), nexthops_(&nexthops), netlink_(std::move(netlink))
{
}

HostNetwork::~HostNetwork()
{
    loop_->cancel(refresh_timer_);
    if (monitor_)
        loop_->forget(monitor_->fd());
}

Result<std::unique_ptr<HostNetwork>> HostNetwork::open(Loop &loop, Datapath &datapath, NextHopTables &nexthops,
                                                       HostOptions options)
{
    auto netlink = Netlink::open();
    if (!netlink)
        return std::unexpected(netlink.error());
    for (const std::string &name : options.uplinks)
        if (auto found = netlink->link(name); !found)
            return fail_within("uplink", found.error());

    // The constructor is private: make_unique cannot call it.
    std::unique_ptr<HostNetwork> host(
        new HostNetwork(loop, datapath, nexthops, std::move(*netlink))); // NOLINT(cppcoreguidelines-owning-memory)
    host->options_ = std::move(options);
    // Subscribe first, read after: nothing falls in between.
    auto monitor = NetlinkMonitor::open({
        .changed = [self = host.get()] { self->schedule_refresh(); },
        .neighbour = [self = host.get()](const Neighbour &neighbour) { self->on_neighbour(neighbour); },
    });
    if (!monitor)
        return std::unexpected(monitor.error());
    host->monitor_ = std::move(*monitor);
    if (auto watched = loop.watch(host->monitor_->fd(), [self = host.get()] { self->monitor_->read(); }); !watched)
        return std::unexpected(watched.error());

    host->refresh();
    if (host->uplinks_.empty())
        return fail("no uplink: there is no default route; name the interface with --uplink");
    return host;
}

void HostNetwork::schedule_refresh()
{
    if (refresh_timer_)
        return;
    refresh_timer_ = loop_->after(refresh_delay, [this] {
        refresh_timer_ = 0;
        refresh();
    });
}

/// Logs a fault when it appears, and that it is over.
void HostNetwork::complain(const std::string &about, const Result<> &result)
{
    const auto found = complaints_.find(about);
    if (result) {
        if (found != complaints_.end()) {
            spdlog::info("{}: good again", about);
            complaints_.erase(found);
        }
    } else if (found == complaints_.end() || found->second != result.error().text()) {
        spdlog::error("{}: {}", about, result.error().text());
        complaints_[about] = result.error().text();
    }
}

void HostNetwork::refresh()
{
    complain("reading the network configuration", read_network());
    attach_uplinks();
    update_gateways();
    for (const auto &[prefix, route] : nodes_)
        place(route);
    if (on_change_)
        on_change_();
}

Result<> HostNetwork::read_network()
{
    auto links = netlink_.links();
    auto addresses = netlink_.addresses();
    auto neighbours = netlink_.neighbours();
    auto routes = netlink_.routes([](const Route &route) {
        return route.table == 0 && (route.protocol == route_protocol || route.destination.length() == 0);
    });
    if (!links)
        return std::unexpected(links.error());
    if (!addresses)
        return std::unexpected(addresses.error());
    if (!neighbours)
        return std::unexpected(neighbours.error());
    if (!routes)
        return std::unexpected(routes.error());

    std::vector<Route> own;
    default_routes_.clear();
    for (const Route &route : *routes)
        (route.protocol == route_protocol ? own : default_routes_).push_back(route);
    find_uplinks(*links);
    set_addresses(*addresses);
    set_neighbours(*neighbours);
    return routes_.refresh(own);
}

/// The interfaces that are named, or else those that the default routes use.
void HostNetwork::find_uplinks(const std::vector<Link> &links)
{
    uplinks_.clear();
    for (const Link &link : links) {
        const bool named = std::ranges::find(options_.uplinks, link.name) != options_.uplinks.end();
        const bool by_default = options_.uplinks.empty() && std::ranges::find(default_routes_, link.index,
                                                                              &Route::ifindex) != default_routes_.end();
        if (named || by_default)
            uplinks_[link.index].link = link;
    }
}

void HostNetwork::set_addresses(const std::vector<InterfaceAddress> &addresses)
{
    std::vector<Address> own;
    for (const InterfaceAddress &a : addresses) {
        if (!counts_as_node_address(a.address))
            continue;
        if (std::ranges::find(own, a.address) == own.end())
            own.push_back(a.address);
        const auto uplink = uplinks_.find(a.ifindex);
        if (uplink == uplinks_.end())
            continue;
        auto &first = uplink->second.address.at(family_index(a.address.family()));
        if (!first)
            first = a.address;
    }
    complain("node addresses", nexthops_->set_node_addresses(own));
    std::ranges::sort(own);
    addresses_ = std::move(own);
    set_node_ports();
}

/// Before the Node object is known, primary addresses are those of the run before.
void HostNetwork::set_node_ports()
{
    if (!options_.node_ports.needs_primary() || !internal_.empty())
        complain("node port addresses", nexthops_->set_node_port_addresses(node_port_addresses()));
}

void HostNetwork::set_neighbours(const std::vector<Neighbour> &neighbours)
{
    for (auto &[key, mac] : neighbours_)
        mac.reset();
    for (const Neighbour &neighbour : neighbours)
        if (const auto found = neighbours_.find({neighbour.ifindex, neighbour.address}); found != neighbours_.end())
            found->second = neighbour.mac;
}

Result<> HostNetwork::attach()
{
    for (const auto &[index, uplink] : uplinks_) {
        if (auto attached = datapath_->attach_uplink(index, uplink.link.name); !attached)
            return attached;
        attach_xdp(uplink);
    }
    return loopback_ ? datapath_->attach_loopback() : Result<>{};
}

void HostNetwork::attach_uplinks()
{
    for (const auto &[index, uplink] : uplinks_) {
        complain(fmt::format("uplink {}", uplink.link.name), datapath_->attach_uplink(index, uplink.link.name));
        attach_xdp(uplink);
        complain(fmt::format("uplink {}", uplink.link.name), nexthops_->set_uplink(hop_by(uplink, std::nullopt)));
        attached_.insert(index);
    }
    for (auto index = attached_.begin(); index != attached_.end();) {
        if (uplinks_.contains(*index)) {
            ++index;
            continue;
        }
        nexthops_->remove_uplink(*index);
        datapath_->detach_uplink(*index);
        xdp_.erase(*index);
        index = attached_.erase(index);
    }
}

/// Whether XDP can be had may change with every change of the device. But a driver that has said no is asked again only
/// after the MTU has changed: being asked may restart its queues, and that is a change, too.
void HostNetwork::attach_xdp(const Uplink &uplink)
{
    const Link &link = uplink.link;
    const auto known = xdp_.find(link.index);
    if (known != xdp_.end() && known->second.state.refused && known->second.mtu == link.mtu)
        return;
    XdpState state = datapath_->attach_xdp({link.index, link.veth}, options_.xdp);
    const bool news =
        known == xdp_.end() || known->second.state.mode != state.mode || known->second.state.reason != state.reason;
    if (news && state.mode != XdpMode::off)
        spdlog::info("uplink {}: XDP is {}", link.name, xdp_mode_name(state.mode));
    else if (news && !state.reason.empty())
        spdlog::log(options_.xdp == XdpMode::automatic ? spdlog::level::info : spdlog::level::warn,
                    "uplink {}: no XDP, tc does the work: {}", link.name, state.reason);
    xdp_.insert_or_assign(link.index, Accelerated{std::move(state), link.mtu});
}

NextHop HostNetwork::hop_by(const Uplink &uplink, const std::optional<Address> &gateway) const
{
    NextHop hop;
    hop.ifindex = uplink.link.index;
    hop.mtu = static_cast<uint16_t>(std::min(uplink.link.mtu, 65'535U));
    hop.from = uplink.link.mac;
    hop.source = uplink.address;
    hop.gateway = gateway;
    if (const auto xdp = xdp_.find(uplink.link.index); xdp != xdp_.end())
        hop.xdp = xdp->second.state.way;
    if (gateway)
        if (const auto found = neighbours_.find({uplink.link.index, *gateway}); found != neighbours_.end())
            hop.to = found->second;
    return hop;
}

/// Next hops for the gateways of the default routes, by which answers to the outside leave.
void HostNetwork::update_gateways()
{
    std::set<NeighbourKey> now;
    for (const Route &route : default_routes_)
        if (route.gateway && uplinks_.contains(route.ifindex))
            now.emplace(route.ifindex, *route.gateway);
    for (const NeighbourKey &key : gateways_)
        if (!now.contains(key))
            nexthops_->remove_gateway(key.second, key.first);
    gateways_ = std::move(now);
    for (const NeighbourKey &key : gateways_) {
        follow(key);
        complain(fmt::format("gateway {}", key.second.text()),
                 nexthops_->set_gateway(key.second, hop_by(uplinks_.at(key.first), key.second)));
    }
}

/// Has the kernel keep the neighbour resolved: our packets carry its MAC themselves, so nothing else would.
void HostNetwork::follow(const NeighbourKey &key)
{
    if (neighbours_.contains(key))
        return;
    neighbours_.emplace(key, std::nullopt);
    if (auto all = netlink_.neighbours())
        for (const Neighbour &neighbour : *all)
            if (NeighbourKey{neighbour.ifindex, neighbour.address} == key)
                neighbours_[key] = neighbour.mac;
    complain(fmt::format("neighbour {}", key.second.text()), netlink_.set_managed_neighbour(key.first, key.second));
}

void HostNetwork::on_neighbour(const Neighbour &neighbour)
{
    const NeighbourKey key{neighbour.ifindex, neighbour.address};
    const auto found = neighbours_.find(key);
    const auto uplink = uplinks_.find(neighbour.ifindex);
    if (found == neighbours_.end() || uplink == uplinks_.end() || found->second == neighbour.mac)
        return;
    found->second = neighbour.mac;
    const NextHop hop = hop_by(uplink->second, neighbour.address);
    const std::string about = fmt::format("neighbour {}", neighbour.address.text());
    if (gateways_.contains(key))
        complain(about, nexthops_->set_gateway(neighbour.address, hop));
    for (const auto &[prefix, by] : node_neighbours_)
        if (by == key)
            complain(about, nexthops_->set_node(prefix, hop));
}

void HostNetwork::apply(const NodeChanges &changes)
{
    for (const Prefix &prefix : changes.deletes) {
        nodes_.erase(prefix);
        drop_node(prefix);
    }
    for (const NodeRoute &route : changes.upserts) {
        nodes_[route.prefix] = route;
        place(route);
    }
}

void HostNetwork::place(const NodeRoute &route)
{
    if (route.node.is_unspecified())
        place_own(route.prefix);
    else
        place_node(route.prefix, route);
}

void HostNetwork::drop_node(const Prefix &prefix)
{
    nexthops_->remove_node(prefix);
    node_neighbours_.erase(prefix);
    complain(fmt::format("route {}", prefix.text()), routes_.drop(prefix));
}

/// This node's own pod CIDR: what no pod has is unreachable, so that it does not circle between us and the router.
void HostNetwork::place_own(const Prefix &prefix)
{
    complain(fmt::format("pod CIDR {}", prefix.text()), nexthops_->set_node(prefix, std::nullopt));
    complain(fmt::format("route {}", prefix.text()),
             routes_.want({.destination = prefix, .type = Route::Type::unreachable, .protocol = route_protocol}));
}

void HostNetwork::place_node(const Prefix &prefix, const NodeRoute &route)
{
    const std::string about = fmt::format("node {} ({})", route.name.text(), prefix.text());
    auto way = netlink_.way_to(route.node);
    if (!way)
        return complain(about, std::unexpected(way.error()));
    const auto uplink = uplinks_.find(way->ifindex);
    if (way->local || uplink == uplinks_.end())
        return complain(about, fail("{} is not reached by an uplink", route.node.text()));

    const Address gateway = way->gateway.value_or(route.node);
    const NeighbourKey key{way->ifindex, gateway};
    follow(key);
    node_neighbours_.insert_or_assign(prefix, key);
    NextHop hop = hop_by(uplink->second, gateway);
    if (way->source)
        hop.source.at(family_index(way->source->family())) = way->source;
    if (auto set = nexthops_->set_node(prefix, hop); !set)
        return complain(about, set);
    complain(
        about,
        routes_.want({.destination = prefix, .ifindex = way->ifindex, .gateway = gateway, .protocol = route_protocol}));
}

void HostNetwork::set_internal_addresses(const std::vector<Address> &addresses)
{
    if (internal_ == addresses)
        return;
    internal_ = addresses;
    set_node_ports();
    if (on_change_)
        on_change_();
}

std::optional<Address> HostNetwork::primary(Family family) const
{
    const auto internal = std::ranges::find(internal_, family, &Address::family);
    if (internal != internal_.end())
        return *internal;
    for (const auto &[index, uplink] : uplinks_)
        if (const auto &address = uplink.address.at(family_index(family)))
            return address;
    return std::nullopt;
}

unsigned HostNetwork::mtu() const
{
    unsigned least = 65'535;
    for (const auto &[index, uplink] : uplinks_)
        least = std::min(least, uplink.link.mtu);
    return least;
}

std::vector<std::string> HostNetwork::uplink_names() const
{
    std::vector<std::string> names;
    for (const auto &[index, uplink] : uplinks_)
        names.push_back(uplink.link.name);
    return names;
}

Result<> HostNetwork::translate_loopback(bool translate)
{
    loopback_ = translate;
    if (!translate) {
        datapath_->detach_loopback();
        nexthops_->remove_host();
        return remove_host_link(netlink_);
    }
    auto link = make_host_link(netlink_);
    if (!link)
        return std::unexpected(link.error());
    nexthops_->set_host({.ifindex = link->index, .mtu = static_cast<uint16_t>(link->mtu), .to = link->mac});
    return datapath_->attach_loopback();
}

std::vector<std::pair<std::string, XdpState>> HostNetwork::uplink_xdp() const
{
    std::vector<std::pair<std::string, XdpState>> states;
    for (const auto &[index, uplink] : uplinks_)
        if (const auto found = xdp_.find(index); found != xdp_.end())
            states.emplace_back(uplink.link.name, found->second.state);
    return states;
}

void HostNetwork::sweep()
{
    datapath_->detach_others(
        [this](unsigned ifindex) { return uplinks_.contains(ifindex) || (loopback_ && ifindex == loopback_ifindex); });
    complain("stale routes", routes_.sweep());
}

Result<> HostNetwork::cleanup()
{
    auto netlink = Netlink::open();
    if (!netlink)
        return std::unexpected(netlink.error());
    if (auto removed = remove_host_link(*netlink); !removed)
        return removed;
    auto routes = netlink->routes([](const Route &route) { return route.protocol == route_protocol; });
    if (!routes)
        return std::unexpected(routes.error());
    for (const Route &route : *routes)
        if (auto deleted = netlink->delete_route(route); !deleted)
            return deleted;
    auto neighbours = netlink->neighbours();
    if (!neighbours)
        return std::unexpected(neighbours.error());
    for (const Neighbour &neighbour : *neighbours)
        if (neighbour.protocol == route_protocol)
            if (auto deleted = netlink->delete_neighbour(neighbour.ifindex, neighbour.address); !deleted)
                return deleted;
    return {};
}

} // namespace thruway
