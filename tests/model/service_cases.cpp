// SPDX-License-Identifier: Apache-2.0
#include "tests/model/service_cases.h"

#include "tests/model/manifest.h"

#include <algorithm>
#include <array>
#include <fmt/format.h>
#include <utility>

namespace thruway::reference {
namespace {

/// What names, addresses and numbers are made of: few, so that they meet.
using Texts = std::vector<std::string>;
const Texts service_names{"a", "b", "c", "d", "e", "f"};
const Texts slice_names{"s1", "s2",  "s3",  "s4",  "s5",  "s6",  "s7",  "s8",
                        "s9", "s10", "s11", "s12", "s13", "s14", "s15", "s16"};
const Texts port_names{"http", "https", "dns"};
const Texts protocols{"TCP", "TCP", "UDP", "SCTP"};
const std::vector<int> numbers{80, 443, 53};
const std::vector<int> node_ports{30080, 30081, 30082, 30083};
const std::vector<int> target_ports{8080, 8443, 53};
// Seconds of affinity, and seconds that pass: no sums of these are less than 100 s below one of those, and a test takes
// some time, too.
const std::vector<int> affinities{1200, 3600};
const std::vector<int> pauses{500, 500, 1500, 4000};
const Texts zones{"east", "west"};
const Texts node_names{"here", "there", "elsewhere", ""};

/// Of one family each.
struct Pool {
    Texts cluster_ips, external_ips, balancer_ips, ranges, outside, endpoints, extra_node;
    std::string other_node, nobody;
};
const std::array<Pool, 2> pools{{
    {{"10.96.0.1", "10.96.0.2", "10.96.0.3", "10.96.0.4", "10.96.0.5", "10.96.0.6"},
     {"203.0.113.1", "203.0.113.2"},
     {"203.0.113.10", "203.0.113.11"},
     {"172.21.0.0/16", "198.51.100.0/24", "10.244.1.0/24", "10.244.1.2/32", "172.20.0.0/24", "0.0.0.0/0"},
     {"172.21.0.2", "172.21.7.3", "198.51.100.7", "172.20.0.12", "10.244.2.9"},
     {"10.244.1.2", "10.244.1.3", "10.244.1.4", "10.244.1.77", "10.244.2.7", "10.244.2.8", "10.244.2.9", "172.20.0.11",
      "172.20.0.12", "192.0.2.50"},
     {"10.96.0.1", "203.0.113.10", "172.20.0.99"},
     "172.20.0.12",
     "192.0.2.200"},
    {{"fd00:96::1", "fd00:96::2", "fd00:96::3", "fd00:96::4", "fd00:96::5", "fd00:96::6"},
     {"fd98::1", "fd98::2"},
     {"fd98::10", "fd98::11"},
     {"fd21::/64", "fd99::/16", "fd00:10:244:1::/64", "fd00:10:244:1::2/128", "fd20::/64", "::/0"},
     {"fd21::2", "fd21::7:3", "fd99::7", "fd20::12", "fd00:10:244:2::9"},
     {"fd00:10:244:1::2", "fd00:10:244:1::3", "fd00:10:244:1::4", "fd00:10:244:1::77", "fd00:10:244:2::7",
      "fd00:10:244:2::8", "fd00:10:244:2::9", "fd20::11", "fd20::12", "fd97::50"},
     {"fd00:96::1", "fd98::10", "fd20::99"},
     "fd20::12",
     "fd97::200"},
}};

bool is_v6(const std::string &address)
{
    return address.find(':') != std::string::npos;
}

Texts of_family(const Texts &addresses, bool v6)
{
    Texts all;
    std::ranges::copy_if(addresses, std::back_inserter(all), [&](const auto &one) { return is_v6(one) == v6; });
    return all;
}

} // namespace

void make(const Change &change, Cluster &cluster)
{
    struct Maker {
        Cluster &cluster;
        void operator()(const Service &service) const { cluster.services.insert_or_assign(service.name, service); }
        void operator()(const Slice &slice) const { cluster.slices.insert_or_assign(slice.name, slice); }
        void operator()(const Node &node) const { cluster.node = node; }
        void operator()(const RemovedService &gone) const { cluster.services.erase(gone.name); }
        void operator()(const RemovedSlice &gone) const { cluster.slices.erase(gone.name); }
        void operator()(const Elapsed & /*no part of a cluster*/) const {}
    };
    std::visit(Maker{cluster}, change);
}

Cases::Cases(uint64_t seed, Node node) : random_(seed), first_node_(std::move(node))
{
    cluster_.node = first_node_;
}

std::optional<bool> Cases::maybe()
{
    return chance(20) ? std::nullopt : std::optional(chance(70));
}

Round Cases::next(size_t packets)
{
    Round round;
    const auto add = [&](Change change) {
        make(change, cluster_);
        round.changes.push_back(std::move(change));
    };
    if (std::exchange(begins_, false)) {
        for (size_t i = 0; i < service_names.size(); i++)
            add(service());
        for (size_t i = 0; i < slice_names.size(); i++)
            add(slice());
    } else {
        for (size_t i = 1 + below(3); i > 0; i--)
            add(change());
    }
    for (size_t i = 0; i < packets; i++)
        round.packets.push_back(packet());
    return round;
}

Change Cases::change()
{
    const size_t kind = below(100);
    if (kind < 40)
        return slice();
    if (kind < 50)
        return Elapsed{pick(pauses)};
    if (kind < 80)
        return service();
    if (kind < 87)
        return RemovedService{pick(service_names)};
    if (kind < 94)
        return RemovedSlice{pick(slice_names)};
    return node();
}

Service Cases::service()
{
    Service service;
    const size_t name = below(service_names.size());
    service.name = service_names.at(name);
    service.type = pick(Texts{"ClusterIP", "ClusterIP", "NodePort", "NodePort", "LoadBalancer", "LoadBalancer"});
    service.created = static_cast<int>(100 * below(3));
    service.others = chance(3);
    const size_t families = below(3);
    if (families != 1)
        service.cluster_ips.push_back(pools[0].cluster_ips.at(name));
    if (families != 0)
        service.cluster_ips.push_back(pools[1].cluster_ips.at(name));
    if (chance(3))
        service.cluster_ips = {"None"};
    if (chance(3))
        service.type = "ExternalName";
    const bool balancer = service.type == "LoadBalancer";
    service.ports = ports(balancer || service.type == "NodePort");
    if (const auto known = cluster_.services.find(service.name); known != cluster_.services.end() && chance(70))
        for (Port &port : service.ports = known->second.ports)
            port.node_port = (balancer || service.type == "NodePort") && chance(85) ? pick(node_ports) : 0;
    for (const Pool &pool : pools) {
        if (chance(25))
            service.external_ips.push_back(pick(chance(85) ? pool.external_ips : pool.balancer_ips));
        if (const std::string ip = pick(pool.extra_node); chance(3) && ip != pool.cluster_ips.at(name))
            service.external_ips.push_back(ip);
        if (balancer && chance(60))
            service.ingress.push_back({pick(pool.balancer_ips), pick(Texts{"", "VIP", "Proxy"})});
        if (balancer && chance(35))
            service.source_ranges.push_back(pick(pool.ranges));
        if (balancer && chance(20))
            service.source_ranges.push_back(pick(pool.ranges));
    }
    if (balancer && chance(10))
        service.ingress.push_back({.ip = ""});
    service.internal_local = chance(25);
    service.external_local = chance(40);
    service.affinity = chance(25) ? pick(affinities) : 0;
    return service;
}

/// Names and numbers are different ones: the API refuses twins.
std::vector<Port> Cases::ports(bool node_ports_too)
{
    std::vector<Port> all;
    std::vector<int> free_numbers = numbers;
    Texts free_names = port_names;
    const size_t count = chance(60) ? 1 : 1 + below(3);
    for (size_t i = 0; i < count; i++) {
        Port port;
        const size_t name = below(free_names.size());
        const size_t number = below(free_numbers.size());
        port.name = count == 1 && chance(50) ? "" : free_names.at(name);
        port.number = free_numbers.at(number);
        free_names.erase(free_names.begin() + static_cast<ptrdiff_t>(name));
        free_numbers.erase(free_numbers.begin() + static_cast<ptrdiff_t>(number));
        port.protocol = pick(protocols);
        port.node_port = node_ports_too && chance(85) ? pick(node_ports) : 0;
        all.push_back(port);
    }
    return all;
}

Slice Cases::slice()
{
    Slice slice;
    slice.name = pick(slice_names);
    slice.service = pick(service_names);
    slice.headless = chance(3);
    slice.v6 = chance(50);
    Texts names = port_names;
    names.emplace_back();
    if (const auto known = cluster_.services.find(slice.service); known != cluster_.services.end() && chance(90)) {
        if (known->second.cluster_ips.front() != "None")
            slice.v6 = is_v6(pick(known->second.cluster_ips));
        for (const Port &port : known->second.ports)
            slice.ports.push_back({port.name, port.protocol, pick(target_ports)});
    } else {
        slice.ports.push_back({pick(names), pick(protocols), chance(10) ? 0 : pick(target_ports)});
    }
    const unsigned hinted = pick(std::vector<unsigned>{0, 0, 100, 100, 70});
    const size_t count = chance(15) ? 0 : 1 + below(5);
    for (size_t i = 0; i < count; i++) {
        const Endpoint made = endpoint(slice.v6, hinted);
        const auto same = [&](const Endpoint &other) { return other.address == made.address; };
        if (std::ranges::none_of(slice.endpoints, same))
            slice.endpoints.push_back(made);
    }
    return slice;
}

Endpoint Cases::endpoint(bool v6, unsigned hinted)
{
    Endpoint endpoint;
    const Pool &pool = pools.at(v6 ? 1 : 0);
    const size_t which = below(pool.endpoints.size());
    endpoint.address = pool.endpoints.at(which);
    // Mostly where its address is, which nobody checks.
    endpoint.node = chance(80) ? (which < 4 || which == 7 ? "here" : "there") : pick(node_names);
    endpoint.ready = maybe();
    endpoint.serving = maybe();
    if (chance(40))
        endpoint.terminating = chance(60);
    if (chance(hinted))
        endpoint.zone_hints.push_back(pick(zones));
    if (chance(hinted / 2))
        endpoint.node_hints.push_back(pick(Texts{"here", "there"}));
    if (chance(hinted / 4))
        endpoint.zone_hints.push_back(pick(zones));
    return endpoint;
}

/// The node moves to another zone, or gets an address, or loses it; NodePorts are on some of them.
Node Cases::node()
{
    Node node = first_node_;
    node.zone = pick(Texts{"east", "west", ""});
    for (const Pool &pool : pools)
        if (chance(30))
            node.addresses.push_back(pick(pool.extra_node));
    node.node_port_addresses = node.addresses;
    if (chance(50))
        std::erase_if(node.node_port_addresses, [&](const std::string &) { return chance(40); });
    return node;
}

Packet Cases::packet()
{
    Packet packet;
    const auto to = chance(96) ? door() : std::nullopt;
    const bool v6 = to ? to->v6 : chance(50);
    const Pool &pool = pools.at(v6 ? 1 : 0);
    const size_t from = below(100);
    packet.from = from < 40 ? From::pod : from < 85 ? From::outside : From::host;
    const Texts pods = of_family({cluster_.node.pods.begin(), cluster_.node.pods.end()}, v6);
    const Texts own = of_family(cluster_.node.addresses, v6);
    packet.source = pick(packet.from == From::pod ? pods : packet.from == From::host ? own : pool.outside);
    if (packet.from == From::outside && chance(2))
        packet.source = pick(chance(50) ? pods : own);
    packet.protocol = pick(protocols);
    packet.destination = pool.nobody;
    packet.port = pick(numbers);
    if (to)
        address(packet, *to);
    return packet;
}

/// Some slice has an endpoint for it that may be ready.
bool Cases::serves(const Door &door) const
{
    if (door.service->type == "ExternalName" || door.service->others || door.service->cluster_ips.front() == "None")
        return false;
    return std::ranges::any_of(cluster_.slices, [&](const auto &entry) {
        const Slice &slice = entry.second;
        const auto same = [&](const SlicePort &port) {
            return port.name == door.port.name && port.protocol == door.port.protocol && port.number != 0;
        };
        return slice.service == door.service->name && slice.v6 == door.v6 && !slice.headless &&
               std::ranges::any_of(slice.ports, same) &&
               std::ranges::any_of(slice.endpoints, [](const Endpoint &one) { return one.ready.value_or(true); });
    });
}

/// Mostly one that serves: what is refused or dropped is so for few reasons, and soon known.
std::optional<Cases::Door> Cases::door()
{
    std::vector<Door> all;
    std::vector<Door> serving;
    for (const auto &[name, service] : cluster_.services)
        for (const Port &port : service.ports)
            for (const bool v6 : {false, true}) {
                const Door door{&service, port, v6};
                if (service.cluster_ips.front() != "None" && of_family(service.cluster_ips, v6).empty())
                    continue;
                all.push_back(door);
                if (serves(door))
                    serving.push_back(door);
            }
    if (all.empty())
        return std::nullopt;
    return pick(!serving.empty() && chance(93) ? serving : all);
}

/// Some address of the service's, at this port.
void Cases::address(Packet &packet, const Door &door)
{
    const auto &[service, port, v6] = door;
    packet.protocol = port.protocol;
    packet.port = port.number;
    Texts ips = of_family(service->external_ips, v6);
    for (const Ingress &ingress : service->ingress)
        if (!ingress.ip.empty() && is_v6(ingress.ip) == v6)
            ips.push_back(ingress.ip);
    if (!ips.empty() && chance(50)) {
        packet.destination = pick(ips);
    } else if (port.node_port && chance(60)) {
        packet.destination =
            chance(90) ? pick(of_family(cluster_.node.addresses, v6)) : pools.at(v6 ? 1 : 0).other_node;
        packet.port = port.node_port;
    } else if (const Texts cluster = of_family(service->cluster_ips, v6);
               !cluster.empty() && cluster.front() != "None") {
        packet.destination = cluster.front();
    }
    if (chance(3))
        packet.protocol = pick(protocols);
    if (chance(2))
        packet.port = pick(numbers);
    if (chance(3))
        packet.protocol = "ICMP";
}

namespace {

/// Tries the history without each of so many things, larger parts first. `without` gives none if a part cannot go.
class Shrinker {
public:
    Shrinker(History history, const std::function<bool(const History &)> &fails)
        : history_(std::move(history)), fails_(fails)
    {
    }

