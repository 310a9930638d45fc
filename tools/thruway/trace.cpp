// SPDX-License-Identifier: Apache-2.0
#include "tools/thruway/trace.h"

#include "agent/datapath/dry_run.h"
#include "agent/node/netlink.h"
#include "tools/thruway/flows.h"
#include "tools/thruway/probe.h"
#include "tools/thruway/services.h"
#include "tools/thruway/steps.h"
#include "tools/thruway/tables.h"

#include <algorithm>
#include <filesystem>
#include <map>
#include <netinet/in.h>

namespace thruway::cli {
namespace {

/// Below what clients get from their hosts, so that it belongs to no flow but by intent.
constexpr uint16_t unused_port = 20'000;

uint8_t protocol_of(const TraceRequest &request, const TracePoint &to, Family family)
{
    if (request.protocol == "tcp" || (!request.protocol && !to.protocol && to.port != 0))
        return IPPROTO_TCP;
    if (request.protocol == "udp")
        return IPPROTO_UDP;
    if (request.protocol == "sctp")
        return IPPROTO_SCTP;
    if (!request.protocol && to.protocol)
        return static_cast<uint8_t>(*to.protocol);
    return family == Family::ipv6 ? uint8_t{IPPROTO_ICMPV6} : uint8_t{IPPROTO_ICMP};
}

Result<> expect_port(const Probe &probe, const TraceRequest &request)
{
    if (probe.destination_port == 0 && probe.protocol != IPPROTO_ICMP && probe.protocol != IPPROTO_ICMPV6)
        return fail("{} needs a port: {}:PORT", *request.protocol, request.destination.text());
    return {};
}

/// The program that the packet meets first, and where it goes if that lets it pass.
struct Entry {
    HookIndex hook = from_pod;
    unsigned ifindex = 0;
    Row pass;
};

/// What a trace begins with: a packet, the program that sees it (none: the kernel alone deals with it), and what came
/// before.
struct Start {
    Probe probe;
    std::optional<Entry> entry;
    Row pass; ///< where it goes without a program
    std::vector<Row> before;
};

/// A service that a socket dials, and the backends among which it gets one.
struct Dialled {
    uint32_t service;
    tw_range range;
};

const Row &the_stack()
{
    static const Row row{{"index", 0}, {"kind", "stack"}};
    return row;
}

class Tracer {
public:
    static Result<Tracer> at(const Site &site, const Names &names);

    Result<> run(const TraceRequest &request, bool &dropped, const Sink &sink);

private:
    Tracer(const Site &site, const Names &names) : site_(&site), names_(&names) {}

    [[nodiscard]] Row hop_row(uint32_t index) const;
    [[nodiscard]] Row gateway_row(const Way &way) const;
    [[nodiscard]] Terms terms() const;
    [[nodiscard]] bool is_own(const Address &address) const;
    Result<unsigned> uplink(const std::optional<std::string> &name) const;
    Result<Start> start(const TraceRequest &request);
    Result<Start> start_at_host(const TraceRequest &request, const TracePoint &to, Probe probe);
    Result<std::optional<Dialled>> dialled_at_socket(const Probe &probe) const;
    Row translate_at_socket(Probe &probe, const Dialled &dialled) const;

