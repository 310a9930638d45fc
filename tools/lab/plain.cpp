// SPDX-License-Identifier: Apache-2.0
#include "tools/lab/plain.h"

#include "tools/lab/namespaces.h"

#include <fcntl.h>

namespace thruway::lab {
namespace {

constexpr unsigned first_pod = 2; // .0 and .1 are left out as is custom
constexpr unsigned last_pod = 254;
constexpr const char *pod_interface = "eth0";

std::string host_interface(const Pod &pod)
{
    return "veth" + pod.container.substr(0, 8);
}

Address gateway_of(Family family)
{
    return literal_address(family == Family::ipv4 ? "169.254.1.1" : "fe80::1");
}

Prefix host_prefix(const Address &address)
{
    return {address, static_cast<unsigned>(address.size() * 8)};
}

/// Exists as long as a pod has the address. The IPv4 one stands for both, as they go in pairs.
std::filesystem::path address_file(const Lab &lab, const std::string &node, const Address &address)
{
    return lab.folder().addresses(node) / address.text();
}

/// The pod's end: its address alone on the link, everything else by the gateway, which is the node's end of the pair.
Result<> configure_pod(Netlink &netlink, const Link &link, const Address &address, const Mac &node_mac)
{
    const Address gateway = gateway_of(address.family());
    if (auto added = netlink.add_address(link.index, address, host_prefix(address).length()); !added)
        return added;
    if (auto added = netlink.set_permanent_neighbour(link.index, gateway, node_mac); !added)
        return added;
    return netlink.set_route({.destination = Prefix(Address::any(address.family()), 0),
                              .ifindex = link.index,
                              .gateway = gateway,
                              .onlink = true});
}

} // namespace

Result<std::vector<Address>> plain_reserve(const Lab &lab, const std::string &node)
{
    auto plan = lab.node(node);
    if (!plan)
        return std::unexpected(plan.error());
    for (unsigned number = first_pod; number <= last_pod; number++) {
        const Address address = plan->pod_cidrs[0].address().plus(number);
        const Fd claim(::open(address_file(lab, node, address).c_str(), O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0644));
        if (claim)
            return std::vector{address, plan->pod_cidrs[1].address().plus(number)};
        if (errno != EEXIST)
            return fail_errno("cannot reserve address {}", address.text());
    }
    return fail("node {} has no address left for a pod", node);
}

Result<> plain_attach(const Lab &lab, const Pod &pod)
{
    auto netns = lab.keeper().netns(pod.id());
    if (!netns)
        return std::unexpected(netns.error());
    auto node = netlink_in(lab.keeper(), pod.node);
    if (!node)
        return std::unexpected(node.error());
    auto inside = netlink_in(lab.keeper(), pod.id());
    if (!inside)
        return std::unexpected(inside.error());

    if (auto made = node->add_veth(
            {.name = host_interface(pod), .peer = pod_interface, .peer_netns = netns->get(), .mtu = lab.options().mtu});
        !made)
        return made;
    auto near = node->link(host_interface(pod));
    if (!near)
        return std::unexpected(near.error());
    auto far = inside->link(pod_interface);
    if (!far)
        return std::unexpected(far.error());
    if (auto up = inside->set_up(far->index); !up)
        return up;
    for (const Address &address : pod.addresses) {
        if (auto configured = configure_pod(*inside, *far, address, near->mac); !configured)
            return configured;
        if (auto added = node->set_route({.destination = host_prefix(address), .ifindex = near->index}); !added)
            return added;
    }
    return {};
}

Result<> plain_detach(const Lab &lab, const Pod &pod)
{
    auto node = netlink_in(lab.keeper(), pod.node);
    if (!node)
        return std::unexpected(node.error());
    if (node->link(host_interface(pod))) {
        if (auto deleted = node->delete_link(host_interface(pod)); !deleted)
            return deleted;
    }
    // A pod whose maker was killed early has none.
    if (!pod.addresses.empty() && ::unlink(address_file(lab, pod.node, pod.addresses.front()).c_str()) != 0)
        return fail_errno("cannot give back address {}", pod.addresses.front().text());
    return {};
}

} // namespace thruway::lab