    History run()
    {
        keep_last_packet();
        for (bool smaller = true; smaller;) {
            smaller = drop_rounds();
            smaller |= each_change([&](size_t round, size_t change) { return drop_change(round, change); });
            smaller |= each_change([&](size_t round, size_t change) { return simplify(round, change); });
            smaller |= drop_packets();
        }
        return history_;
    }

private:
    bool take_if_fails(History candidate)
    {
        if (!fails_(candidate))
            return false;
        history_ = std::move(candidate);
        return true;
    }

    /// Mostly nothing depends on the packets before; or only on the same client's.
    void keep_last_packet()
    {
        if (history_.back().packets.empty()) // it is about one of before
            return;
        const Packet last = history_.back().packets.back();
        History alone = history_;
        History clients = history_;
        for (size_t i = 0; i < history_.size(); i++) {
            alone[i].packets.clear();
            std::erase_if(clients[i].packets, [&](const Packet &packet) { return packet.source != last.source; });
        }
        alone.back().packets = {last};
        if (take_if_fails(alone))
            as_one_round();
        else
            take_if_fails(clients);
    }

    /// Mostly nothing depends on the changes before, either: the cluster as it is at the end.
    void as_one_round()
    {
        Cluster cluster;
        for (const Round &round : history_)
            for (const Change &change : round.changes)
                make(change, cluster);
        Round all{{}, history_.back().packets};
        if (!cluster.node.name.empty()) // it has changed
            all.changes.emplace_back(cluster.node);
        for (const auto &[name, service] : cluster.services)
            all.changes.emplace_back(service);
        for (const auto &[name, slice] : cluster.slices)
            all.changes.emplace_back(slice);
        take_if_fails({all});
    }

