// SPDX-License-Identifier: Apache-2.0
#include "agent/agent.h"

#include "agent/datapath/flow_tables.h"
#include "agent/file/source.h"
#include "agent/kube/source.h"
#include "agent/node/reserved_ports.h"
#include "agent/node/sockets.h"

#include <algorithm>
#include <filesystem>
#include <fstream>
#include <linux/magic.h>
#include <malloc.h>
#include <spdlog/spdlog.h>
#include <sstream>
#include <sys/vfs.h>
#include <unistd.h>

namespace thruway {
namespace {

namespace fs = std::filesystem;

/// Between two slices of a walk through the flow table: if nothing hurries, and if somebody waits for what it does.
constexpr auto walk_pause = std::chrono::milliseconds(250);
constexpr auto walk_hurry = std::chrono::milliseconds(10);

/// The root of the cgroup2 hierarchy, wherever it is mounted.
Result<std::string> cgroup_root()
{
    std::ifstream mounts("/proc/self/mounts");
    std::string device, path, type, rest;
    while (mounts >> device >> path >> type && std::getline(mounts, rest))
        if (type == "cgroup2")
            return path;
    return fail("no cgroup2 is mounted: name a folder with --cgroup, or set sock: off");
}

std::string reserved_ports_record(const Config &config)
{
    return config.run_dir + "/reserved_ports";
}

/// The folder may be a bpffs itself, or a folder in one that is made now.
Result<> make_bpffs_folder(const std::string &path)
{
    const std::string parent = fs::path(path).parent_path();
    struct statfs info{};
    if (::statfs(path.c_str(), &info) == 0 && info.f_type == BPF_FS_MAGIC)
        return {};
    if (::statfs(parent.c_str(), &info) != 0)
        return fail_errno("bpffs: {}", parent);
    if (info.f_type != BPF_FS_MAGIC)
        return fail("bpffs: {} is no bpffs: mount one with \"mount -t bpf bpf {}\"", parent, parent);
    std::error_code error;
    if (!fs::create_directory(path, error) && error)
        return fail_code(error.value(), "bpffs: cannot create {}", path);
    return {};
}

size_t count_of(const std::vector<Change> &changes, Kind kind)
{
    return static_cast<size_t>(std::ranges::count_if(changes, [kind](const Change &change) {
        const auto *upsert = std::get_if<Upsert>(&change);
        return kind == (upsert ? static_cast<Kind>(upsert->object.index()) : std::get<Delete>(change).key.kind);
    }));
}

} // namespace

Agent::Agent(Loop &loop, Config config)
    : loop_(&loop), config_(std::move(config)), nodes_(Symbol(config_.node)),
      journal_(config_.run_dir + "/objects", [this](const auto &visit) { walk(visit); }),
      health_ports_(
          loop, [this] { return synced_; }, [this](const auto &...what) { refuse_health_port(what...); }),
      node_ports_(
          loop, [this] { return host_->node_port_addresses(); },
          [this](const std::string &line) {
              spdlog::warn("{}", line);
              metrics_.node_port_taken();
          })
{
}

Result<std::unique_ptr<Agent>> Agent::start(Loop &loop, const Config &config)
{
    std::unique_ptr<Agent> agent(new Agent(loop, config)); // NOLINT(cppcoreguidelines-owning-memory)
    for (const auto step : {&Agent::lock, &Agent::open_datapath, &Agent::open_network, &Agent::start_source})
        if (auto done = (agent.get()->*step)(); !done)
            return std::unexpected(done.error());
    return agent;
}

Result<> Agent::lock()
{
    if (::geteuid() != 0)
        return fail("must run as root: it loads programs into the kernel");
    std::error_code error;
    fs::create_directories(config_.run_dir, error);
    if (error)
        return fail_code(error.value(), "run-dir: cannot create {}", config_.run_dir);
    if (auto made = make_bpffs_folder(config_.bpffs); !made)
        return made;

    auto run = FileLock::take(config_.run_dir + "/agent.lock", false);
    if (!run)
        return std::unexpected(run.error());
    run_lock_ = std::move(*run);
    auto bpffs = FileLock::take(config_.bpffs, true);
    if (!bpffs)
        return std::unexpected(bpffs.error());
    bpffs_lock_ = std::move(*bpffs);
    return {};
}

Result<> Agent::open_datapath()
{
    if (config_.sock != SockMode::off && config_.cgroup.empty()) {
        auto root = cgroup_root();
        if (!root)
            return std::unexpected(root.error());
        config_.cgroup = *root;
    }
    auto datapath = Datapath::open({.bpffs = config_.bpffs,
                                    .cgroup = config_.cgroup,
                                    .sock = config_.sock,
                                    .localhost_node_ports = config_.localhost_node_ports,
                                    .sizes = config_.sizes,
                                    .timeouts = config_.timeouts});
    if (!datapath)
        return std::unexpected(datapath.error());
    datapath_ = std::move(*datapath);
    auto arrays = Arrays::of(datapath_.maps(), true);
    if (!arrays)
        return std::unexpected(arrays.error());
    arrays_ = std::move(*arrays);
    gc_.emplace(datapath_, arrays_);
    auto grace = GracePeriod::start();
    if (!grace)
        return std::unexpected(grace.error());
    grace_ = std::move(*grace);
    auto services = ServiceTables::adopt(datapath_.maps(), arrays_, *grace_);
    if (!services)
        return std::unexpected(services.error());
    service_tables_ = std::make_unique<ServiceTables>(std::move(*services));
    auto nexthops = NextHopTables::adopt(datapath_.maps(), arrays_, *grace_, config_.sizes.endpoints);
    if (!nexthops)
        return std::unexpected(nexthops.error());
    nexthops_ = std::make_unique<NextHopTables>(std::move(*nexthops));
    spdlog::info("datapath at {}: {}, hooks by {}", config_.bpffs,
                 datapath_.loaded() ? "programs loaded" : "programs taken over",
                 datapath_.features().tcx ? "tcx" : "clsact");
    return {};
}

Result<> Agent::open_network()
{
    auto host = HostNetwork::open(*loop_, datapath_, *nexthops_,
                                  {.uplinks = config_.uplinks,
                                   .xdp = config_.xdp,
                                   .node_ports = *NodePortAddresses::parse(config_.node_port_addresses)});
    if (!host)
        return std::unexpected(host.error());
    host_ = std::move(*host);
    for (const std::string &name : host_->uplink_names())
        spdlog::info("uplink {}", name);
    pods_ = std::make_unique<Pods>(datapath_, *nexthops_, *host_, PodStore(config_.run_dir + "/pods"));
    if (auto restored = pods_->restore(); !restored)
        return restored;
    host_->on_change([this] {
        pods_->refresh();
        health_ports_.set_addresses(host_->listen_addresses());
        if (synced_ && update_place())
            apply();
    });
    if (auto set = host_->translate_loopback(config_.sock == SockMode::off); !set)
        return set;
    if (auto attached = attach_sockets(); !attached)
        return attached;
    if (!datapath_.fresh())
        datapath_.commit();
    use_current_table();
    walk_flows();
    if (auto reserved = ReservedPorts(reserved_ports_record(config_))
                            .reserve(PortSet::range(snat_first, snat_first + snat_count - 1));
        !reserved)
        spdlog::warn("{}: node ports and sockets of this node may meet", reserved.error().text());
    return {};
}

Result<> Agent::attach_sockets()
{
    if (config_.sock != SockMode::off)
        return datapath_.attach_sockets();
    datapath_.detach_sockets();
    return {};
}

/// All hooks have programs that know both flow tables, if there are two.
void Agent::use_current_table()
{
    if (!datapath_.maps().changing())
        return;
    use_current_flow_tables(arrays_);
    current_table_ticket_ = grace_->ticket();
}

/// Walks a slice of the flow table, and plans the next one.
void Agent::walk_flows()
{
    const auto start = std::chrono::steady_clock::now();
    const bool changing = datapath_.maps().changing();
    const bool moves = changing && grace_->passed(current_table_ticket_);
    auto ended = gc_->step(moves);
    metrics_.walked(std::chrono::steady_clock::now() - start);
    if (!ended) {
        spdlog::error("{}", ended.error().text());
    } else if (*ended && moves && gc_->left() == 0) {
        if (auto done = end_table_change(); !done) {
            spdlog::error("flow table: the previous one stays until the next start: {}", done.error().text());
            current_table_ticket_ = UINT64_MAX;
        }
    }
    const bool hurries = gc_->hurries() || (moves && datapath_.maps().changing());
    loop_->after(hurries ? walk_hurry : walk_pause, [this] { walk_flows(); });
}

/// The previous flow table is empty: programs that do not know it take the place of those that do.
Result<> Agent::end_table_change()
{
    for (const auto &step : std::initializer_list<std::function<Result<>()>>{
             [this] { return datapath_.forget_previous_table(); },
             [this] { return host_->attach(); },
             [this] { return pods_->attach(); },
             [this] { return attach_sockets(); },
         })
        if (auto done = step(); !done)
            return done;
    datapath_.drop_previous_table();
    arrays_.previous.reset();
    spdlog::info("flow table: all flows have moved to the new one");
    return {};
}

Result<> Agent::start_source()
{
    SourceEvents events{
        .changes = [this](std::vector<Change> c) { on_changes(std::move(c)); },
        .synced = [this] { on_synced(); },
        .refused = [this](const std::string &line) { refuse(line); },
    };
    if (config_.source == "kube")
        source_ = std::make_unique<KubeSource>(*loop_, config_.node, config_.kube, std::move(events));
    else
        source_ = std::make_unique<FileSource>(*loop_, config_.source.substr(config_.source.find(':') + 1),
                                               std::move(events));
    return source_->start();
}

void Agent::refuse(const std::string &line)
{
    spdlog::warn("{}", line);
    metrics_.refused();
}

/// As kube-proxy, which others look for by its reason.
void Agent::refuse_health_port(const ObjectName &service, uint16_t port, const Error &error)
{
    const ObjectKey about{Kind::service, service};
    refuse(fmt::format("{}: spec.healthCheckNodePort {}: {}", about.text(), port, error.text()));
    source_->post({.regarding = about,
                   .warning = true,
                   .reason = "FailedToStartServiceHealthcheck",
                   .action = "Listen",
                   .note = fmt::format("node {} failed to start healthcheck \"{}\" on port {}: {}", config_.node,
                                       service.text(), port, error.text())});
}

void Agent::on_changes(std::vector<Change> changes)
{
    if (synced_)
        journal_.note(changes);
    metrics_.queued(count_of(changes, Kind::service), count_of(changes, Kind::endpoint_slice));
    std::vector<std::pair<Family, int64_t>> triggers;
    for (Change &change : changes) {
        if (const auto *upsert = std::get_if<Upsert>(&change))
            if (const auto *slice = std::get_if<EndpointSlice>(&upsert->object); slice && slice->triggered)
                triggers.emplace_back(slice->family, slice->triggered);
        take(change);
    }
    if (!synced_) // nothing is touched before everything is known
        return;
    apply();
    for (const auto &[family, trigger] : triggers)
        metrics_.programmed(family, trigger);
    if (auto written = journal_.flush(); !written)
        spdlog::error("{}", written.error().text());
}

void Agent::take(Change &change)
{
    if (auto *upsert = std::get_if<Upsert>(&change)) {
        Object &object = upsert->object;
        if (auto *service = std::get_if<Service>(&object))
            services_.upsert(std::move(*service));
        else if (auto *slice = std::get_if<EndpointSlice>(&object))
            services_.upsert(std::move(*slice));
        else if (const auto *node = std::get_if<Node>(&object))
            nodes_.upsert(*node);
        else if (auto *pod = std::get_if<Pod>(&object))
            pod_objects_.insert_or_assign(pod->name, std::move(*pod));
        else if (auto *range = std::get_if<ServiceCidr>(&object))
            service_cidrs_.insert_or_assign(range->name, std::move(*range));
        return;
    }
    const ObjectKey &key = std::get<Delete>(change).key;
    switch (key.kind) {
    case Kind::service:
        return services_.remove_service(key.name);
    case Kind::endpoint_slice:
        return services_.remove_slice(key.name);
    case Kind::node:
        return nodes_.remove(key.name);
    case Kind::pod:
        pod_objects_.erase(key.name);
        return;
    case Kind::service_cidr:
        service_cidrs_.erase(key.name);
        return;
    case Kind::name_space:
        return;
    }
}

/// Tells the planner what it has to know of this node; true if that is news.
bool Agent::update_place()
{
    const Node *self = nodes_.self();
    return services_.set_place(
        {.node = Symbol(config_.node), .zone = self ? self->zone : Symbol(), .addresses = host_->addresses()});
}

void Agent::apply()
{
    const auto start = std::chrono::steady_clock::now();
    update_place();
    apply_services();
    apply_nodes();
    metrics_.synced(std::chrono::steady_clock::now() - start);
    updated_ = std::chrono::system_clock::now().time_since_epoch() / std::chrono::microseconds(1);
}

void Agent::apply_services()
{
    ServiceChanges changes = services_.take_changes();
    const auto health_checks = std::move(changes.health_checks);
    node_ports_.apply(changes);
    for (const std::string &line : service_tables_->apply(std::move(changes)))
        refuse(line);
    if (auto set = service_tables_->set_cidrs(service_ranges()); !set)
        refuse(fmt::format("ServiceCIDR: {}", set.error().text()));
    health_ports_.apply(health_checks);
    for (const std::string &line : services_.take_refusals())
        refuse(line);
    end_flows(service_tables_->take_purges());
}

std::vector<Prefix> Agent::service_ranges() const
{
    std::vector<Prefix> all;
    for (const auto &[name, range] : service_cidrs_)
        all.insert(all.end(), range.cidrs.begin(), range.cidrs.end());
    return all;
}

/// Of UDP to backends that do not serve any more.
void Agent::end_flows(const std::vector<tw_purge> &lost)
{
    for (const tw_purge &purge : lost)
        gc_->purge(purge);
    if (lost.empty() || config_.sock == SockMode::off)
        return;
    auto ended = end_lost_sockets(datapath_, lost);
    if (!ended)
        spdlog::error("UDP sockets stay connected to what is gone: {}", ended.error().text());
    else if (*ended > 0)
        spdlog::info("{} UDP sockets of this node were connected to what is gone, and are ended", *ended);
}

void Agent::apply_nodes()
{
    const NodeChanges changes = nodes_.take_changes();
    for (const std::string &line : nodes_.take_refusals())
        refuse(line);
    if (const Node *self = nodes_.self()) {
        pods_->set_ranges(self->pod_cidrs);
        host_->set_internal_addresses(self->addresses);
        health_ports_.set_addresses(host_->listen_addresses());
    }
    if (!changes.empty())
        host_->apply(changes);
}

void Agent::on_synced()
{
    const auto start = std::chrono::steady_clock::now();
    synced_ = true;
    apply();
    for (const std::string &line : service_tables_->sweep())
        refuse(line);
    nexthops_->sweep();
    host_->sweep();
    if (datapath_.fresh())
        datapath_.commit();
    if (!nodes_.self())
        refuse(fmt::format("Node {}: there is no such object: this node's pods get no addresses", config_.node));
    const auto took = std::chrono::steady_clock::now() - start;
    spdlog::info("in sync: {} services, {} slices, {} nodes in {:.1f} ms", services_.service_count(),
                 services_.slice_count(), nodes_.all().size(), std::chrono::duration<double, std::milli>(took).count());
    if (auto written = journal_.flush(); !written)
        spdlog::error("{}", written.error().text());
    ::malloc_trim(0); // to take everything in at once takes more than to keep it
}

void Agent::walk(const std::function<void(const Object &)> &visit) const
{
    services_.each_service([&](const Service &service) { visit(service); });
    services_.each_slice([&](const EndpointSlice &slice) { visit(slice); });
    for (const auto &[name, node] : nodes_.all())
        visit(node);
    for (const auto &[name, pod] : pod_objects_)
        visit(pod);
    for (const auto &[name, range] : service_cidrs_)
        visit(range);
}

MetricsSnapshot Agent::snapshot() const
{
    MetricsSnapshot snapshot;
    const ServiceTables::Fill fill = service_tables_->fill();
    snapshot.synced = synced_;
    snapshot.fill = {
        {"services", fill.services}, {"frontends", fill.frontends}, {"backends", fill.backends}, {"slots", fill.slots}};
    snapshot.objects = {{"Service", services_.service_count()},
                        {"EndpointSlice", services_.slice_count()},
                        {"Node", nodes_.all().size()},
                        {"Pod", pod_objects_.size()}};
    service_tables_->each([&](const ServiceKey &key, uint32_t id) { snapshot.services.emplace_back(key, id); });
    snapshot.previous = arrays_.previous;
    return snapshot;
}

Result<> cleanup(const Config &config)
{
    auto lock = FileLock::take(config.run_dir + "/agent.lock", false);
    if (!lock && lock.error().code() != ENOENT)
        return std::unexpected(lock.error());
    if (auto cleaned = PodStore(config.run_dir + "/pods").delete_links(); !cleaned)
        return cleaned;
    if (auto cleaned = HostNetwork::cleanup(); !cleaned)
        return cleaned;
    if (auto released = ReservedPorts(reserved_ports_record(config)).release(); !released)
        return released;
    if (auto cleaned = Datapath::cleanup(config.bpffs); !cleaned)
        return cleaned;
    std::error_code error;
    for (const char *name : {"/pods", "/objects", "/agent.sock", "/agent.lock"})
        fs::remove_all(config.run_dir + name, error);
    fs::remove(config.run_dir, error); // not if somebody else keeps something there
    return {};
}

} // namespace thruway