    const Site *site_;
    const Names *names_;
    ServiceNames services_;
    std::map<uint32_t, EndpointEntry> endpoints_;
    std::vector<NodeEntry> nodes_;
};

Result<Tracer> Tracer::at(const Site &site, const Names &names)
{
    Tracer tracer(site, names);
    auto services = read_services(site);
    if (!services)
        return std::unexpected(services.error());
    tracer.services_ = names_by_id(join_services(*services, names));
    auto endpoints = read_endpoints(site);
    if (!endpoints)
        return std::unexpected(endpoints.error());
    for (EndpointEntry &endpoint : *endpoints)
        tracer.endpoints_.emplace(endpoint.id, std::move(endpoint));
    auto nodes = read_nodes(site);
    if (!nodes)
        return std::unexpected(nodes.error());
    tracer.nodes_ = std::move(*nodes);
    return tracer;
}

void set_owner(Row &row, const Owner *owner)
{
    if (!owner)
        return;
    set_text(row, "namespace", owner->name.space.text());
    row["name"] = owner->name.name;
}

Row Tracer::hop_row(uint32_t index) const
{
    if (index == 0)
        return the_stack();
    Row row{{"index", index}};
    const auto endpoint = endpoints_.find(index);
    const HopEntry way = read_way(site_->arrays, index);
    if (endpoint != endpoints_.end()) {
        row["kind"] = "pod";
        row["address"] = endpoint->second.addresses.front().text();
        set_owner(row, names_->owner(endpoint->second.addresses.front()));
    } else if (way.gateway) {
        const Owner *owner = names_->owner(*way.gateway);
        row["kind"] = owner && owner->is_node ? "node" : "gateway";
        row["address"] = way.gateway->text();
        set_owner(row, owner);
    } else {
        row["kind"] = "neighbour";
    }
    set_text(row, "interface", way.interface);
    row["ifindex"] = way.ifindex;
    if (way.mac)
        row["mac"] = mac_text(*way.mac);
    row["mtu"] = way.mtu;
    return row;
}

/// Where the kernel's own routing leads.
Row Tracer::gateway_row(const Way &way) const
{
    Row row{{"kind", way.gateway ? "gateway" : "neighbour"}};
    if (way.gateway) {
        const Owner *owner = names_->owner(*way.gateway);
        if (owner && owner->is_node)
            row["kind"] = "node";
        row["address"] = way.gateway->text();
        set_owner(row, owner);
    }
    set_text(row, "interface", interface_name(way.ifindex));
    row["ifindex"] = way.ifindex;
    return row;
}

Terms Tracer::terms() const
{
    return {*names_, services_, [this](uint32_t index) { return hop_row(index); }};
}

bool Tracer::is_own(const Address &address) const
{
    const auto found = site_->maps.node_addresses.find<tw_address, uint32_t>(address.raw());
    return found && found->has_value();
}

Result<unsigned> Tracer::uplink(const std::optional<std::string> &name) const
{
    auto all = sorted_entries<uint32_t, uint32_t>(site_->maps.ifindexes);
    if (!all)
        return std::unexpected(all.error());
    for (const auto &[ifindex, hop] : *all)
        if (!name || interface_name(ifindex) == *name)
            return ifindex;
    return name ? fail("{} is no uplink", *name) : fail("no uplink has programs: nothing from outside is served");
}

/// The packet's addresses are of the first family that both ends have.
bool choose_family(Probe &probe, const std::vector<Address> &from, const std::vector<Address> &to)
{
    for (const Address &source : from)
        for (const Address &destination : to)
            if (source.family() == destination.family()) {
                probe.source = source;
                probe.destination = destination;
                return true;
            }
    return false;
}

Result<Start> Tracer::start(const TraceRequest &request)
{
    auto to = find_destination(request.destination, request.protocol, *names_);
    if (!to)
        return std::unexpected(to.error());
    Probe probe;
    probe.destination_port = to->port;
    probe.source_port = request.source.number().value_or(unused_port);
    const std::optional<Address> address = request.source.address;
    if ((address && is_own(*address)) || (!address && request.source.name == "host"))
        return start_at_host(request, *to, probe);

    std::vector<Address> from;
    if (address) {
        from = {*address};
    } else {
        auto pod = find_pod(request.source, *names_, "pod");
        if (!pod)
            return std::unexpected(pod.error());
        from = *pod;
    }
    if (!choose_family(probe, from, to->addresses))
        return fail("{} and {} have no addresses of the same family", request.source.text(),
                    request.destination.text());
    probe.protocol = protocol_of(request, *to, probe.source.family());
    if (auto complete = expect_port(probe, request); !complete)
        return std::unexpected(complete.error());
    for (const auto &[id, endpoint] : endpoints_)
        if (std::ranges::find(endpoint.addresses, probe.source) != endpoint.addresses.end())
            return Start{probe, Entry{from_pod, endpoint.way.ifindex, the_stack()}, {}, {}};
    auto ifindex = uplink(request.uplink);
    if (!ifindex)
        return std::unexpected(ifindex.error());
    return Start{probe, Entry{from_net, *ifindex, the_stack()}, {}, {}};
}

/// What the host sends is translated at its sockets, then routed by the kernel; only then a program sees a packet.
Result<Start> Tracer::start_at_host(const TraceRequest &request, const TracePoint &to, Probe probe)
{
    auto netlink = Netlink::open();
    if (!netlink)
        return std::unexpected(netlink.error());
    const auto of_family = [&](const Address &a) {
        return !request.source.address || a.family() == request.source.address->family();
    };
    const auto destination = std::ranges::find_if(to.addresses, of_family);
    if (destination == to.addresses.end())
        return fail("{} and {} have no addresses of the same family", request.source.text(),
                    request.destination.text());
    probe.destination = *destination;
    probe.protocol = protocol_of(request, to, probe.destination.family());
    if (auto complete = expect_port(probe, request); !complete)
        return std::unexpected(complete.error());
    Start start{probe, {}, the_stack(), {}};
    auto dialled = dialled_at_socket(probe);
    if (!dialled)
        return std::unexpected(dialled.error());
    if (*dialled)
        start.before.push_back(translate_at_socket(start.probe, **dialled));

    auto way = netlink->way_to(start.probe.destination);
    if (!way)
        return std::unexpected(way.error());
    start.probe.source =
        request.source.address.value_or(way->source.value_or(Address::any(probe.destination.family())));
    if (way->local)
        return start;
    start.pass = gateway_row(*way);
    for (const auto &[id, endpoint] : endpoints_)
        if (std::ranges::find(endpoint.addresses, start.probe.destination) != endpoint.addresses.end())
            start.entry = {to_pod, endpoint.way.ifindex, hop_row(id)};
    if (!start.entry && uplink(interface_name(way->ifindex)))
        start.entry = {to_net, way->ifindex, start.pass};
    return start;
}

/// The service that a socket of the host would be translated for, if sockets are. As sock.bpf.c sees it: what it leaves
/// to the packets is none.
Result<std::optional<Dialled>> Tracer::dialled_at_socket(const Probe &probe) const
{
    std::error_code error;
    const bool v6 = probe.destination.family() == Family::ipv6;
    if ((probe.protocol != IPPROTO_TCP && probe.protocol != IPPROTO_UDP) ||
        !std::filesystem::exists(site_->bpffs + (v6 ? "/links/sock_connect6" : "/links/sock_connect4"), error))
        return std::nullopt;
    Frontend frontend{probe.destination, probe.destination_port, static_cast<Protocol>(probe.protocol)};
    auto found = site_->maps.frontends.find<tw_frontend, uint32_t>(frontend.raw());
    const auto on = site_->maps.node_port_addresses.find<tw_address, uint32_t>(probe.destination.raw());
    if (!on)
        return std::unexpected(on.error());
    if (found && !*found && *on) {
        frontend.address = Address::any(probe.destination.family());
        found = site_->maps.frontends.find<tw_frontend, uint32_t>(frontend.raw());
    }
    if (!found)
        return std::unexpected(found.error());
    if (!*found || kind_of(**found) == TW_FRONTEND_BALANCER)
        return std::nullopt;
    const tw_service row = site_->arrays.services[service_of(**found)];
    const bool local = kind_of(**found) == TW_FRONTEND_CLUSTER && row.flags & TW_SERVICE_INTERNAL_LOCAL;
    if (local && row.local.count == 0 && row.cluster.count > 0) // dropped, which a socket cannot
        return std::nullopt;
    return Dialled{service_of(**found), local ? row.local : row.cluster};
}

/// As sock.bpf.c does it: the socket dials a backend. The choice is random there; the first is as good as any.
Row Tracer::translate_at_socket(Probe &probe, const Dialled &dialled) const
{
    Row row{{"step", "socket"}};
    if (const auto name = services_.find(dialled.service); name != services_.end())
        row["service"] = port_row(name->second);
    row["service_id"] = dialled.service;
    const std::vector<BackendEntry> backends = backends_in(site_->arrays, dialled.range);
    row["backends"] = backends.size();
    if (backends.empty())
        return row;
    probe.destination = backends.front().at.address;
    probe.destination_port = backends.front().at.port;
    row["backend"] = end_row(probe.destination, probe.destination_port, probe.protocol, *names_);
    return row;
}

Result<> Tracer::run(const TraceRequest &request, bool &dropped, const Sink &sink)
{
    auto start = this->start(request);
    if (!start)
        return std::unexpected(start.error());
    std::vector<Row> rows = start->before;
    const Terms terms = this->terms();
    if (!rows.empty() && !rows.back().contains("backend")) {
        dropped = true;
        rows.push_back({{"step", "verdict"}, {"verdict", "refused"}});
    } else if (!start->entry) {
        rows.push_back(verdict_row({.verdict = -1}, start->pass, terms));
    } else {
        auto dry = DryRun::load(site_->bpffs, site_->maps);
        if (!dry)
            return std::unexpected(dry.error());
        const Entry &entry = *start->entry;
        auto walk = dry->run(entry.hook, entry.ifindex, start->probe.frame());
        if (!walk)
            return std::unexpected(walk.error());
        Row hook{{"step", "hook"}, {"program", hooks[entry.hook].program}};
        set_text(hook, "interface", interface_name(entry.ifindex));
        hook["ifindex"] = entry.ifindex;
        rows.push_back(std::move(hook));
        for (const tw_step &step : walk->steps)
            rows.push_back(step_row(step, start->probe.protocol, terms));
        rows.push_back(verdict_row(*walk, entry.pass, terms));
        dropped = rows.back()["verdict"] == "dropped";
    }
    for (const Row &row : rows)
        sink(row);
    return {};
}

} // namespace

Listing trace(const Site &site, const TraceRequest &request, bool &dropped)
{
    return {.columns = {column("STEP", "/step"), {"WHAT", step_words}},
            .produce = [&site, request, &dropped](const Sink &sink) -> Result<> {
                const Names names = Names::read(site.run_dir);
                auto tracer = Tracer::at(site, names);
                if (!tracer)
                    return std::unexpected(tracer.error());
                return tracer->run(request, dropped, sink);
            }};
}

} // namespace thruway::cli
