// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "agent/base/loop.h"
#include "agent/datapath/nexthops.h"
#include "agent/datapath/programs.h"
#include "agent/node/netlink.h"
#include "agent/node/node_port_addresses.h"
#include "agent/node/routes.h"
#include "agent/planner/nodes.h"

#include <map>
#include <optional>
#include <set>
#include <string>
#include <unordered_map>
#include <vector>

namespace thruway {

/// What an operator says of the node's network.
struct HostOptions {
    std::vector<std::string> uplinks; ///< interface names; none: those that the default routes use
    XdpMode xdp = XdpMode::off;
    NodePortAddresses node_ports;
};

/// The node's own network as the kernel has it: uplinks, addresses, ways to other nodes, and where their neighbours
/// are. Follows all of it by netlink and keeps the datapath's next hops true to it.
class HostNetwork {
public:
    /// Fails if an uplink that is named does not exist.
    static Result<std::unique_ptr<HostNetwork>> open(Loop &loop, Datapath &datapath, NextHopTables &nexthops,
                                                     HostOptions options);
    ~HostNetwork();
    HostNetwork(const HostNetwork &) = delete;
    HostNetwork &operator=(const HostNetwork &) = delete;

    /// Routes to the pods of other nodes, and the pod CIDRs of this one. Faults are logged and tried again when the
    /// network changes.
    void apply(const NodeChanges &changes);

    /// This node's addresses as its Node object has them, primary first; they are preferred to what interfaces say.
    void set_internal_addresses(const std::vector<Address> &addresses);

    /// Whether what the host sends to itself is translated on its way, as no socket is.
    Result<> translate_loopback(bool translate);
    /// Attaches the datapath's programs to all uplinks and to `lo`, in the place of others of ours.
    Result<> attach();

    /// Removes routes and neighbours of ours that nothing wants. To be called once the sources have told everything.
    void sweep();

    /// Called after the network has changed: what depends on primary addresses or MTU may have to follow.
    void on_change(std::function<void()> task) { on_change_ = std::move(task); }

    /// Address that stands for this node in SNAT towards its own pods.
    [[nodiscard]] std::optional<Address> primary(Family family) const;

    /// All addresses of the node that others may dial, sorted.
    [[nodiscard]] const std::vector<Address> &addresses() const { return addresses_; }

    /// Those of them that NodePorts are on.
    [[nodiscard]] std::vector<Address> node_port_addresses() const
    {
        return options_.node_ports.among(addresses_, internal_);
    }

    /// Those at which the node itself serves what is like a NodePort: the same, or the unspecified one for all.
    [[nodiscard]] std::vector<Address> listen_addresses() const
    {
        return options_.node_ports.all() ? std::vector{Address::any(Family::ipv6)} : node_port_addresses();
    }

    /// The least MTU of the uplinks.
    [[nodiscard]] unsigned mtu() const;

    [[nodiscard]] std::vector<std::string> uplink_names() const;

    /// What became of XDP on each uplink.
    [[nodiscard]] std::vector<std::pair<std::string, XdpState>> uplink_xdp() const;

    [[nodiscard]] Netlink &netlink() { return netlink_; }
    [[nodiscard]] KernelRoutes &routes() { return routes_; }

    /// Removes routes, neighbours and all else of ours from this network namespace.
    static Result<> cleanup();

private:
    struct Uplink {
        Link link;
        std::array<std::optional<Address>, 2> address; // by family: the first global one
    };
    /// XDP on an uplink, and the MTU at which that was found out.
    struct Accelerated {
        XdpState state;
        unsigned mtu = 0;
    };
    /// A neighbour on an uplink whose MAC we follow.
    using NeighbourKey = std::pair<unsigned, Address>;

    HostNetwork(Loop &loop, Datapath &datapath, NextHopTables &nexthops, Netlink netlink);

    void schedule_refresh();
    void refresh();
    Result<> read_network();
    void find_uplinks(const std::vector<Link> &links);
    void set_addresses(const std::vector<InterfaceAddress> &addresses);
    void set_node_ports();
    void set_neighbours(const std::vector<Neighbour> &neighbours);
    void attach_uplinks();
    void attach_xdp(const Uplink &uplink);
    void update_gateways();
    void place(const NodeRoute &route);
    void place_node(const Prefix &prefix, const NodeRoute &route);
    void place_own(const Prefix &prefix);
    void drop_node(const Prefix &prefix);
    void follow(const NeighbourKey &key);
    void on_neighbour(const Neighbour &neighbour);
    [[nodiscard]] NextHop hop_by(const Uplink &uplink, const std::optional<Address> &gateway) const;
    void complain(const std::string &about, const Result<> &result);

    Loop *loop_;
    Datapath *datapath_;
    NextHopTables *nexthops_;
    Netlink netlink_;
    KernelRoutes routes_{netlink_};
    std::optional<NetlinkMonitor> monitor_;
    HostOptions options_;
    std::map<unsigned, Uplink> uplinks_;
    std::set<unsigned> attached_;
    bool loopback_ = false; // to_net is on `lo`, too
    std::map<unsigned, Accelerated> xdp_;
    std::vector<Address> internal_;
    std::vector<Address> addresses_;
    std::unordered_map<Prefix, NodeRoute> nodes_;
    std::unordered_map<Prefix, NeighbourKey> node_neighbours_; // whose MAC leads to a node's pods
    std::set<NeighbourKey> gateways_;
    std::map<NeighbourKey, std::optional<Mac>> neighbours_;
    std::vector<Route> default_routes_;
    std::map<std::string, std::string> complaints_;
    Loop::Timer refresh_timer_ = 0;
    std::function<void()> on_change_;
};

} // namespace thruway