    bool drop_rounds()
    {
        bool dropped = false;
        for (size_t size = history_.size() / 2; size > 0; size /= 2)
            for (size_t at = 0; at + size < history_.size();) { // the last one has the packet
                History candidate = history_;
                candidate.erase(candidate.begin() + static_cast<ptrdiff_t>(at),
                                candidate.begin() + static_cast<ptrdiff_t>(at + size));
                if (take_if_fails(std::move(candidate)))
                    dropped = true;
                else
                    at += size;
            }
        return dropped;
    }

    /// Of each round, large parts first; the last packet of all has failed.
    bool drop_packets()
    {
        bool dropped = false;
        for (size_t round = 0; round < history_.size(); round++) {
            const size_t stays = round + 1 == history_.size() && !history_[round].packets.empty() ? 1 : 0;
            for (size_t size = history_[round].packets.size() - stays; size > 0; size /= 2)
                for (size_t at = 0; at + size + stays <= history_[round].packets.size();) {
                    History candidate = history_;
                    const auto first = candidate[round].packets.begin() + static_cast<ptrdiff_t>(at);
                    candidate[round].packets.erase(first, first + static_cast<ptrdiff_t>(size));
                    if (take_if_fails(std::move(candidate)))
                        dropped = true;
                    else
                        at += size;
                }
        }
        return dropped;
    }

