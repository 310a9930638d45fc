// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "agent/base/address.h"
#include "agent/base/error.h"
#include "agent/base/fd.h"

#include <array>
#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <vector>

struct nl_sock;
struct nl_msg;
struct nl_object;
struct rtnl_link;

namespace thruway {

/// A hardware address.
using Mac = std::array<uint8_t, 6>;

/// "02:00:5e:10:00:01".
std::string mac_text(const Mac &mac);
Result<Mac> parse_mac(const std::string &text);

/// Marks routes and neighbours as ours (rtm_protocol, see rt_protos.d(5)): only those are ever changed or removed.
constexpr uint8_t route_protocol = 84;

struct Link {
    unsigned index = 0;
    std::string name;
    Mac mac{};
    unsigned mtu = 0;
    bool up = false;
    bool loopback = false;
    bool veth = false;
    int peer = 0; ///< index of the other end of a veth, in whatever namespace that is; 0: none
};

/// A pair of virtual interfaces: one in this network namespace, its peer in another one. The near end
/// is up, the peer not yet.
struct VethPair {
    std::string name;
    std::string peer;
    int peer_netns = -1; ///< descriptor; -1: this one
    unsigned mtu = 1500;
    unsigned master = 0; ///< index of the bridge that the near end is a port of; 0: none
};

/// An address of an interface.
struct InterfaceAddress {
    unsigned ifindex = 0;
    Address address;
    unsigned length = 0;
};

struct Route {
    enum class Type : uint8_t { unicast, unreachable };

    Prefix destination;
    unsigned ifindex = 0;           ///< 0: the one that the gateway is reached by
    std::optional<Address> gateway; ///< none: the destination is on the link
    bool onlink = false;            ///< the gateway is taken to be on the link, whatever the addresses say
    std::optional<Address> source;  ///< preferred source address
    Type type = Type::unicast;
    uint32_t table = 0;   ///< 0: main
    uint8_t protocol = 0; ///< 0: as the kernel calls what administrators add (static)

    friend bool operator==(const Route &, const Route &) = default;
};

/// Packets that came in by `in_interface` are routed by `table` first.
struct Rule {
    Family family = Family::ipv4;
    std::string in_interface;
    uint32_t table = 0;
};

struct Neighbour {
    unsigned ifindex = 0;
    Address address;
    std::optional<Mac> mac; ///< none while the kernel has no address that it would use
    uint8_t protocol = 0;   ///< who added it, as in routes
};

/// How this host would send to an address.
struct Way {
    unsigned ifindex = 0;
    std::optional<Address> gateway; ///< none: on the link
    std::optional<Address> source;
    bool local = false; ///< the address is this host's own

    friend bool operator==(const Way &, const Way &) = default;
};

/// A socket to the kernel's network configuration. It speaks of the network namespace in which it was opened, wherever
/// its user goes afterwards.
class Netlink {
public:
    static Result<Netlink> open();

    Result<std::vector<Link>> links();
    Result<Link> link(const std::string &name);
    Result<std::vector<InterfaceAddress>> addresses();
    Result<std::vector<Neighbour>> neighbours();
    /// The routes of all tables that `wanted` picks; there may be very many others.
    Result<std::vector<Route>> routes(const std::function<bool(const Route &)> &wanted);
    Result<Way> way_to(const Address &address);

    Result<> add_veth(const VethPair &pair);
    Result<Link> add_bridge(const std::string &name, unsigned mtu);
    Result<> set_up(unsigned ifindex);
    Result<> set_mtu(unsigned ifindex, unsigned mtu);
    /// No error if it is gone already.
    Result<> delete_link(const std::string &name);

    Result<> add_address(unsigned ifindex, const Address &address, unsigned length);
    /// A neighbour that is never asked for.
    Result<> set_permanent_neighbour(unsigned ifindex, const Address &address, const Mac &mac);
    /// A neighbour that the kernel keeps resolved by itself (NTF_EXT_MANAGED, Linux 5.16).
    Result<> set_managed_neighbour(unsigned ifindex, const Address &address);
    Result<> delete_neighbour(unsigned ifindex, const Address &address);

    /// Adds the route, or puts it in the place of the one to the same destination.
    Result<> set_route(const Route &route);
    /// No error if it is gone already.
    Result<> delete_route(const Route &route);
    Result<> add_rule(const Rule &rule);

private:
    struct Close {
        void operator()(nl_sock *socket) const;
    };

    explicit Netlink(nl_sock *socket) : socket_(socket) {}
    Result<> dump(int type, const std::function<void(nl_msg *)> &visit);
    Result<> dump_objects(int type, const std::function<void(nl_object *)> &visit);
    Result<> send(nl_msg *message);
    Result<> change_link(unsigned ifindex, rtnl_link *change);

    std::unique_ptr<nl_sock, Close> socket_;
};

/// Tells of changes to links, addresses, routes and neighbours.
class NetlinkMonitor {
public:
    struct Events {
        /// Links, addresses or routes are not what they were; also called if the kernel had more to tell than fits.
        std::function<void()> changed;
        /// A neighbour has a MAC, another one, or none any more.
        std::function<void(const Neighbour &)> neighbour;
    };

    static Result<NetlinkMonitor> open(Events events);

    [[nodiscard]] int fd() const;

    /// Reads what there is. To be called when the descriptor is readable.
    void read();

private:
    struct Close {
        void operator()(nl_sock *socket) const;
    };

    NetlinkMonitor(nl_sock *socket, Events events);

    std::unique_ptr<nl_sock, Close> socket_;
    std::unique_ptr<Events> events_; // its address is known to the socket
};

/// The calling thread's stay in another network namespace; ends with the object. Sockets that are opened meanwhile, and
/// /proc/sys/net as it is read and written, are that namespace's.
class NetnsVisit {
public:
    static Result<NetnsVisit> enter(int netns);
    NetnsVisit(NetnsVisit &&) = default;
    NetnsVisit &operator=(NetnsVisit &&) = delete;
    NetnsVisit(const NetnsVisit &) = delete;
    NetnsVisit &operator=(const NetnsVisit &) = delete;
    ~NetnsVisit();

private:
    explicit NetnsVisit(Fd home) : home_(std::move(home)) {}

    Fd home_;
};

/// Sets a sysctl of the calling thread's network namespace: ("ipv4/ip_forward", "1"). Does not write what is there.
Result<> set_net_sysctl(const std::string &name, const std::string &value);
Result<std::string> get_net_sysctl(const std::string &name);

} // namespace thruway
