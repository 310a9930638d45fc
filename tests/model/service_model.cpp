// SPDX-License-Identifier: Apache-2.0
#include "tests/model/service_model.h"

#include <algorithm>
#include <arpa/inet.h>
#include <array>
#include <utility>

namespace thruway::reference {
namespace {

bool is_v6(const std::string &address)
{
    return address.find(':') != std::string::npos;
}

template<typename Range, typename Value>
bool has(const Range &range, const Value &value)
{
    return std::find(range.begin(), range.end(), value) != range.end();
}

std::array<unsigned char, 16> bytes_of(const std::string &address)
{
    std::array<unsigned char, 16> bytes{};
    inet_pton(is_v6(address) ? AF_INET6 : AF_INET, address.c_str(), bytes.data());
    return bytes;
}

bool contains(const std::string &range, const std::string &address)
{
    const size_t slash = range.find('/');
    if (is_v6(range) != is_v6(address))
        return false;
    const auto a = bytes_of(range.substr(0, slash));
    const auto b = bytes_of(address);
    for (int bit = 0; bit < std::stoi(range.substr(slash + 1)); bit++) {
        const auto at = static_cast<size_t>(bit / 8);
        if ((a.at(at) ^ b.at(at)) & 0x80 >> bit % 8)
            return false;
    }
    return true;
}

/// Rules 1 and 2.
bool proxied(const Service &service)
{
    return service.type != "ExternalName" && !service.cluster_ips.empty() && service.cluster_ips.front() != "None" &&
           !service.others;
}

bool of_type_node_port(const Service &service)
{
    return service.type == "NodePort" || service.type == "LoadBalancer";
}

/// Rule 9.
bool external_local(const Service &service)
{
    return service.external_local && (of_type_node_port(service) || !service.external_ips.empty());
}

/// Rule 6.
bool is_balancer_ip(const Service &service, const std::string &address)
{
    return std::ranges::any_of(
        service.ingress, [&](const Ingress &ingress) { return ingress.ip == address && ingress.mode != "Proxy"; });
}

/// Rule 3.
bool of_family(const Service &service, bool v6)
{
    return std::ranges::any_of(service.cluster_ips, [&](const std::string &ip) { return is_v6(ip) == v6; });
}

/// A port of a Service, and what the address that was dialled is to it.
struct Dialled {
    const Service *service;
    const Port *port;
    bool v6;
    bool internal; ///< the ClusterIP
    bool balancer; ///< an address of the load balancer
};

/// Nobody dials these: a NodePort on whichever address.
constexpr const char *any4 = "0.0.0.0";
constexpr const char *any6 = "::";

/// Whether `port` is dialled by that address and number; node ports stand for themselves.
std::optional<Dialled> dials(const Node &node, const Service &service, const Port &port, const Packet &packet,
                             bool node_port)
{
    const std::string &ip = packet.destination;
    const bool v6 = is_v6(ip);
    if (!proxied(service) || port.protocol != packet.protocol || !of_family(service, v6))
        return std::nullopt;
    Dialled dialled{&service, &port, v6, false, false};
    if (node_port) { // rule 10
        const bool is = of_type_node_port(service) && port.node_port != 0 && port.node_port == packet.port &&
                        (has(node.node_port_addresses, ip) || ip == any4 || ip == any6);
        return is ? std::optional(dialled) : std::nullopt;
    }
    if (port.number != packet.port)
        return std::nullopt;
    dialled.internal = has(service.cluster_ips, ip);
    dialled.balancer = is_balancer_ip(service, ip);
    if (dialled.internal && has(node.addresses, ip)) // NodeLocal DNSCache: the node's own business
        return std::nullopt;
    if (!dialled.internal && !dialled.balancer && !has(service.external_ips, ip))
        return std::nullopt;
    return dialled;
}

/// Who has the address and number: of several Services the oldest, of its ports the first.
std::optional<Dialled> find(const Cluster &cluster, const Packet &packet)
{
    for (const bool node_port : {false, true}) {
        std::optional<Dialled> found;
        for (const auto &[name, service] : cluster.services) {
            if (found && service.created >= found->service->created)
                continue;
            for (const Port &port : service.ports)
                if (const auto dialled = dials(cluster.node, service, port, packet, node_port)) {
                    found = dialled;
                    break;
                }
        }
        if (found)
            return found;
    }
    return std::nullopt;
}

/// An endpoint of a Service port. Absent conditions are read as rule 15 says.
struct Candidate {
    const Endpoint *endpoint;
    std::string slice;