    bool each_change(const std::function<bool(size_t, size_t)> &attempt)
    {
        bool smaller = false;
        for (size_t round = 0; round < history_.size(); round++)
            for (size_t i = history_[round].changes.size(); i-- > 0;)
                smaller |= attempt(round, i);
        return smaller;
    }

    bool drop_change(size_t round, size_t at)
    {
        History candidate = history_;
        candidate[round].changes.erase(candidate[round].changes.begin() + static_cast<ptrdiff_t>(at));
        return take_if_fails(std::move(candidate));
    }

    /// Tries the change with `edit` made to it, unless that makes no difference.
    template<typename T, typename Edit>
    bool attempt(size_t round, size_t at, Edit edit)
    {
        History candidate = history_;
        edit(std::get<T>(candidate[round].changes[at]));
        if (candidate[round].changes[at] == history_[round].changes[at])
            return false;
        return take_if_fails(std::move(candidate));
    }

    /// Leaves no more than so many entries.
    template<typename T, typename Member>
    bool empty_out(size_t round, size_t at, Member T::*list, size_t least = 0)
    {
        bool smaller = false;
        const auto size = [&] { return (std::get<T>(history_[round].changes[at]).*list).size(); };
        for (size_t i = size(); i-- > 0 && size() > least;)
            smaller |= attempt<T>(round, at, [&](T &object) {
                (object.*list).erase((object.*list).begin() + static_cast<ptrdiff_t>(i));
            });
        return smaller;
    }

