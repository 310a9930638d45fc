// SPDX-License-Identifier: Apache-2.0
#include "tests/datapath/world.h"

#include <algorithm>
#include <bpf/bpf.h>
#include <bpf/libbpf.h>
#include <catch2/catch_test_macros.hpp>
#include <linux/bpf.h>
#include <stdexcept>

namespace thruway::test {
namespace {

/// The value, or a test that ends.
template<typename T>
T must(Result<T> result)
{
    if (!result)
        throw std::runtime_error(result.error().text());
    if constexpr (!std::is_void_v<T>)
        return std::move(*result);
}

constexpr uint32_t first_row = 0;

std::pair<Address, uint16_t> split(const std::string &text)
{
    const auto colon = text.rfind(':');
    std::string host = text.substr(0, colon);
    if (host.starts_with('['))
        host = host.substr(1, host.size() - 2);
    return {address(host), static_cast<uint16_t>(std::stoul(text.substr(colon + 1)))};
}

} // namespace

Address address(const std::string &text)
{
    return must(Address::parse(text));
}

Address host(const std::string &text)
{
    return address(text.starts_with('[') ? text.substr(1, text.size() - 2) : text);
}

DatapathOptions World::options()
{
    DatapathOptions options;
    options.bpffs = pins;
    options.sizes = {.services = 256,
                     .frontends = 512,
                     .backends = 1024,
                     .slots = 4096,
                     .endpoints = 64,
                     .nexthops = 256,
                     .nodes = 64,
                     .node_addresses = 16,
                     .flows = 4096};
    options.timeouts.adopt = 0;
    return options;
}

World::World(const std::function<void(DatapathOptions &)> &adjust)
{
    DatapathOptions wanted = options();
    if (adjust)
        adjust(wanted);
    datapath = std::make_unique<Datapath>(must(Datapath::open(wanted)));
    datapath->commit(); // the next test's agent finds these programs and loads none
    arrays = must(Arrays::of(datapath->maps(), true));
    grace = must(GracePeriod::start());
    services = std::make_unique<ServiceTables>(must(ServiceTables::adopt(datapath->maps(), arrays, *grace)));
    nexthops = std::make_unique<NextHopTables>(
        must(NextHopTables::adopt(datapath->maps(), arrays, *grace, options().sizes.endpoints)));

    gc = std::make_unique<Gc>(*datapath, arrays);

    Netlink netlink = must(Netlink::open());
    std::ignore = netlink.delete_link("up0");
    must(netlink.add_veth({.name = "up0", .peer = "up0peer"}));
    must(netlink.set_up(must(netlink.link("up0peer")).index));
    must(netlink.set_up(must(netlink.link("lo")).index));
    uplink = must(netlink.link("up0"));
    must(netlink.add_address(uplink.index, address("172.20.0.11"), 24));
    must(netlink.add_address(uplink.index, address("fd20::11"), 64));
    for (const char *any : {"0.0.0.0/0", "::/0"}) {
        const Prefix all = *Prefix::parse(any);
        const Address gateway = address(all.family() == Family::ipv4 ? "172.20.0.1" : "fd20::1");
        must(netlink.set_permanent_neighbour(uplink.index, gateway, neighbour_mac));
        must(netlink.set_route({.destination = all, .ifindex = uplink.index, .gateway = gateway}));
        must(nexthops->set_gateway(gateway, to_neighbour(gateway.text())));
    }
    for (const char *family : {"ipv4", "ipv6"})
        must(set_net_sysctl(fmt::format("{}/conf/all/forwarding", family), "1"));

    NextHop hop = to_neighbour("172.20.0.1");
    hop.to.reset();
    hop.gateway.reset();
    must(nexthops->set_uplink(hop));
    must(nexthops->set_node_addresses({address("172.20.0.11"), address("fd20::11")}));
    must(nexthops->set_node_port_addresses({address("172.20.0.11"), address("fd20::11")}));
    must(nexthops->set_node(*Prefix::parse("10.244.1.0/24"), std::nullopt));
    must(nexthops->set_node(*Prefix::parse("fd00:10:244:1::/64"), std::nullopt));
    must(nexthops->set_node(*Prefix::parse("10.244.2.0/24"), to_neighbour("172.20.0.12")));
    must(nexthops->set_node(*Prefix::parse("fd00:10:244:2::/64"), to_neighbour("fd20::12")));
}

World::~World()
{
    services.reset();
    nexthops.reset();
    clear();
    if (auto netlink = Netlink::open()) {
        std::ignore = netlink->delete_link("up0");
        for (const auto &pod : pods_)
            std::ignore = netlink->delete_link(pod->name);
    }
}

/// Empties the maps for the next test.
void World::clear()
{
    const Maps &maps = datapath->maps();
    for (const Map *map : {&maps.frontends, &maps.vips, &maps.source_ranges, &maps.affinity, &maps.endpoints,
                           &maps.node_addresses, &maps.nodes, &maps.gateways, &maps.ifindexes}) {
        std::vector<std::vector<char>> keys;
        std::ignore = map->each_raw([&](const void *key, const void *) {
            const char *bytes = static_cast<const char *>(key);
            keys.emplace_back(bytes, bytes + map->key_size());
        });
        for (const auto &key : keys)
            bpf_map_delete_elem(map->fd(), key.data());
    }
    for (const Map *map : {&maps.services, &maps.slots, &maps.backends, &maps.totals, &maps.addresses, &maps.nexthops,
                           &maps.generations, &maps.flows4, &maps.flows6, &maps.fragments}) {
        const Mapping memory = must(Mapping::of(*map, true));
        std::memset(memory.data(), 0, memory.size());
    }
    const std::vector<tw_count> zero(static_cast<size_t>(libbpf_num_possible_cpus()));
    for (const Map *map : {&maps.drops, &maps.flow_events})
        for (uint32_t index = 0; index < map->capacity(); index++)
            bpf_map_update_elem(map->fd(), &index, zero.data(), BPF_ANY);
    const std::vector<tw_snat> none(zero.size());
    bpf_map_update_elem(maps.snat.fd(), &first_row, none.data(), BPF_ANY);
}

NextHop World::to_neighbour(const std::string &gateway) const
{
    NextHop hop;
    hop.ifindex = uplink.index;
    hop.mtu = 1500;
    hop.from = uplink.mac;
    hop.to = neighbour_mac;
    hop.gateway = address(gateway);
    hop.source = {address("172.20.0.11"), address("fd20::11")};
    return hop;
}

const PodSpec &World::pod(unsigned number, uint16_t mtu)
{
    auto spec = std::make_unique<PodSpec>();
    spec->name = fmt::format("pod{}", number);
    spec->addresses = {address(fmt::format("10.244.1.{}", number)), address(fmt::format("fd00:10:244:1::{}", number))};
    Netlink netlink = must(Netlink::open());
    std::ignore = netlink.delete_link(spec->name);
    must(netlink.add_veth({.name = spec->name, .peer = spec->name + "peer"}));
    const Link link = must(netlink.link(spec->name));
    spec->ifindex = link.index;
    spec->host_mac = link.mac;
    spec->mac = {0x02, 0xaa, 0, 0, 0, static_cast<uint8_t>(number)};

    NextHop hop;
    hop.ifindex = spec->ifindex;
    hop.mtu = mtu;
    hop.from = spec->host_mac;
    hop.to = spec->mac;
    hop.source = {address("172.20.0.11"), address("fd20::11")};
    must(nexthops->set_endpoint(spec->addresses, hop));
    return *pods_.emplace_back(std::move(spec));
}

void World::remove_pod(const PodSpec &pod)
{
    nexthops->remove_endpoint(pod.addresses);
}

void World::service(const std::string &name, const std::vector<std::string> &frontends,
                    const std::vector<std::string> &backends, Protocol protocol,
                    const std::function<void(ServicePlan &)> &adjust)
{
    ServicePlan plan;
    plan.key = {{Symbol("test"), name}, Symbol("port"), protocol, Family::ipv4};
    for (const std::string &text : frontends) {
        if (text.starts_with(':') || text.starts_with("[]:")) {
            const Family family = text.starts_with(':') ? Family::ipv4 : Family::ipv6;
            const auto port = static_cast<uint16_t>(std::stoul(text.substr(text.rfind(':') + 1)));
            plan.frontends.push_back({{Address::any(family), port, protocol}, TW_FRONTEND_NODE_PORT});
        } else {
            const auto [host, port] = split(text);
            plan.frontends.push_back({{host, port, protocol}});
        }
        plan.key.family = plan.frontends.back().address.family();
    }
    for (const std::string &text : backends) {
        const auto [host, port] = split(text);
        plan.backends.push_back({host, port});
    }
    std::ranges::sort(plan.backends);
    plan.serving = plan.backends;
    if (adjust)
        adjust(plan);
    for (const std::string &line : services->apply({{plan}, {}}))
        throw std::runtime_error(line);
}

void World::remove_service(const std::string &name)
{
    ServiceChanges changes;
    services->each([&](const ServiceKey &key, uint32_t) {
        if (key.service.name == name)
            changes.deletes.push_back(key);
    });
    services->apply(changes);
}

namespace {

/// Runs a program once over the packet. The context, of whichever kind, is what the program has made of it afterwards.
template<typename Context>
std::pair<int, Bytes> test_run(const Fd &program, const Bytes &packet, Context &context, uint32_t flags = 0)
{
    Bytes out(packet.size() + 256);
    Context context_out{};
    bpf_test_run_opts options{};

    options.sz = sizeof(options);
    options.data_in = packet.data();
    options.data_size_in = static_cast<uint32_t>(packet.size());
    options.data_out = out.data();
    options.data_size_out = static_cast<uint32_t>(out.size());
    options.ctx_in = &context;
    options.ctx_size_in = sizeof(context);
    options.ctx_out = &context_out;
    options.ctx_size_out = sizeof(context_out);
    options.flags = flags;
    const int error = bpf_prog_test_run_opts(program.get(), &options);
    if (error == -EINVAL && flags) // before Linux 6.11
        SKIP("this kernel's test run cannot sum packets");
    if (error != 0)
        throw std::runtime_error(fmt::format("test run failed: {}", error));
    out.resize(options.data_size_out);
    context = context_out;
    return {static_cast<int>(options.retval), std::move(out)};
}

} // namespace

Outcome World::run(const std::string &program, unsigned ifindex, const Bytes &packet, uint32_t mark, unsigned segment)
{
    return run(World::program(program), ifindex, packet, mark, segment);
}

Fd World::program(const std::string &name)
{
    return Fd(bpf_obj_get(fmt::format("{}/programs/{}", pins, name).c_str()));
}

void World::walk_flows()
{
    while (!must(gc->step(false))) {
    }
}

void World::age_affinity(uint64_t seconds)
{
    const Map &map = datapath->maps().affinity;
    std::vector<std::pair<tw_client, tw_affinity>> all;
    must(map.each<tw_client, tw_affinity>(
        [&](const tw_client &client, const tw_affinity &last) { all.emplace_back(client, last); }));
    for (auto &[client, last] : all) {
        last.seconds -= seconds; // goes round, as the program's subtraction does
        must(map.erase(client));
        must(map.insert(client, last));
    }
}

Outcome World::run(const Fd &program, unsigned ifindex, const Bytes &packet, uint32_t mark, unsigned segment)
{
    __sk_buff context{};
    context.ifindex = ifindex;
    context.mark = mark;
    context.gso_size = segment;
    auto [verdict, out] = test_run(program, packet, context);
    return {verdict, {std::move(out)}, context.mark};
}

Outcome World::run_summed(const std::string &program, unsigned ifindex, const Bytes &packet)
{
    __sk_buff context{};
    context.ifindex = ifindex;
    auto [verdict, out] = test_run(World::program(program), packet, context, BPF_F_TEST_SKB_CHECKSUM_COMPLETE);
    return {verdict, {std::move(out)}, context.mark};
}

Walk World::dry_run(HookIndex hook, unsigned ifindex, const Packet &packet)
{
    // Loaded for the first test that asks, and then only if other programs run by now.
    static std::optional<DryRun> dry;
    const auto running = std::to_array(must(MappedArray<tw_layout>::of(datapath->maps().layout, false))[0].programs);
    static auto dry_of = running;
    if (!dry || dry_of != running) {
        dry = must(DryRun::load(pins, datapath->maps()));
        dry_of = running;
    }
    return must(dry->run(hook, ifindex, packet.build()));
}

tw_snat World::snat() const
{
    std::vector<tw_snat> counts(static_cast<size_t>(libbpf_num_possible_cpus()));
    bpf_map_lookup_elem(datapath->maps().snat.fd(), &first_row, counts.data());
    tw_snat total{};
    for (const tw_snat &count : counts) {
        total.ports += count.ports;
        total.collisions += count.collisions;
        total.exhausted += count.exhausted;
    }
    return total;
}

Outcome World::run_xdp(unsigned ifindex, const Bytes &packet)
{
    xdp_md context{};
    context.data_end = static_cast<uint32_t>(packet.size());
    context.ingress_ifindex = ifindex;
    auto [verdict, out] = test_run(program("xdp_net"), packet, context);
    return {verdict, {std::move(out)}, 0};
}

uint64_t World::drops(tw_drop reason, tw_hook hook) const
{
    const auto cpus = static_cast<size_t>(libbpf_num_possible_cpus());
    std::vector<tw_count> counts(cpus);
    const uint32_t index = static_cast<uint32_t>(reason) * TW_HOOKS + hook;
    uint64_t packets = 0;
    bpf_map_lookup_elem(datapath->maps().drops.fd(), &index, counts.data());
    for (const tw_count &count : counts)
        packets += count.packets;
    return packets;
}

uint64_t World::drops(tw_drop reason) const
{
    uint64_t packets = 0;
    for (uint32_t hook = 0; hook < TW_HOOKS; hook++)
        packets += drops(reason, static_cast<tw_hook>(hook));
    return packets;
}

namespace {

template<typename Row, typename Buckets>
std::vector<Row> used_rows(const Buckets &buckets)
{
    std::vector<Row> rows;
    for (uint32_t i = 0; i < buckets.size(); i++)
        for (const Row &row : buckets[i].row)
            if ((row.head.word & TW_FLOW_STATE) != TW_FLOW_FREE)
                rows.push_back(row);
    return rows;
}

} // namespace

std::vector<tw_flow4> World::rows4() const
{
    return used_rows<tw_flow4>(arrays.flows4);
}

std::vector<tw_flow6> World::rows6() const
{
    return used_rows<tw_flow6>(arrays.flows6);
}

Packet World::on_wire(const Packet &packet) const
{
    return packet.with_macs(uplink.mac, neighbour_mac).with_hops(static_cast<uint8_t>(packet.hops - 1));
}

Packet World::in_pod(const Packet &packet, const PodSpec &pod)
{
    return packet.with_macs(pod.host_mac, pod.mac).with_hops(static_cast<uint8_t>(packet.hops - 1));
}

} // namespace thruway::test