    [[nodiscard]] bool ready() const { return endpoint->ready.value_or(true); }
    [[nodiscard]] bool terminating() const { return endpoint->terminating.value_or(false); }
    [[nodiscard]] bool serving() const { return endpoint->serving.value_or(true); }
    [[nodiscard]] bool lingers() const { return serving() && terminating(); }
};
using Candidates = std::map<Backend, Candidate>;

/// Of two entries for one address and port: who does not terminate, then who is ready, counts.
bool counts_before(const Candidate &a, const Candidate &b)
{
    return std::tuple(a.terminating(), !a.ready(), !a.serving(), a.slice) <
           std::tuple(b.terminating(), !b.ready(), !b.serving(), b.slice);
}

/// Rules 21 to 23.
Candidates candidates(const Cluster &cluster, const Dialled &dialled)
{
    Candidates all;
    for (const auto &[name, slice] : cluster.slices) {
        if (slice.headless || slice.service != dialled.service->name || slice.v6 != dialled.v6)
            continue;
        for (const SlicePort &port : slice.ports) {
            if (port.name != dialled.port->name || port.protocol != dialled.port->protocol || port.number == 0)
                continue;
            for (const Endpoint &endpoint : slice.endpoints) {
                const Candidate candidate{&endpoint, name};
                const auto [known, fresh] = all.try_emplace({endpoint.address, port.number}, candidate);
                if (!fresh && counts_before(candidate, known->second))
                    known->second = candidate;
            }
        }
    }
    return all;
}

template<typename Wanted>
std::set<Backend> those(const Candidates &candidates, Wanted wanted)
{
    std::set<Backend> backends;
    for (const auto &[backend, candidate] : candidates)
        if (wanted(candidate))
            backends.insert(backend);
    return backends;
}

/// Rule 18, of one kind of hint.
std::set<Backend> hinted(const Candidates &candidates, std::vector<std::string> Endpoint::*hints,
                         const std::string &here)
{
    const auto none = those(candidates, [&](const Candidate &c) { return c.ready() && (c.endpoint->*hints).empty(); });
    if (!none.empty() || here.empty())
        return {};
    return those(candidates, [&](const Candidate &c) { return c.ready() && has(c.endpoint->*hints, here); });
}

/// Rules 16 and 18.
std::set<Backend> cluster_set(const Cluster &cluster, const Candidates &candidates)
{
    if (const auto near = hinted(candidates, &Endpoint::node_hints, cluster.node.name); !near.empty())
        return near;
    if (const auto near = hinted(candidates, &Endpoint::zone_hints, cluster.node.zone); !near.empty())
        return near;
    if (const auto ready = those(candidates, [](const Candidate &c) { return c.ready(); }); !ready.empty())
        return ready;
    return those(candidates, [](const Candidate &c) { return c.lingers(); });
}

/// Rule 17.
std::set<Backend> local_set(const Cluster &cluster, const Candidates &candidates)
{
    const auto here = [&](const Candidate &c) { return c.endpoint->node == cluster.node.name; };
    const auto ready = those(candidates, [&](const Candidate &c) { return here(c) && c.ready(); });
    if (!ready.empty())
        return ready;
    return those(candidates, [&](const Candidate &c) { return here(c) && c.lingers(); });
}

/// Rules 13 and 14.
bool admitted(const Cluster &cluster, const Dialled &dialled, const std::string &source)
{
    std::vector<std::string> ranges;
    for (const std::string &range : dialled.service->source_ranges)
        if (is_v6(range) == dialled.v6)
            ranges.push_back(range);
    const auto allowed = [&](const std::string &address) {
        return std::ranges::any_of(ranges, [&](const std::string &range) { return contains(range, address); });
    };
    const bool anybody = std::ranges::any_of(ranges, [](const std::string &range) { return range.ends_with("/0"); });
    if (ranges.empty() || anybody || allowed(source))
        return true;
    return is_balancer_ip(*dialled.service, source) && std::ranges::any_of(cluster.node.addresses, allowed);
}

/// The traffic policy Local decides (rule 8); for what the node itself and its pods dial outside of the ClusterIP it
/// does not (rule 27).
bool by_local_policy(const Dialled &dialled, From from)
{
    if (dialled.internal)
        return dialled.service->internal_local;
    return from == From::outside && external_local(*dialled.service);
}

/// All backends that some way into the port may lead to.
std::set<Backend> usable(const Cluster &cluster, const Dialled &dialled)
{
    const Candidates all = candidates(cluster, dialled);
    std::set<Backend> backends = cluster_set(cluster, all);
    if (dialled.service->internal_local || external_local(*dialled.service))
        backends.merge(local_set(cluster, all));
    return backends;
}

/// True for an address that only Services have and that some port of theirs is dialled by as it is `wanted`.
template<typename Wanted>
bool is_vip(const Cluster &cluster, const std::string &address, Wanted wanted)
{
    if (has(cluster.node.addresses, address))
        return false;
    for (const auto &[name, service] : cluster.services)
        for (const Port &port : service.ports)
            if (const auto dialled =
                    find(cluster, {.protocol = port.protocol, .destination = address, .port = port.number});
                dialled && wanted(*dialled))
                return true;
    return false;
}

/// Some address and number leads to this port, or would if the node had the address.
bool can_be_dialled(const Cluster &cluster, const Dialled &wanted)
{
    std::vector<std::string> addresses = wanted.service->cluster_ips;
    addresses.insert(addresses.end(), wanted.service->external_ips.begin(), wanted.service->external_ips.end());
    for (const Ingress &ingress : wanted.service->ingress)
        addresses.push_back(ingress.ip);
    addresses.insert(addresses.end(), {any4, any6}); // addresses of the node come and go, its NodePorts stay
    for (const std::string &address : addresses)
        for (const int number : {wanted.port->number, wanted.port->node_port}) {
            const auto dialled =
                find(cluster, {.protocol = wanted.port->protocol, .destination = address, .port = number});
            if (dialled && dialled->service == wanted.service && dialled->port == wanted.port &&
                dialled->v6 == wanted.v6)
                return true;
        }
    return false;
}

/// The port of this name, if anything leads to it.
std::optional<Dialled> port_of(const Cluster &cluster, const std::string &service, const std::string &name,
                               const std::string &protocol, bool v6)
{
    const auto found = cluster.services.find(service);
    if (found == cluster.services.end())
        return std::nullopt;
    for (const Port &port : found->second.ports)
        if (const Dialled dialled{&found->second, &port, v6, false, false};
            port.name == name && port.protocol == protocol && can_be_dialled(cluster, dialled))
            return dialled;
    return std::nullopt;
}

Answer forwarded(const Cluster &cluster, const Dialled &dialled, const Packet &packet)
{
    using enum Answer::Kind;
    const Candidates all = candidates(cluster, dialled);
    const bool local = by_local_policy(dialled, packet.from);
    Answer answer{.kind = forwarded, .backends = local ? local_set(cluster, all) : cluster_set(cluster, all)};
    if (dialled.balancer && !admitted(cluster, dialled, packet.source))
        return {.kind = dropped, .reason = "source_range"};
    if (answer.backends.empty() && local && !cluster_set(cluster, all).empty()) // rule 19
        return {.kind = dropped, .reason = "no_local_backend"};
    if (answer.backends.empty()) // rule 31
        return {.kind = refused, .reason = "no_backend"};
    answer.as_node = packet.from == From::outside && (dialled.internal || !local); // rules 26 and 27
    return answer;
}

} // namespace

bool Answer::masks(const Cluster &cluster, const Packet &packet, const Backend &backend) const
{
    if (packet.from == From::pod) // to itself: rule 28
        return backend.address == packet.source;
    return as_node && !has(cluster.node.addresses, backend.address);
}

Answer Model::answer(const Packet &packet) const
{
    if (packet.from == From::pod && !cluster_.node.pods.contains(packet.source))
        return {.kind = Answer::Kind::dropped, .reason = "bad_source"};
    const auto dialled = find(cluster_, packet);
    const bool ping = packet.protocol == "ICMP";
    const bool pinged =
        ping && is_vip(cluster_, packet.destination, [](const Dialled &d) { return d.internal || d.balancer; });
    const bool missed =
        !ping && !dialled && is_vip(cluster_, packet.destination, [](const Dialled &d) { return d.internal; });
    if (!dialled && !pinged && !missed)
        return {};
    if (packet.from == From::outside &&
        (cluster_.node.pods.contains(packet.source) || has(cluster_.node.addresses, packet.source)))
        return {.kind = Answer::Kind::dropped, .reason = "spoofed_source"};
    if (pinged)
        return {.kind = Answer::Kind::answered};
    if (missed) // rule 32
        return {.kind = Answer::Kind::refused, .reason = "no_service"};
    Answer answer = forwarded(cluster_, *dialled, packet);
    const auto last =
        last_.find({dialled->service->name, dialled->port->name, dialled->port->protocol, dialled->v6, packet.source});
    if (last == last_.end() || !answer.backends.contains(last->second.backend))
        return answer;
    if (now_ - last->second.when <= dialled->service->affinity)
        answer.backends = {last->second.backend};
    else
        answer.forgotten = last->second.backend;
    return answer;
}

void Model::note(const Packet &packet, const std::optional<Backend> &backend)
{
    const auto dialled = find(cluster_, packet);
    if (!dialled->service->affinity)
        return;
    const Client client{dialled->service->name, dialled->port->name, dialled->port->protocol, dialled->v6,
                        packet.source};
    if (backend)
        last_[client] = {*backend, now_};
    else
        last_.erase(client);
}

Conversation Model::begin(const Packet &packet, const Backend &backend) const
{
    const auto dialled = find(cluster_, packet);
    return {dialled->service->name, dialled->port->name, packet.protocol, dialled->v6, backend};
}

bool Model::outlives(const Conversation &conversation) const
{
    if (conversation.protocol != "UDP")
        return true;
    const auto dialled = port_of(cluster_, conversation.service, conversation.port, "UDP", conversation.v6);
    if (!dialled)
        return false;
    const Candidates all = candidates(cluster_, *dialled);
    return those(all, [](const Candidate &c) { return c.ready() || c.serving(); }).contains(conversation.backend);
}

void Model::change(Cluster cluster)
{
    cluster_ = std::move(cluster);
    std::erase_if(last_, [&](const auto &entry) {
        const auto &[service_name, port_name, protocol, v6, client] = entry.first;
        const auto dialled = port_of(cluster_, service_name, port_name, protocol, v6);
        return !dialled || !dialled->service->affinity || !usable(cluster_, *dialled).contains(entry.second.backend);
    });
}

} // namespace thruway::reference