    template<typename T, typename Member>
    bool reset(size_t round, size_t at, Member T::*member)
    {
        return attempt<T>(round, at, [&](T &object) { object.*member = T{}.*member; });
    }

    bool simplify(size_t round, size_t at)
    {
        const Change &change = history_[round].changes[at];
        if (std::holds_alternative<Service>(change))
            return simplify_service(round, at);
        if (std::holds_alternative<Slice>(change))
            return simplify_slice(round, at);
        return false;
    }

    bool simplify_service(size_t round, size_t at)
    {
        bool smaller = false;
        smaller |= empty_out(round, at, &Service::external_ips);
        smaller |= empty_out(round, at, &Service::ingress);
        smaller |= empty_out(round, at, &Service::source_ranges);
        smaller |= empty_out(round, at, &Service::ports, 1);
        smaller |= empty_out(round, at, &Service::cluster_ips, 1);
        smaller |= reset(round, at, &Service::internal_local);
        smaller |= reset(round, at, &Service::external_local);
        smaller |= reset(round, at, &Service::affinity);
        smaller |= reset(round, at, &Service::others);
        smaller |= reset(round, at, &Service::type);
        smaller |= reset(round, at, &Service::created);
        smaller |= attempt<Service>(round, at, [](Service &service) {
            for (Port &port : service.ports)
                port.node_port = 0;
        });
        return smaller;
    }

    bool simplify_slice(size_t round, size_t at)
    {
        bool smaller = empty_out(round, at, &Slice::endpoints);
        smaller |= empty_out(round, at, &Slice::ports, 1);
        smaller |= reset(round, at, &Slice::headless);
        for (size_t i = 0; i < std::get<Slice>(history_[round].changes[at]).endpoints.size(); i++) {
            smaller |= attempt<Slice>(round, at, [&](Slice &slice) { slice.endpoints[i].zone_hints.clear(); });
            smaller |= attempt<Slice>(round, at, [&](Slice &slice) { slice.endpoints[i].node_hints.clear(); });
            smaller |= attempt<Slice>(round, at, [&](Slice &slice) { slice.endpoints[i].ready.reset(); });
            smaller |= attempt<Slice>(round, at, [&](Slice &slice) { slice.endpoints[i].serving.reset(); });
            smaller |= attempt<Slice>(round, at, [&](Slice &slice) { slice.endpoints[i].terminating.reset(); });
            smaller |= attempt<Slice>(round, at, [&](Slice &slice) { slice.endpoints[i].node.clear(); });
        }
        return smaller;
    }

    History history_;
    const std::function<bool(const History &)> &fails_;
};

struct Printer {
    std::string operator()(const RemovedService &gone) const { return "# Service " + gone.name + " is deleted\n"; }
    std::string operator()(const RemovedSlice &gone) const { return "# EndpointSlice " + gone.name + " is deleted\n"; }
    std::string operator()(const Elapsed &elapsed) const { return fmt::format("# {} s pass\n", elapsed.seconds); }
    template<typename T>
    std::string operator()(const T &object) const
    {
        return "---\n" + manifest(object);
    }
};

} // namespace

History shrink(History history, const std::function<bool(const History &)> &fails)
{
    return Shrinker(std::move(history), fails).run();
}

std::string text(const History &history)
{
    std::string all;
    for (size_t i = 0; i < history.size(); i++) {
        if (i > 0)
            all += "# then\n";
        for (const Change &change : history[i].changes)
            all += std::visit(Printer{}, change);
        for (const Packet &packet : history[i].packets)
            all += "# packet: " + text(packet) + "\n";
    }
    return all;
}

} // namespace thruway::reference
