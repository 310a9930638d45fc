// SPDX-License-Identifier: Apache-2.0
#include "tools/bench/packet_node.h"

#include "agent/node/netlink.h"

#include <algorithm>
#include <arpa/inet.h>
#include <bpf/bpf.h>
#include <cstdlib>
#include <sys/mount.h>

namespace thruway::bench {
namespace {

constexpr uint32_t endpoints_max = 64;
constexpr uint32_t clients = 8; ///< addresses of pods
constexpr uint32_t cluster_ips = 8;
constexpr uint32_t backends = 128; ///< of the NodePort: each has room for so many clients as there are ports for SNAT
constexpr uint32_t outside = 250;
constexpr uint16_t port = 80;
constexpr uint16_t node_port_number = 30'080;
constexpr uint16_t backend_port = 8'080;
constexpr uint32_t first_client_port = 1'024;
constexpr MacBytes neighbour{0x02, 0, 0, 0, 0, 0x02};

Address v4(uint32_t a, uint32_t b, uint32_t c, uint32_t d)
{
    const std::array<uint8_t, 4> bytes{static_cast<uint8_t>(a), static_cast<uint8_t>(b), static_cast<uint8_t>(c),
                                       static_cast<uint8_t>(d)};
    return Address::from_bytes(bytes.data(), Family::ipv4);
}

Address node_address()
{
    return v4(172, 20, 0, 11);
}

Address backend(uint32_t number)
{
    return v4(10, 244, 2, 1 + number);
}

/// The first failure of several steps.
Result<> all(std::initializer_list<Result<>> steps)
{
    for (const Result<> &step : steps)
        if (!step)
            return step;
    return {};
}

tw_bench_packet packet(const Address &client, uint32_t client_port, const Address &frontend, uint16_t dialled)
{
    return {client.raw().word[3], frontend.raw().word[3], htons(static_cast<uint16_t>(first_client_port + client_port)),
            htons(dialled), 0};
}

/// Addresses of load balancers.
Address one_range()
{
    return v4(203, 0, 113, 1);
}

Address many_ranges()
{
    return v4(203, 0, 113, 2);
}

/// ClusterIPs beside those of `cluster_ips`.
Address many_endpoints()
{
    return v4(10, 96, 1, 1);
}

Address affinity()
{
    return v4(10, 96, 1, 2);
}

tw_bench_packet from_outside(uint32_t number, const Address &frontend)
{
    return packet(v4(198, 51, 100, 1 + number % outside), number / outside, frontend, port);
}

tw_bench_packet from_pod(uint32_t number, const Address &frontend)
{
    return packet(v4(10, 244, 1, 2 + number % clients), number / clients, frontend, port);
}

ServicePlan service(const std::string &name, const Address &address, uint16_t dialled)
{
    ServicePlan plan;
    plan.key = {{Symbol("bench"), name}, Symbol("port"), Protocol::tcp, Family::ipv4};
    plan.frontends.push_back(
        {{address, dialled, Protocol::tcp}, address.is_unspecified() ? TW_FRONTEND_NODE_PORT : TW_FRONTEND_CLUSTER});
    return plan;
}

} // namespace

tw_bench_packet PacketNode::to_pod(uint32_t number)
{
    return packet(v4(10, 244, 1, 2 + number % clients), number / clients / backends,
                  backend(number / clients % backends), backend_port);
}

tw_bench_packet PacketNode::to_cluster_ip(uint32_t number)
{
    return packet(v4(10, 244, 1, 2 + number % clients), number / clients / cluster_ips,
                  v4(10, 96, 0, 1 + number / clients % cluster_ips), port);
}

tw_bench_packet PacketNode::to_node_port(uint32_t number)
{
    return packet(v4(198, 51, 100, 1 + number % outside), number / outside, node_address(), node_port_number);
}

tw_bench_packet PacketNode::to_one_range(uint32_t number)
{
    return from_outside(number, one_range());
}

tw_bench_packet PacketNode::to_many_ranges(uint32_t number)
{
    return from_outside(number, many_ranges());
}

tw_bench_packet PacketNode::to_many_endpoints(uint32_t number)
{
    return from_pod(number, many_endpoints());
}

tw_bench_packet PacketNode::to_affinity(uint32_t number)
{
    return from_pod(number, affinity());
}

Result<std::unique_ptr<PacketNode>> PacketNode::up(uint32_t flow_rows)
{
    // The constructor is private: make_unique cannot call it.
    std::unique_ptr<PacketNode> node(new PacketNode); // NOLINT(cppcoreguidelines-owning-memory)
    if (auto mounted = node->mount_bpffs(); !mounted)
        return std::unexpected(mounted.error());
    if (auto loaded = node->load(flow_rows); !loaded)
        return std::unexpected(loaded.error());
    if (auto made = node->make_links(); !made)
        return std::unexpected(made.error());
    if (auto filled = node->fill_tables(); !filled)
        return std::unexpected(filled.error());
    return node;
}

PacketNode::~PacketNode()
{
    if (auto netlink = Netlink::open())
        for (const auto &[name, index] : {std::pair("uplink", uplink_), std::pair("pod", pod_)})
            if (index > 0)
                std::ignore = netlink->delete_link(name);
    if (bpffs_.empty())
        return;
    std::error_code error;
    ::umount2(bpffs_.c_str(), MNT_DETACH);
    std::filesystem::remove(bpffs_, error);
}

Result<> PacketNode::mount_bpffs()
{
    std::string folder = std::filesystem::temp_directory_path() / "thruway-bench.XXXXXX";
    if (!::mkdtemp(folder.data()))
        return fail_errno("cannot create {}", folder);
    bpffs_ = folder;
    if (::mount("bpf", folder.c_str(), "bpf", 0, nullptr) != 0)
        return fail_errno("cannot mount a bpffs at {}", folder);
    return {};
}

Result<> PacketNode::load(uint32_t flow_rows)
{
    DatapathOptions options;
    options.bpffs = bpffs_ / "thruway";
    options.sizes.endpoints = endpoints_max;
    options.sizes.flows = rows_ = flow_rows;
    options.timeouts.adopt = 0; // a node that has long been ours
    auto datapath = Datapath::open(options);
    if (!datapath)
        return std::unexpected(datapath.error());
    datapath_ = std::move(*datapath);
    auto arrays = Arrays::of(maps(), true);
    if (!arrays)
        return std::unexpected(arrays.error());
    arrays_ = std::move(*arrays);
    auto grace = GracePeriod::start();
    if (!grace)
        return std::unexpected(grace.error());
    grace_ = std::move(*grace);
    auto nexthops = NextHopTables::adopt(maps(), arrays_, *grace_, endpoints_max);
    if (!nexthops)
        return std::unexpected(nexthops.error());
    nexthops_ = std::move(*nexthops);
    auto services = ServiceTables::adopt(maps(), arrays_, *grace_);
    if (!services)
        return std::unexpected(services.error());
    services_ = std::move(*services);
    return {};
}

Result<> PacketNode::make_links()
{
    auto netlink = Netlink::open();
    if (!netlink)
        return std::unexpected(netlink.error());
    for (const auto &[name, index] : {std::pair("uplink", &uplink_), std::pair("pod", &pod_)}) {
        if (auto added = netlink->add_veth({.name = name, .peer = fmt::format("{}-peer", name)}); !added)
            return added;
        auto peer = netlink->link(fmt::format("{}-peer", name));
        if (!peer)
            return std::unexpected(peer.error());
        if (auto up = netlink->set_up(peer->index); !up)
            return up;
        auto link = netlink->link(name);
        if (!link)
            return std::unexpected(link.error());
        *index = link->index;
    }
    const Address gateway = v4(172, 20, 0, 1);
    return all(
        {netlink->add_address(uplink_, node_address(), 24),
         netlink->set_permanent_neighbour(uplink_, gateway, neighbour),
         netlink->set_route({.destination = *Prefix::parse("0.0.0.0/0"), .ifindex = uplink_, .gateway = gateway}),
         set_net_sysctl("ipv4/conf/all/forwarding", "1")});
}

Result<> PacketNode::fill_tables()
{
    NextHop hop;
    hop.ifindex = uplink_;
    hop.mtu = 1500;
    hop.source = {node_address(), std::nullopt};
    NextHop resolved = hop;
    resolved.to = neighbour;
    resolved.gateway = v4(172, 20, 0, 1);
    NextHop pod = hop;
    pod.ifindex = pod_;
    pod.to = neighbour;

    auto set =
        all({nexthops_->set_uplink(hop), nexthops_->set_gateway(*resolved.gateway, resolved),
             nexthops_->set_node_addresses({node_address()}), nexthops_->set_node_port_addresses({node_address()}),
             nexthops_->set_node(*Prefix::parse("10.244.1.0/24"), std::nullopt),
             nexthops_->set_node(*Prefix::parse("10.244.2.0/24"), resolved)});
    for (uint32_t client = 0; set && client < clients; client++)
        set = nexthops_->set_endpoint({v4(10, 244, 1, 2 + client)}, pod);
    return set ? add_services() : set;
}

Result<> PacketNode::add_services()
{
    ServiceChanges changes;
    for (uint32_t number = 0; number < cluster_ips; number++) {
        ServicePlan plan = service(fmt::format("cluster-{}", number), v4(10, 96, 0, 1 + number), port);
        plan.backends.push_back({backend(number), backend_port});
        changes.upserts.push_back(std::move(plan));
    }
    ServicePlan plan = service("node-port", Address::any(Family::ipv4), node_port_number);
    for (uint32_t number = 0; number < backends; number++)
        plan.backends.push_back({backend(number), backend_port});
    changes.upserts.push_back(std::move(plan));

    for (const auto &[address, ranges] : {std::pair(one_range(), 1U), {many_ranges(), 1000U}}) {
        ServicePlan ranged = service(fmt::format("ranges-{}", ranges), address, port);
        ranged.frontends[0].kind = TW_FRONTEND_BALANCER;
        for (uint32_t number = 0; number < 8; number++) // each has room for so many clients as there are ports for SNAT
            ranged.backends.push_back({backend(number), backend_port});
        ranged.filtered = true;
        ranged.source_ranges.push_back(*Prefix::parse("198.51.100.0/24"));
        for (uint32_t number = 1; number < ranges; number++)
            ranged.source_ranges.emplace_back(v4(192, number / 256, number % 256, 0), 24);
        std::ranges::sort(ranged.source_ranges);
        changes.upserts.push_back(std::move(ranged));
    }
    ServicePlan wide = service("many-endpoints", many_endpoints(), port);
    for (uint32_t number = 0; number < 5000; number++)
        wide.backends.push_back({backend(number % 250), static_cast<uint16_t>(backend_port + number / 250)});
    std::ranges::sort(wide.backends);
    changes.upserts.push_back(std::move(wide));
    ServicePlan sticky = service("affinity", affinity(), port);
    sticky.backends.push_back({backend(0), backend_port});
    sticky.affinity = 10'800;
    changes.upserts.push_back(std::move(sticky));
    for (const std::string &line : services_->apply(std::move(changes)))
        return fail("{}", line);
    datapath_->commit(); // nothing is to be attached
    return {};
}

Result<Fd> PacketNode::program(const std::string &name) const
{
    Fd fd(bpf_obj_get((bpffs_ / "thruway/programs" / name).c_str()));
    if (!fd)
        return fail_errno("there is no program {}", name);
    return fd;
}

} // namespace thruway::bench
