// SPDX-License-Identifier: Apache-2.0
#include "tests/model/service_subject.h"

#include "agent/file/manifest.h"
#include "tests/model/manifest.h"

#include <algorithm>
#include <bpf/bpf.h>
#include <bpf/libbpf.h>
#include <cerrno>
#include <cstring>
#include <sstream>
#include <stdexcept>
#include <type_traits>

namespace thruway::reference {
namespace {

using test::Bytes;
using test::Outcome;
using test::verdict_drop;
using test::verdict_next;
using test::verdict_redirect;

constexpr const char *node_name = "here";
constexpr const char *node4 = "172.20.0.11";
constexpr const char *node6 = "fd20::11";
constexpr uint16_t first_port = 1024;
constexpr uint16_t last_port = 40'000; ///< below those for SNAT
constexpr test::MacBytes host_mac{0x02, 0x7e, 0, 0, 0, 0x01};

bool is_v6(const std::string &address)
{
    return address.find(':') != std::string::npos;
}

/// "10.0.0.1:80", as test::Packet is written.
std::string end(const std::string &address, int port)
{
    return is_v6(address) ? fmt::format("[{}]:{}", address, port) : fmt::format("{}:{}", address, port);
}

/// An end of a frame's packet.
Backend end_of(const Bytes &frame, bool destination)
{
    const bool v6 = frame.at(12) == 0x86;
    const size_t size = v6 ? 16 : 4;
    const size_t address = (v6 ? 14 + 8 : 14 + 12) + (destination ? size : 0);
    const size_t port = (v6 ? 14 + 40 : 14 + 20) + (destination ? 2 : 0);
    return {Address::from_bytes(&frame.at(address), v6 ? Family::ipv6 : Family::ipv4).text(),
            frame.at(port) << 8 | frame.at(port + 1)};
}

bool in_pod_range_of_node(const std::string &address)
{
    return address.starts_with("10.244.1.") || address.starts_with("fd00:10:244:1::");
}

std::string hex(const test::Frame &frame)
{
    std::ostringstream out;
    out << frame;
    return out.str();
}

std::string difference(const Outcome &out, const test::Packet &expected)
{
    return fmt::format("the frame is {}, should be {}", hex(out.frame), hex(test::frame(expected)));
}

/// Nothing, if the packet has come out with these addresses and ports.
std::string compare_ends(const Outcome &out, const test::Packet &wanted, const char *what)
{
    const Bytes frame = wanted.build();
    const Backend source = end_of(out.frame.bytes, false);
    const Backend destination = end_of(out.frame.bytes, true);
    if (source == end_of(frame, false) && destination == end_of(frame, true))
        return {};
    return fmt::format("{} goes from {} to {}, not from {} to {}", what, text(source), text(destination),
                       text(end_of(frame, false)), text(end_of(frame, true)));
}

} // namespace

Subject::Subject()
{
    for (const unsigned number : {2, 3, 4})
        pods_.push_back(&world_.pod(number));
    world_.nexthops->set_host({.ifindex = world_.uplink.index, .to = host_mac});
    for (const char *other : {"172.20.0.12", "fd20::12"}) // the other node itself
        if (auto set = world_.nexthops->set_gateway(test::address(other), world_.to_neighbour(other)); !set)
            throw std::runtime_error(set.error().text());
    programs_ = {test::World::program("from_pod"), test::World::program("from_net"), test::World::program("to_net")};
    dropped_for();
}

Node Subject::node() const
{
    Node node{.name = node_name,
              .zone = "east",
              .addresses = {node4, node6},
              .node_port_addresses = {node4, node6},
              .pods = {}};
    for (const test::PodSpec *pod : pods_)
        for (const Address &address : pod->addresses)
            node.pods.insert(address.text());
    return node;
}

void Subject::change(const std::vector<Change> &changes)
{
    for (const Change &change : changes)
        std::visit(
            [&](const auto &one) {
                using T = std::decay_t<decltype(one)>;
                if constexpr (std::is_same_v<T, RemovedService>)
                    planner_.remove_service({Symbol(space), one.name});
                else if constexpr (std::is_same_v<T, RemovedSlice>)
                    planner_.remove_slice({Symbol(space), one.name});
                else if constexpr (std::is_same_v<T, Elapsed>)
                    world_.age_affinity(static_cast<uint64_t>(one.seconds));
                else
                    read(manifest(one));
                if constexpr (std::is_same_v<T, Node>)
                    move_node_ports(one.node_port_addresses);
            },
            change);
    planner_.set_place(place_);
    for (const std::string &line : world_.services->apply(planner_.take_changes()))
        throw std::runtime_error(line);
    std::ignore = planner_.take_refusals(); // of two Services that want one address
    for (const tw_purge &purge : world_.services->take_purges())
        world_.gc->purge(purge);
    while (world_.gc->hurries())
        world_.walk_flows();
}

void Subject::read(const std::string &manifest)
{
    auto all = read_manifest(decoder_, "case.yaml", manifest);
    if (!all)
        throw std::runtime_error(all.error().text());
    Decoded &decoded = all->front();
    for (const std::string &fault : decoded.faults)
        throw std::runtime_error(fault + "\n" + manifest);
    if (!decoded.object) // not wanted: a watcher has to take it for deleted
        planner_.remove_slice(decoded.key->name);
    else if (auto *service = std::get_if<thruway::Service>(&*decoded.object))
        planner_.upsert(std::move(*service));
    else if (auto *slice = std::get_if<EndpointSlice>(&*decoded.object))
        planner_.upsert(std::move(*slice));
    else
        move_node(std::get<thruway::Node>(*decoded.object));
}

void Subject::move_node(const thruway::Node &node)
{
    if (auto set = world_.nexthops->set_node_port_addresses(node.addresses); !set)
        throw std::runtime_error(set.error().text());
    if (auto set = world_.nexthops->set_node_addresses(node.addresses); !set)
        throw std::runtime_error(set.error().text());
    place_ = {.node = Symbol(node_name), .zone = node.zone, .addresses = node.addresses};
}

/// What the agent's settings make of the node's addresses.
void Subject::move_node_ports(const std::vector<std::string> &addresses)
{
    std::vector<Address> chosen;
    for (const std::string &address : addresses)
        chosen.push_back(test::address(address));
    if (auto set = world_.nexthops->set_node_port_addresses(chosen); !set)
        throw std::runtime_error(set.error().text());
}

void Subject::forget_flows()
{
    std::memset(&world_.arrays.flows4[0], 0, world_.arrays.flows4.size() * sizeof(tw_bucket4));
    std::memset(&world_.arrays.flows6[0], 0, world_.arrays.flows6.size() * sizeof(tw_bucket6));
}

const test::PodSpec *Subject::pod(const std::string &address) const
{
    for (const test::PodSpec *pod : pods_)
        if (std::ranges::find(pod->addresses, address, &Address::text) != pod->addresses.end())
            return pod;
    return nullptr;
}

bool Subject::is_own(const std::string &address) const
{
    return std::ranges::find(place_.addresses, address, &Address::text) != place_.addresses.end();
}

test::Packet Subject::build(const Packet &packet)
{
    source_port_ = source_port_ < first_port || source_port_ >= last_port ? first_port : source_port_ + 1;
    if (packet.protocol == "ICMP")
        return test::ping(packet.source, packet.destination, source_port_);
    const std::string source = end(packet.source, source_port_);
    const std::string destination = end(packet.destination, packet.port);
    const test::Packet built = packet.protocol == "UDP" ? test::udp(source, destination)
                               : packet.protocol == "SCTP"
                                   ? test::with_chunk(test::sctp(source, destination), test::Chunk::init)
                                   : test::tcp(source, destination);
    return packet.from == From::outside ? world_.off_wire(built) : built;
}

Outcome Subject::run(Hook hook, unsigned ifindex, const test::Packet &packet)
{
    return test::World::run(programs_.at(static_cast<size_t>(hook)), ifindex, packet.build());
}

/// By turns with XDP on the uplink and without.
Outcome Subject::run_at_uplink(const test::Packet &packet)
{
    xdp_turn_ = !xdp_turn_;
    if (xdp_turn_) {
        Outcome out = world_.xdp_net(packet);
        if (out.verdict != test::xdp_pass) {
            out.verdict = out.verdict == test::xdp_tx ? verdict_redirect : verdict_drop;
            return out;
        }
    }
    return run(Hook::from_net, world_.uplink.index, packet);
}

Outcome Subject::send(const Packet &packet, const test::Packet &built)
{
    if (packet.from == From::outside)
        return run_at_uplink(built);
    if (packet.from == From::host) // to itself by lo
        return run(Hook::to_net, is_own(packet.destination) ? 1 : world_.uplink.index, built);
    return run(Hook::from_pod, pod(packet.source)->ifindex, built);
}

Outcome Subject::send_back(const Flow &flow, const test::Packet &reply)
{
    if (const test::PodSpec *backend = pod(flow.backend.address))
        return run(Hook::from_pod, backend->ifindex, reply);
    if (is_own(flow.backend.address))
        return run(Hook::to_net, is_own(reply.destination.text()) ? 1 : world_.uplink.index, reply);
    return run_at_uplink(world_.off_wire(reply));
}

std::string Subject::answer(const Flow &flow)
{
    const test::Packet reply = flow.arrived.reversed().with_flags(test::syn | test::ack).with_hops(64);
    const Outcome out = send_back(flow, reply);
    if (out.verdict == verdict_drop)
        return "its answer is dropped for " + dropped_for();
    return compare_ends(out, flow.request.reversed(), "its answer");
}

std::string Subject::go_on(const Flow &flow)
{
    const Outcome out = send(flow.packet, flow.request.with_flags(test::ack));
    if (out.verdict == verdict_drop)
        return "its next packet is dropped for " + dropped_for();
    return compare_ends(out, flow.arrived, "its next packet");
}

std::string Subject::dropped_for()
{
    const auto cpus = static_cast<size_t>(libbpf_num_possible_cpus());
    const Map &map = world_.datapath->maps().drops;
    std::vector<uint32_t> keys(map.capacity());
    std::vector<tw_count> counts(keys.size() * cpus);
    uint32_t batch = 0;
    auto count = static_cast<uint32_t>(keys.size());
    if (bpf_map_lookup_batch(map.fd(), nullptr, &batch, keys.data(), counts.data(), &count, nullptr) != 0 &&
        errno != ENOENT) // that was all
        throw std::runtime_error("cannot read the drop counters");
    std::vector<uint64_t> now(TW_DROPS);
    for (size_t i = 0; i < count; i++)
        for (size_t cpu = 0; cpu < cpus; cpu++)
            now.at(keys[i] / TW_HOOKS) += counts[i * cpus + cpu].packets;
    std::string reasons;
    if (!drops_.empty())
        for (size_t reason = 0; reason < now.size(); reason++)
            for (uint64_t n = drops_.at(reason); n < now[reason]; n++)
                reasons += (reasons.empty() ? "" : " and ") + std::string(drop_name(static_cast<tw_drop>(reason)));
    drops_ = std::move(now);
    return reasons;
}

std::string Subject::judge(const Cluster &cluster, const Packet &packet, const Answer &answer,
                           const test::Packet &built, std::optional<Flow> &flow)
{
    const Outcome out = send(packet, built);
    switch (answer.kind) {
    case Answer::Kind::forwarded:
        return compare_forwarded(cluster, packet, answer, built, out, flow);
    case Answer::Kind::refused:
        return compare_refused(packet, answer, built, out);
    case Answer::Kind::dropped:
        if (out.verdict != verdict_drop)
            return fmt::format("verdict {}, frame {}", out.verdict, hex(out.frame));
        if (const std::string reason = dropped_for(); reason != answer.reason)
            return "dropped for " + reason;
        return {};
    case Answer::Kind::answered:
        return compare_answered(built, out);
    case Answer::Kind::stranger:
        if (out.verdict != verdict_next && out.verdict != verdict_redirect)
            return "dropped for " + dropped_for();
        return compare_ends(out, built, "it");
    }
    return {};
}

std::string Subject::compare_answered(const test::Packet &built, Outcome out)
{
    const test::Packet pong = test::pong(built).with_macs(built.to, built.from);
    const auto checksum = out.frame.bytes.begin() + (out.frame.bytes.at(12) == 0x86 ? 14 + 40 : 14 + 20) + 2;
    if (checksum[0] == 0xff && checksum[1] == 0xff) // the other zero (RFC 1624)
        checksum[0] = checksum[1] = 0;
    return out.verdict == verdict_redirect && out.frame == test::frame(pong) ? "" : difference(out, pong);
}

std::string Subject::compare_refused(const Packet &packet, const Answer &answer, const test::Packet &built,
                                     const Outcome &out)
{
    if (const std::string reason = dropped_for(); reason != answer.reason)
        return reason.empty() ? fmt::format("not dropped: {}", hex(out.frame)) : "dropped for " + reason;
    if (out.verdict == verdict_drop) // more than so many a second get no answer
        return {};
    told_++;
    constexpr uint32_t takes = 8; // the SYN and the payload
    const test::Packet refusal = packet.protocol == "TCP" ? test::reset_for(built, takes)
                                 : packet.protocol == "SCTP"
                                     ? test::abort_for(built)
                                     : test::own_error(test::Fault::port_unreachable, built.destination, built);
    return out.frame == test::frame(refusal) ? "" : difference(out, refusal);
}

std::string Subject::compare_forwarded(const Cluster &cluster, const Packet &packet, const Answer &answer,
                                       const test::Packet &built, const Outcome &out, std::optional<Flow> &flow)
{
    if (out.verdict == verdict_drop) {
        const std::string reason = dropped_for();
        const bool may = std::ranges::any_of(answer.backends, [&](const Backend &backend) {
            return in_pod_range_of_node(backend.address) && !pod(backend.address);
        });
        return may && reason == "no_endpoint" ? "" : "dropped for " + reason;
    }
    const Backend backend = end_of(out.frame.bytes, true);
    if (!answer.backends.contains(backend))
        return fmt::format("sent to {}", text(backend));
    const bool own = packet.from == From::host;
    test::Packet expected = built.with_destination(test::address(backend.address), static_cast<uint16_t>(backend.port));
    if (answer.masks(cluster, packet, backend)) {
        const int port = end_of(out.frame.bytes, false).port;
        if (port <= last_port)
            return fmt::format("source port {}", port);
        expected =
            expected.with_source(test::address(is_v6(packet.source) ? node6 : node4), static_cast<uint16_t>(port));
    }
    const bool stack = std::ranges::find(cluster.node.addresses, backend.address) != cluster.node.addresses.end();
    if (stack && own) {
        expected = expected.with_macs(built.from, host_mac);
    } else if (!stack) {
        const test::PodSpec *pod = this->pod(backend.address);
        expected = pod ? expected.with_macs(pod->host_mac, pod->mac)
                       : expected.with_macs(world_.uplink.mac, world_.neighbour_mac);
        if (!own)
            expected = expected.with_hops(63);
    }
    if (out.verdict != (stack && !own ? verdict_next : verdict_redirect))
        return fmt::format("verdict {}", out.verdict);
    flow = Flow{packet, backend, built, expected};
    return out.frame == test::frame(expected) ? "" : difference(out, expected);
}

} // namespace thruway::reference
