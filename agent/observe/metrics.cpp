// SPDX-License-Identifier: Apache-2.0
#include "agent/observe/metrics.h"

#include "agent/datapath/flows.h"
#include "agent/observe/drops.h"
#include "agent/observe/snat.h"

#include <array>
#include <prometheus/counter.h>
#include <prometheus/gauge.h>
#include <prometheus/histogram.h>
#include <prometheus/registry.h>
#include <prometheus/text_serializer.h>

namespace thruway {
namespace {

using prometheus::ClientMetric;
using prometheus::MetricFamily;
using prometheus::MetricType;
using Labels = std::vector<std::pair<std::string, std::string>>;

/// 1 ms doubled 15 times: kube-proxy's own (metrics.ExponentialBuckets(0.001, 2, 15)).
prometheus::Histogram::BucketBoundaries sync_buckets()
{
    prometheus::Histogram::BucketBoundaries buckets;
    for (double bound = 0.001; buckets.size() < 15; bound *= 2)
        buckets.push_back(bound);
    return buckets;
}

/// 0.25, 0.5, 1 to 59, 60 to 115 by 5, 120 to 300 by 30 seconds: kube-proxy's own.
prometheus::Histogram::BucketBoundaries programming_buckets()
{
    prometheus::Histogram::BucketBoundaries buckets{0.25, 0.5};
    for (double bound = 1; bound < 60; bound += 1)
        buckets.push_back(bound);
    for (double bound = 60; bound < 120; bound += 5)
        buckets.push_back(bound);
    for (double bound = 120; bound <= 300; bound += 30)
        buckets.push_back(bound);
    return buckets;
}

double seconds_since_epoch()
{
    return std::chrono::duration<double>(std::chrono::system_clock::now().time_since_epoch()).count();
}

MetricFamily family(std::string name, std::string help, MetricType type)
{
    MetricFamily made;
    made.name = std::move(name);
    made.help = std::move(help);
    made.type = type;
    return made;
}

void add(MetricFamily &family, const Labels &labels, double value)
{
    ClientMetric metric;
    for (const auto &[name, text] : labels) {
        ClientMetric::Label label;
        label.name = name;
        label.value = text;
        metric.label.push_back(std::move(label));
    }
    if (family.type == MetricType::Counter)
        metric.counter.value = value;
    else
        metric.gauge.value = value;
    family.metric.push_back(std::move(metric));
}

void add_drops(std::vector<MetricFamily> &families, const Maps &maps)
{
    MetricFamily packets = family("thruway_drops_total", "Packets that the datapath dropped.", MetricType::Counter);
    MetricFamily bytes = family("thruway_drop_bytes_total", "Bytes of dropped packets.", MetricType::Counter);
    if (auto drops = read_drops(maps)) {
        for (const DropCount &drop : *drops) {
            const Labels labels{{"reason", std::string(drop_name(drop.reason))},
                                {"direction", std::string(hook_name(drop.hook))}};
            add(packets, labels, static_cast<double>(drop.packets));
            add(bytes, labels, static_cast<double>(drop.bytes));
        }
    }
    families.push_back(std::move(packets));
    families.push_back(std::move(bytes));
}

void add_snat(std::vector<MetricFamily> &families, const Maps &maps)
{
    const auto snat = read_snat(maps);
    if (!snat)
        return;
    const auto counter = [&](const char *name, const char *help, uint64_t value) {
        add(families.emplace_back(family(name, help, MetricType::Counter)), {}, static_cast<double>(value));
    };
    counter("thruway_snat_ports_total", "Source ports that SNAT has taken.", snat->ports);
    counter("thruway_snat_collisions_total", "Source ports that SNAT has tried and found in use.", snat->collisions);
    counter("thruway_snat_exhausted_total", "Flows that SNAT found no free source port for.", snat->exhausted);
}

void add_maps(std::vector<MetricFamily> &families, const MetricsSnapshot &snapshot, const Maps &maps,
              const Arrays &arrays)
{
    MetricFamily entries = family("thruway_map_entries", "Entries in use of a BPF map.", MetricType::Gauge);
    MetricFamily capacity = family("thruway_map_capacity", "Entries that a BPF map has room for.", MetricType::Gauge);
    MetricFamily memory = family("thruway_map_memory_bytes", "Kernel memory of a BPF map.", MetricType::Gauge);
    for (const MetricsSnapshot::Fill &fill : snapshot.fill)
        add(entries, {{"map", fill.map}}, static_cast<double>(fill.entries));
    const auto flows = flow_census({&arrays.flows4, &arrays.flows6});
    add(entries, {{"map", "flows4"}}, flows[0].total());
    add(entries, {{"map", "flows6"}}, flows[1].total());
    for (const Maps::Member &member : Maps::members) {
        const Map &map = maps.*member.map;
        const Labels labels{{"map", std::string(member.name)}};
        const bool flow_table = member.name.starts_with("flows");
        const bool halves = member.name == "slots"; // two an entry
        add(capacity, labels, static_cast<double>(map.capacity()) * (flow_table ? TW_FLOW_WAYS : halves ? 2 : 1));
        if (auto bytes = map.memory())
            add(memory, labels, static_cast<double>(*bytes));
    }
    families.push_back(std::move(entries));
    families.push_back(std::move(capacity));
    families.push_back(std::move(memory));
}

void add_flows(std::vector<MetricFamily> &families, const MetricsSnapshot &snapshot, const Maps &maps,
               const Arrays &arrays)
{
    const auto current = flow_census({&arrays.flows4, &arrays.flows6});
    MetricFamily rows = family("thruway_flow_rows", "Rows of the flow table by state.", MetricType::Gauge);
    MetricFamily spilled =
        family("thruway_flow_spilled_rows", "Rows in use in the spill area of the flow table.", MetricType::Gauge);
    MetricFamily previous = family("thruway_flow_previous_rows",
                                   "Rows left in the previous flow table, while it is there.", MetricType::Gauge);
    MetricFamily events = family("thruway_flow_events_total", "What happened in the flow table.", MetricType::Counter);
    for (size_t i = 0; i < current.size(); i++) {
        const std::string name = i == 0 ? "IPv4" : "IPv6";
        const FlowCensus &census = current.at(i);
        for (size_t state = TW_FLOW_HALF_OPEN; state <= TW_FLOW_CLOSING; state++)
            add(rows, {{"ip_family", name}, {"state", std::string(flow_state_name(static_cast<tw_flow_state>(state)))}},
                census.rows.at(state));
        add(spilled, {{"ip_family", name}}, census.spilled);
        if (snapshot.previous)
            add(previous, {{"ip_family", name}},
                flow_census({&snapshot.previous->v4, &snapshot.previous->v6}).at(i).total());
    }
    if (auto counts = read_flow_events(maps))
        for (size_t event = 0; event < counts->size(); event++)
            add(events, {{"event", std::string(flow_event_name(static_cast<tw_flow_event>(event)))}},
                static_cast<double>(counts->at(event)));
    for (MetricFamily *made : {&rows, &spilled, &previous, &events})
        families.push_back(std::move(*made));
}

/// Services that have had no connection on this node are left out: a large cluster has very many of them.
void add_services(std::vector<MetricFamily> &families, const MetricsSnapshot &snapshot, const Arrays &arrays)
{
    MetricFamily connections =
        family("thruway_service_connections_total", "Connections made to a service.", MetricType::Counter);
    MetricFamily packets =
        family("thruway_service_packets_total", "Packets from and to a service's clients.", MetricType::Counter);
    MetricFamily bytes =
        family("thruway_service_bytes_total", "Bytes from and to a service's clients.", MetricType::Counter);
    const std::vector<tw_totals> live = live_totals(arrays, snapshot.previous.get(), arrays.totals.size());

    for (const auto &[key, id] : snapshot.services) {
        const tw_totals &ended = arrays.totals[id];
        if (ended.connections == 0)
            continue;
        const Labels labels{{"namespace", std::string(key.service.space.text())},
                            {"name", key.service.name},
                            {"port", std::string(key.port.text())},
                            {"protocol", std::string(protocol_name(key.protocol))},
                            {"ip_family", key.family == Family::ipv4 ? "IPv4" : "IPv6"}};
        add(connections, labels, static_cast<double>(ended.connections));
        add(packets, labels, static_cast<double>(ended.packets + live[id].packets));
        add(bytes, labels, static_cast<double>(ended.bytes + live[id].bytes));
    }
    families.push_back(std::move(connections));
    families.push_back(std::move(packets));
    families.push_back(std::move(bytes));
}

void add_objects(std::vector<MetricFamily> &families, const MetricsSnapshot &snapshot)
{
    MetricFamily objects = family("thruway_objects", "Kubernetes objects that the agent holds.", MetricType::Gauge);
    for (const MetricsSnapshot::Objects &kind : snapshot.objects)
        add(objects, {{"kind", kind.kind}}, static_cast<double>(kind.count));
    families.push_back(std::move(objects));

    MetricFamily synced = family("thruway_synced", "1 once the sources have told everything.", MetricType::Gauge);
    add(synced, {}, snapshot.synced ? 1 : 0);
    families.push_back(std::move(synced));

    MetricFamily build = family("thruway_build_info", "Version of the agent.", MetricType::Gauge);
    add(build, {{"version", THRUWAY_VERSION}}, 1);
    families.push_back(std::move(build));
}

/// Services whose traffic policy is Local and that have endpoints, but none here: what comes to them here is dropped.
void add_without_local(std::vector<MetricFamily> &families, const MetricsSnapshot &snapshot, const Arrays &arrays)
{
    constexpr std::pair<const char *, uint32_t> policies[] = {{"internal", TW_SERVICE_INTERNAL_LOCAL},
                                                              {"external", TW_SERVICE_EXTERNAL_LOCAL}};
    MetricFamily made =
        family("kubeproxy_sync_proxy_rules_no_local_endpoints_total",
               "Services with traffic policy Local that have endpoints, but none on this node.", MetricType::Gauge);
    for (const auto &[policy, flag] : policies) {
        std::array<size_t, 2> count{};
        for (const auto &[key, id] : snapshot.services) {
            const tw_service &row = arrays.services[id];
            if ((row.flags & flag) != 0 && row.local.count == 0 && row.cluster.count != 0)
                count.at(family_index(key.family))++;
        }
        for (const Family each : {Family::ipv4, Family::ipv6})
            add(made, {{"ip_family", each == Family::ipv4 ? "IPv4" : "IPv6"}, {"traffic_policy", policy}},
                static_cast<double>(count.at(family_index(each))));
    }
    families.push_back(std::move(made));
}

/// One metric for each family, as kube-proxy has a proxy for each.
template<typename Builder, typename... Rest>
auto for_families(prometheus::Registry &registry, Builder builder, const char *name, const char *help,
                  const Rest &...rest)
{
    auto &made = builder.Name(name).Help(help).Register(registry);
    return std::array{&made.Add({{"ip_family", "IPv4"}}, rest...), &made.Add({{"ip_family", "IPv6"}}, rest...)};
}

template<typename Builder>
auto &single(prometheus::Registry &registry, Builder builder, const char *name, const char *help)
{
    return builder.Name(name).Help(help).Register(registry).Add({});
}

/// How probes were answered: by status, both of which are there from the start.
struct Probes {
    prometheus::Counter &good;
    prometheus::Counter &bad;

