// SPDX-License-Identifier: Apache-2.0
#include "agent/node/netlink.h"

#include "agent/base/file.h"

#include <cstdlib>
#include <cstring>
#include <fcntl.h>
#include <linux/fib_rules.h>
#include <linux/neighbour.h>
#include <linux/rtnetlink.h>
#include <net/if.h>
#include <netlink/cache.h>
#include <netlink/msg.h>
#include <netlink/netlink.h>
#include <netlink/route/addr.h>
#include <netlink/route/link.h>
#include <netlink/route/link/bridge.h>
#include <netlink/route/link/veth.h>
#include <netlink/route/neighbour.h>
#include <netlink/route/nexthop.h>
#include <netlink/route/route.h>
#include <netlink/route/rule.h>
#include <sched.h>
#include <unistd.h>

namespace thruway {
namespace {

/// An object of libnl that is given back by `Put`.
template<auto Put>
struct Putter {
    void operator()(auto *object) const { Put(object); }
};
using LinkObject = std::unique_ptr<rtnl_link, Putter<rtnl_link_put>>;
using AddressObject = std::unique_ptr<rtnl_addr, Putter<rtnl_addr_put>>;
using NeighbourObject = std::unique_ptr<rtnl_neigh, Putter<rtnl_neigh_put>>;
using RouteObject = std::unique_ptr<rtnl_route, Putter<rtnl_route_put>>;
using RuleObject = std::unique_ptr<rtnl_rule, Putter<rtnl_rule_put>>;
using AbstractAddress = std::unique_ptr<nl_addr, Putter<nl_addr_put>>;
using Message = std::unique_ptr<nl_msg, Putter<nlmsg_free>>;

constexpr int create_new = NLM_F_CREATE | NLM_F_EXCL;

/// Newer than the headers of this system's libc; linux/neighbour.h, linux/rtnetlink.h.
constexpr uint32_t neighbour_managed = 1U << 0; // NTF_EXT_MANAGED

int family_number(Family family)
{
    return family == Family::ipv4 ? AF_INET : AF_INET6;
}

AbstractAddress abstract(const Address &address, unsigned length)
{
    AbstractAddress made(nl_addr_build(family_number(address.family()), address.bytes(), address.size()));
    nl_addr_set_prefixlen(made.get(), static_cast<int>(length));
    return made;
}

AbstractAddress abstract(const Address &address)
{
    return abstract(address, static_cast<unsigned>(address.size() * 8));
}

std::optional<Address> concrete(const nl_addr *address)
{
    if (!address)
        return std::nullopt;
    switch (nl_addr_get_family(address)) {
    case AF_INET:
        return nl_addr_get_len(address) == 4
                   ? std::optional(Address::from_bytes(nl_addr_get_binary_addr(address), Family::ipv4))
                   : std::nullopt;
    case AF_INET6:
        return nl_addr_get_len(address) == 16
                   ? std::optional(Address::from_bytes(nl_addr_get_binary_addr(address), Family::ipv6))
                   : std::nullopt;
    default:
        return std::nullopt;
    }
}

std::optional<Mac> concrete_mac(const nl_addr *address)
{
    Mac mac{};
    // A loopback interface has an address too; anything shorter or longer would be no Ethernet.
    if (!address || nl_addr_get_len(address) != mac.size())
        return std::nullopt;
    std::memcpy(mac.data(), nl_addr_get_binary_addr(address), mac.size());
    return mac;
}

/// What libnl returned, as a Result; its code is libnl's, negative.
template<typename... Args>
Result<> checked(int code, fmt::format_string<Args...> format, Args &&...args)
{
    if (code < 0)
        return std::unexpected(
            Error(fmt::format("{}: {}", fmt::format(format, std::forward<Args>(args)...), nl_geterror(code)), code));
    return {};
}

/// Removing what is not there is as good as removing it.
Result<> unless_gone(Result<> result)
{
    if (!result)
        for (const int gone : {-NLE_OBJ_NOTFOUND, -NLE_NODEV, -NLE_NOADDR, -NLE_NOATTR})
            if (result.error().code() == gone)
                return {};
    return result;
}

Link link_of(rtnl_link *object)
{
    Link link;
    link.index = static_cast<unsigned>(rtnl_link_get_ifindex(object));
    link.name = rtnl_link_get_name(object);
    link.mac = concrete_mac(rtnl_link_get_addr(object)).value_or(Mac{});
    link.mtu = rtnl_link_get_mtu(object);
    link.up = rtnl_link_get_flags(object) & IFF_UP;
    link.loopback = rtnl_link_get_flags(object) & IFF_LOOPBACK;
    link.veth = rtnl_link_is_veth(object);
    link.peer = rtnl_link_get_link(object);
    return link;
}

/// libnl 3.7 does not know whose a neighbour is, so this reads the message itself.
std::optional<Neighbour> neighbour_of(nl_msg *message)
{
    constexpr int usable = NUD_PERMANENT | NUD_NOARP | NUD_REACHABLE | NUD_STALE | NUD_DELAY | NUD_PROBE;
    nlmsghdr *header = nlmsg_hdr(message);
    std::array<nlattr *, NDA_MAX + 1> attributes{};
    if (nlmsg_parse(header, sizeof(ndmsg), attributes.data(), NDA_MAX, nullptr) < 0 || !attributes[NDA_DST])
        return std::nullopt;
    const auto *body = static_cast<const ndmsg *>(nlmsg_data(header));
    const size_t size = body->ndm_family == AF_INET ? 4 : 16;
    if ((body->ndm_family != AF_INET && body->ndm_family != AF_INET6) ||
        static_cast<size_t>(nla_len(attributes[NDA_DST])) != size)
        return std::nullopt;

    Neighbour neighbour;
    neighbour.ifindex = static_cast<unsigned>(body->ndm_ifindex);
    neighbour.address = Address::from_bytes(nla_data(attributes[NDA_DST]), size == 4 ? Family::ipv4 : Family::ipv6);
    if (attributes[NDA_PROTOCOL])
        neighbour.protocol = nla_get_u8(attributes[NDA_PROTOCOL]);
    Mac mac{};
    const bool gone = header->nlmsg_type == RTM_DELNEIGH || !(body->ndm_state & usable);
    if (!gone && attributes[NDA_LLADDR] && static_cast<size_t>(nla_len(attributes[NDA_LLADDR])) == mac.size()) {
        std::memcpy(mac.data(), nla_data(attributes[NDA_LLADDR]), mac.size());
        neighbour.mac = mac;
    }
    return neighbour;
}

std::optional<Route> route_of(rtnl_route *object)
{
    nl_addr *raw = rtnl_route_get_dst(object);
    std::optional<Address> address = concrete(raw);
    const uint8_t family = rtnl_route_get_family(object);
    if (family != AF_INET && family != AF_INET6)
        return std::nullopt;
    if (!address) // the default route has no destination
        address = Address::any(family == AF_INET ? Family::ipv4 : Family::ipv6);
    Route route;
    route.destination = Prefix(*address, raw ? nl_addr_get_prefixlen(raw) : 0);
    route.table = rtnl_route_get_table(object) == RT_TABLE_MAIN ? 0 : rtnl_route_get_table(object);
    route.protocol = rtnl_route_get_protocol(object);
    route.type = rtnl_route_get_type(object) == RTN_UNREACHABLE ? Route::Type::unreachable : Route::Type::unicast;
    route.source = concrete(rtnl_route_get_pref_src(object));
    // The kernel shows an interface even for what leads nowhere (lo, in IPv6).
    if (rtnl_nexthop *hop = rtnl_route_nexthop_n(object, 0); hop && route.type == Route::Type::unicast) {
        route.ifindex = static_cast<unsigned>(rtnl_route_nh_get_ifindex(hop));
        route.gateway = concrete(rtnl_route_nh_get_gateway(hop));
        route.onlink = rtnl_route_nh_get_flags(hop) & RTNH_F_ONLINK;
    }
    return route;
}

RouteObject route_object(const Route &route)
{
    RouteObject made(rtnl_route_alloc());
    const Prefix &destination = route.destination;
    rtnl_route_set_family(made.get(), static_cast<uint8_t>(family_number(destination.family())));
    rtnl_route_set_dst(made.get(), abstract(destination.address(), destination.length()).get());
    rtnl_route_set_table(made.get(), route.table ? route.table : RT_TABLE_MAIN);
    rtnl_route_set_type(made.get(), route.type == Route::Type::unicast ? RTN_UNICAST : RTN_UNREACHABLE);
    if (route.protocol)
        rtnl_route_set_protocol(made.get(), route.protocol);
    if (route.source)
        rtnl_route_set_pref_src(made.get(), abstract(*route.source).get());
    if (route.type == Route::Type::unicast) {
        rtnl_nexthop *hop = rtnl_route_nh_alloc(); // the route's own once it is added to it
        if (route.ifindex)
            rtnl_route_nh_set_ifindex(hop, static_cast<int>(route.ifindex));
        if (route.gateway)
            rtnl_route_nh_set_gateway(hop, abstract(*route.gateway).get());
        if (route.onlink)
            rtnl_route_nh_set_flags(hop, RTNH_F_ONLINK);
        rtnl_route_add_nexthop(made.get(), hop);
    }
    return made;
}

/// Receives one message of a dump.
int on_message(nl_msg *message, void *visit)
{
    (*static_cast<const std::function<void(nl_msg *)> *>(visit))(message);
    return NL_OK;
}

/// Has the messages that a socket receives visited, for as long as this lives.
class Visit {
public:
    Visit(nl_sock *socket, const std::function<void(nl_msg *)> &visit) : socket_(socket)
    {
        nl_socket_modify_cb(socket_, NL_CB_VALID, NL_CB_CUSTOM, on_message,
                            const_cast<void *>(static_cast<const void *>(&visit)));
    }
    Visit(const Visit &) = delete;
    Visit &operator=(const Visit &) = delete;
    ~Visit() { nl_socket_modify_cb(socket_, NL_CB_VALID, NL_CB_DEFAULT, nullptr, nullptr); }

private:
    nl_sock *socket_;
};

/// Receives what libnl made of a message.
void on_object(nl_object *object, void *visit)
{
    (*static_cast<const std::function<void(nl_object *)> *>(visit))(object);
}

} // namespace

std::string mac_text(const Mac &mac)
{
    return fmt::format("{:02x}:{:02x}:{:02x}:{:02x}:{:02x}:{:02x}", mac[0], mac[1], mac[2], mac[3], mac[4], mac[5]);
}

Result<Mac> parse_mac(const std::string &text)
{
    Mac mac{};
    char behind = 0; // six numbers and nothing behind them
    if (std::sscanf(text.c_str(), "%2hhx:%2hhx:%2hhx:%2hhx:%2hhx:%2hhx%c", &mac[0], &mac[1], &mac[2], &mac[3], &mac[4],
                    &mac[5], &behind) != 6)
        return fail("\"{}\" is no MAC", text);
    return mac;
}

void Netlink::Close::operator()(nl_sock *socket) const
{
    nl_socket_free(socket);
}

Result<Netlink> Netlink::open()
{
    Netlink made(nl_socket_alloc());
    if (auto connected = checked(nl_connect(made.socket_.get(), NETLINK_ROUTE), "cannot open a netlink socket");
        !connected)
        return std::unexpected(connected.error());
    return made;
}

/// Asks for all objects of a type (RTM_GETLINK, ...) of both families.
Result<> Netlink::dump(int type, const std::function<void(nl_msg *)> &visit)
{
    const Visit visiting(socket_.get(), visit);
    if (auto sent = checked(nl_rtgen_request(socket_.get(), type, AF_UNSPEC, NLM_F_DUMP), "netlink dump"); !sent)
        return sent;
    return checked(nl_recvmsgs_default(socket_.get()), "netlink dump");
}

Result<> Netlink::dump_objects(int type, const std::function<void(nl_object *)> &visit)
{
    return dump(type, [&](nl_msg *message) {
        nl_msg_parse(message, on_object, const_cast<void *>(static_cast<const void *>(&visit)));
    });
}

Result<> Netlink::send(nl_msg *message)
{
    if (auto sent = checked(nl_send_auto(socket_.get(), message), "netlink"); !sent)
        return sent;
    return checked(nl_wait_for_ack(socket_.get()), "netlink");
}

Result<std::vector<Link>> Netlink::links()
{
    std::vector<Link> all;
    auto dumped = dump_objects(
        RTM_GETLINK, [&](nl_object *object) { all.push_back(link_of(reinterpret_cast<rtnl_link *>(object))); });
    if (!dumped)
        return std::unexpected(dumped.error());
    return all;
}

Result<Link> Netlink::link(const std::string &name)
{
    rtnl_link *raw = nullptr;
    const int code = rtnl_link_get_kernel(socket_.get(), 0, name.c_str(), &raw);
    const LinkObject found(raw);
    if (auto got = checked(code, "cannot find interface {}", name); !got)
        return std::unexpected(got.error());
    return link_of(raw);
}

Result<std::vector<InterfaceAddress>> Netlink::addresses()
{
    std::vector<InterfaceAddress> all;
    auto dumped = dump_objects(RTM_GETADDR, [&](nl_object *object) {
        auto *raw = reinterpret_cast<rtnl_addr *>(object);
        nl_addr *local = rtnl_addr_get_local(raw);
        if (auto address = concrete(local))
            all.push_back({static_cast<unsigned>(rtnl_addr_get_ifindex(raw)), *address, nl_addr_get_prefixlen(local)});
    });
    if (!dumped)
        return std::unexpected(dumped.error());
    return all;
}

Result<std::vector<Neighbour>> Netlink::neighbours()
{
    std::vector<Neighbour> all;
    auto dumped = dump(RTM_GETNEIGH, [&](nl_msg *message) {
        if (auto neighbour = neighbour_of(message))
            all.push_back(*neighbour);
    });
    if (!dumped)
        return std::unexpected(dumped.error());
    return all;
}

Result<std::vector<Route>> Netlink::routes(const std::function<bool(const Route &)> &wanted)
{
    std::vector<Route> all;
    auto dumped = dump_objects(RTM_GETROUTE, [&](nl_object *object) {
        if (auto route = route_of(reinterpret_cast<rtnl_route *>(object)); route && wanted(*route))
            all.push_back(*route);
    });
    if (!dumped)
        return std::unexpected(dumped.error());
    return all;
}

Result<Way> Netlink::way_to(const Address &address)
{
    const Message message(nlmsg_alloc_simple(RTM_GETROUTE, NLM_F_REQUEST));
    rtmsg header{};
    header.rtm_family = static_cast<uint8_t>(family_number(address.family()));
    header.rtm_dst_len = static_cast<uint8_t>(address.size() * 8);
    nlmsg_append(message.get(), &header, sizeof(header), NLMSG_ALIGNTO);
    nla_put(message.get(), RTA_DST, static_cast<int>(address.size()), address.bytes());

    Way way;
    const std::function<void(nl_object *)> read = [&](nl_object *object) {
        auto *raw = reinterpret_cast<rtnl_route *>(object);
        way.local = rtnl_route_get_type(raw) == RTN_LOCAL;
        way.source = concrete(rtnl_route_get_pref_src(raw));
        if (rtnl_nexthop *hop = rtnl_route_nexthop_n(raw, 0)) {
            way.ifindex = static_cast<unsigned>(rtnl_route_nh_get_ifindex(hop));
            way.gateway = concrete(rtnl_route_nh_get_gateway(hop));
        }
    };
    const std::function<void(nl_msg *)> visit = [&](nl_msg *answer) {
        nl_msg_parse(answer, on_object, const_cast<void *>(static_cast<const void *>(&read)));
    };
    const Visit visiting(socket_.get(), visit);
    int code = nl_send_auto(socket_.get(), message.get());
    if (code >= 0)
        code = nl_recvmsgs_default(socket_.get()); // the answer, or an error
    if (code >= 0)
        code = nl_wait_for_ack(socket_.get());
    if (auto found = checked(code, "no way to {}", address.text()); !found)
        return std::unexpected(found.error());
    return way;
}

Result<> Netlink::add_veth(const VethPair &pair)
{
    const LinkObject near(rtnl_link_veth_alloc());
    rtnl_link_set_name(near.get(), pair.name.c_str());
    rtnl_link_set_mtu(near.get(), pair.mtu);
    rtnl_link_set_flags(near.get(), IFF_UP);
    if (pair.master)
        rtnl_link_set_master(near.get(), static_cast<int>(pair.master));

    const LinkObject far(rtnl_link_veth_get_peer(near.get()));
    rtnl_link_set_name(far.get(), pair.peer.c_str());
    rtnl_link_set_mtu(far.get(), pair.mtu); // it cannot come up before the pair is complete
    if (pair.peer_netns >= 0)
        rtnl_link_set_ns_fd(far.get(), pair.peer_netns);
    return checked(rtnl_link_add(socket_.get(), near.get(), create_new), "cannot make the veth pair {}", pair.name);
}

Result<Link> Netlink::add_bridge(const std::string &name, unsigned mtu)
{
    const LinkObject bridge(rtnl_link_bridge_alloc());
    rtnl_link_set_name(bridge.get(), name.c_str());
    rtnl_link_set_mtu(bridge.get(), mtu);
    rtnl_link_set_flags(bridge.get(), IFF_UP);
    if (auto added = checked(rtnl_link_add(socket_.get(), bridge.get(), create_new), "cannot make bridge {}", name);
        !added)
        return std::unexpected(added.error());
    return link(name);
}

Result<> Netlink::change_link(unsigned ifindex, rtnl_link *change)
{
    const LinkObject link(rtnl_link_alloc());
    rtnl_link_set_ifindex(link.get(), static_cast<int>(ifindex));
    return checked(rtnl_link_change(socket_.get(), link.get(), change, 0), "cannot change interface {}", ifindex);
}

Result<> Netlink::set_up(unsigned ifindex)
{
    const LinkObject change(rtnl_link_alloc());
    rtnl_link_set_flags(change.get(), IFF_UP);
    return change_link(ifindex, change.get());
}

Result<> Netlink::set_mtu(unsigned ifindex, unsigned mtu)
{
    const LinkObject change(rtnl_link_alloc());
    rtnl_link_set_mtu(change.get(), mtu);
    return change_link(ifindex, change.get());
}

Result<> Netlink::delete_link(const std::string &name)
{
    const LinkObject link(rtnl_link_alloc());
    rtnl_link_set_name(link.get(), name.c_str());
    return unless_gone(checked(rtnl_link_delete(socket_.get(), link.get()), "cannot delete interface {}", name));
}

Result<> Netlink::add_address(unsigned ifindex, const Address &address, unsigned length)
{
    const AddressObject made(rtnl_addr_alloc());
    rtnl_addr_set_ifindex(made.get(), static_cast<int>(ifindex));
    rtnl_addr_set_local(made.get(), abstract(address, length).get());
    if (address.family() == Family::ipv6)
        rtnl_addr_set_flags(made.get(), IFA_F_NODAD);
    return checked(rtnl_addr_add(socket_.get(), made.get(), create_new), "cannot add address {}", address.text());
}

Result<> Netlink::set_permanent_neighbour(unsigned ifindex, const Address &address, const Mac &mac)
{
    const NeighbourObject made(rtnl_neigh_alloc());
    const AbstractAddress hardware(nl_addr_build(AF_LLC, mac.data(), mac.size()));
    rtnl_neigh_set_ifindex(made.get(), static_cast<int>(ifindex));
    rtnl_neigh_set_dst(made.get(), abstract(address).get());
    rtnl_neigh_set_lladdr(made.get(), hardware.get());
    rtnl_neigh_set_state(made.get(), NUD_PERMANENT);
    return checked(rtnl_neigh_add(socket_.get(), made.get(), NLM_F_CREATE | NLM_F_REPLACE), "cannot add neighbour {}",
                   address.text());
}

Result<> Netlink::set_managed_neighbour(unsigned ifindex, const Address &address)
{
    // libnl 3.7 knows no extended flags.
    const Message message(nlmsg_alloc_simple(RTM_NEWNEIGH, NLM_F_REQUEST | NLM_F_CREATE | NLM_F_REPLACE));
    ndmsg header{};
    header.ndm_family = static_cast<uint8_t>(family_number(address.family()));
    header.ndm_ifindex = static_cast<int>(ifindex);
    header.ndm_state = NUD_NONE;
    nlmsg_append(message.get(), &header, sizeof(header), NLMSG_ALIGNTO);
    nla_put(message.get(), NDA_DST, static_cast<int>(address.size()), address.bytes());
    nla_put_u32(message.get(), NDA_FLAGS_EXT, neighbour_managed);
    nla_put_u8(message.get(), NDA_PROTOCOL, route_protocol);
    if (auto sent = send(message.get()); !sent)
        return fail_within(fmt::format("cannot have neighbour {} kept resolved", address.text()), sent.error());
    return {};
}

Result<> Netlink::delete_neighbour(unsigned ifindex, const Address &address)
{
    const NeighbourObject made(rtnl_neigh_alloc());
    rtnl_neigh_set_ifindex(made.get(), static_cast<int>(ifindex));
    rtnl_neigh_set_dst(made.get(), abstract(address).get());
    return unless_gone(
        checked(rtnl_neigh_delete(socket_.get(), made.get(), 0), "cannot delete neighbour {}", address.text()));
}

Result<> Netlink::set_route(const Route &route)
{
    const RouteObject made = route_object(route);
    return checked(rtnl_route_add(socket_.get(), made.get(), NLM_F_CREATE | NLM_F_REPLACE), "cannot set route {}",
                   route.destination.text());
}

Result<> Netlink::delete_route(const Route &route)
{
    const RouteObject made = route_object(route);
    return unless_gone(
        checked(rtnl_route_delete(socket_.get(), made.get(), 0), "cannot delete route {}", route.destination.text()));
}

Result<> Netlink::add_rule(const Rule &rule)
{
    const RuleObject made(rtnl_rule_alloc());
    rtnl_rule_set_family(made.get(), family_number(rule.family));
    rtnl_rule_set_iif(made.get(), rule.in_interface.c_str());
    rtnl_rule_set_table(made.get(), rule.table);
    rtnl_rule_set_action(made.get(), FR_ACT_TO_TBL);
    return checked(rtnl_rule_add(socket_.get(), made.get(), create_new), "cannot add a rule for {}", rule.in_interface);
}

void NetlinkMonitor::Close::operator()(nl_sock *socket) const
{
    nl_socket_free(socket);
}

namespace {

int on_event(nl_msg *message, void *argument)
{
    const auto &events = *static_cast<const NetlinkMonitor::Events *>(argument);
    const int type = nlmsg_hdr(message)->nlmsg_type;
    if (type != RTM_NEWNEIGH && type != RTM_DELNEIGH)
        events.changed();
    else if (auto neighbour = neighbour_of(message))
        events.neighbour(*neighbour);
    return NL_OK;
}

} // namespace

NetlinkMonitor::NetlinkMonitor(nl_sock *socket, Events events)
    : socket_(socket), events_(std::make_unique<Events>(std::move(events)))
{
}

Result<NetlinkMonitor> NetlinkMonitor::open(Events events)
{
    NetlinkMonitor made(nl_socket_alloc(), std::move(events));
    nl_sock *socket = made.socket_.get();
    nl_socket_disable_seq_check(socket); // events answer no question
    nl_socket_modify_cb(socket, NL_CB_VALID, NL_CB_CUSTOM, on_event, made.events_.get());
    if (auto connected = checked(nl_connect(socket, NETLINK_ROUTE), "cannot open a netlink socket"); !connected)
        return std::unexpected(connected.error());
    nl_socket_set_nonblocking(socket);
    nl_socket_set_buffer_size(socket, 4 << 20, 0);
    const int code = nl_socket_add_memberships(socket, RTNLGRP_LINK, RTNLGRP_IPV4_IFADDR, RTNLGRP_IPV6_IFADDR,
                                               RTNLGRP_IPV4_ROUTE, RTNLGRP_IPV6_ROUTE, RTNLGRP_NEIGH, 0);
    if (auto joined = checked(code, "cannot subscribe to netlink events"); !joined)
        return std::unexpected(joined.error());
    return made;
}

int NetlinkMonitor::fd() const
{
    return nl_socket_get_fd(socket_.get());
}

void NetlinkMonitor::read()
{
    while (true) {
        const int code = nl_recvmsgs_default(socket_.get());
        if (code == -NLE_AGAIN)
            return;
        if (code < 0) { // the kernel had more to tell than the socket could hold: ask for everything again
            events_->changed();
            if (code != -NLE_NOMEM)
                return;
        }
    }
}

Result<NetnsVisit> NetnsVisit::enter(int netns)
{
    Fd home(::open("/proc/thread-self/ns/net", O_RDONLY | O_CLOEXEC));
    if (!home || ::setns(netns, CLONE_NEWNET) != 0)
        return fail_errno("cannot enter a network namespace");
    return NetnsVisit(std::move(home));
}

NetnsVisit::~NetnsVisit()
{
    // A thread that stayed in the wrong namespace would go on to change the wrong machine.
    if (home_ && ::setns(home_.get(), CLONE_NEWNET) != 0)
        std::abort();
}

namespace {

/// In a container /proc/sys is read-only, so that charts/thruway mounts the node's beside it. Both show the namespace
/// of whoever looks.
const std::string &net_sysctls()
{
    static const std::string mounted = "/host/proc/sys/net/";
    static const std::string own = "/proc/sys/net/";
    static const bool in_container = ::access(mounted.c_str(), F_OK) == 0;
    return in_container ? mounted : own;
}

} // namespace

Result<> set_net_sysctl(const std::string &name, const std::string &value)
{
    if (auto now = get_net_sysctl(name); now && *now == value)
        return {};
    return write_file(net_sysctls() + name, value);
}

Result<std::string> get_net_sysctl(const std::string &name)
{
    auto value = read_file(net_sysctls() + name);
    while (value && value->ends_with('\n'))
        value->pop_back();
    return value;
}

} // namespace thruway