    Probes(prometheus::Registry &registry, const char *name, const char *help)
        : Probes(prometheus::BuildCounter().Name(name).Help(help).Register(registry))
    {
    }
    explicit Probes(prometheus::Family<prometheus::Counter> &family)
        : good(family.Add({{"code", "200"}})), bad(family.Add({{"code", "503"}}))
    {
    }
};

} // namespace

struct Metrics::Instruments {
    prometheus::Registry registry;
    std::array<prometheus::Histogram *, 2> sync =
        for_families(registry, prometheus::BuildHistogram(), "kubeproxy_sync_proxy_rules_duration_seconds",
                     "Time to bring a round of changes into the maps, of both families at once.", sync_buckets());
    std::array<prometheus::Gauge *, 2> last_sync =
        for_families(registry, prometheus::BuildGauge(), "kubeproxy_sync_proxy_rules_last_timestamp_seconds",
                     "When changes were last brought into the maps.");
    std::array<prometheus::Gauge *, 2> last_queued =
        for_families(registry, prometheus::BuildGauge(), "kubeproxy_sync_proxy_rules_last_queued_timestamp_seconds",
                     "When a change that is to be brought into the maps was last heard of.");
    std::array<prometheus::Histogram *, 2> programming = for_families(
        registry, prometheus::BuildHistogram(), "kubeproxy_network_programming_duration_seconds",
        "Time from the change of a pod or service to its being in the maps of this node.", programming_buckets());
    prometheus::Counter &slices =
        single(registry, prometheus::BuildCounter(), "kubeproxy_sync_proxy_rules_endpoint_changes_total",
               "Changes of EndpointSlices that the agent has heard of.");
    prometheus::Gauge &slices_pending =
        single(registry, prometheus::BuildGauge(), "kubeproxy_sync_proxy_rules_endpoint_changes_pending",
               "Those that are not in the maps yet.");
    prometheus::Counter &services =
        single(registry, prometheus::BuildCounter(), "kubeproxy_sync_proxy_rules_service_changes_total",
               "Changes of Services that the agent has heard of.");
    prometheus::Gauge &services_pending =
        single(registry, prometheus::BuildGauge(), "kubeproxy_sync_proxy_rules_service_changes_pending",
               "Those that are not in the maps yet.");
    Probes healthz{registry, "kubeproxy_proxy_healthz_total", "Answers to /healthz."};
    Probes livez{registry, "kubeproxy_proxy_livez_total", "Answers to /livez."};
    prometheus::Histogram &walk =
        prometheus::BuildHistogram()
            .Name("thruway_gc_slice_duration_seconds")
            .Help("Time to walk a slice of the flow table.")
            .Register(registry)
            .Add({}, prometheus::Histogram::BucketBoundaries{0.0001, 0.0002, 0.0005, 0.001, 0.002, 0.005, 0.01, 0.1});
    prometheus::Counter &node_ports_taken =
        single(registry, prometheus::BuildCounter(), "thruway_node_ports_taken_total",
               "Node ports at which a process of the node had a socket when they came.");
    prometheus::Counter &refusals = prometheus::BuildCounter()
                                        .Name("thruway_refused_objects_total")
                                        .Help("Objects that were refused, or did not fit into a map.")
                                        .Register(registry)
                                        .Add({});
    double started = seconds_since_epoch();
};

Metrics::Metrics() : instruments_(std::make_unique<Instruments>())
{
}

Metrics::~Metrics() = default;

void Metrics::queued(size_t services, size_t slices)
{
    for (prometheus::Gauge *last : instruments_->last_queued)
        last->Set(seconds_since_epoch());
    instruments_->services.Increment(static_cast<double>(services));
    instruments_->services_pending.Increment(static_cast<double>(services));
    instruments_->slices.Increment(static_cast<double>(slices));
    instruments_->slices_pending.Increment(static_cast<double>(slices));
}

void Metrics::synced(std::chrono::nanoseconds took)
{
    for (prometheus::Histogram *sync : instruments_->sync)
        sync->Observe(std::chrono::duration<double>(took).count());
    for (prometheus::Gauge *last : instruments_->last_sync)
        last->Set(seconds_since_epoch());
    instruments_->services_pending.Set(0);
    instruments_->slices_pending.Set(0);
}

void Metrics::programmed(Family family, int64_t triggered)
{
    const double at = static_cast<double>(triggered) / 1000;
    // What happened before this agent ran says nothing of how quick it is.
    if (at > instruments_->started)
        instruments_->programming.at(family_index(family))->Observe(std::max(0.0, seconds_since_epoch() - at));
}

void Metrics::node_port_taken()
{
    instruments_->node_ports_taken.Increment();
}

void Metrics::probed(Probe probe, int status)
{
    const Probes &probes = probe == Probe::healthz ? instruments_->healthz : instruments_->livez;
    (status == 200 ? probes.good : probes.bad).Increment();
}

void Metrics::walked(std::chrono::nanoseconds took)
{
    instruments_->walk.Observe(std::chrono::duration<double>(took).count());
}

void Metrics::refused()
{
    instruments_->refusals.Increment();
}

std::string Metrics::text(const MetricsSnapshot &snapshot, const Maps &maps, const Arrays &arrays) const
{
    std::vector<MetricFamily> families = instruments_->registry.Collect();
    add_objects(families, snapshot);
    add_without_local(families, snapshot, arrays);
    add_maps(families, snapshot, maps, arrays);
    add_flows(families, snapshot, maps, arrays);
    add_drops(families, maps);
    add_snat(families, maps);
    add_services(families, snapshot, arrays);
    return prometheus::TextSerializer().Serialize(families);
}

} // namespace thruway
