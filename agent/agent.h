// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "agent/base/lock.h"
#include "agent/base/loop.h"
#include "agent/config.h"
#include "agent/datapath/gc.h"
#include "agent/datapath/grace.h"
#include "agent/datapath/services.h"
#include "agent/node/host.h"
#include "agent/node/node_ports.h"
#include "agent/node/pods.h"
#include "agent/observe/health_ports.h"
#include "agent/observe/metrics.h"
#include "agent/planner/nodes.h"
#include "agent/planner/services.h"
#include "agent/state/journal.h"
#include "agent/state/source.h"

#include <memory>
#include <unordered_map>

namespace thruway {

/// The agent: what the sources tell goes through the planners into the datapath, in one direction. All of it happens in
/// one loop.
class Agent {
public:
    /// Takes over or sets up the datapath. Fails with one line that says what to mend.
    static Result<std::unique_ptr<Agent>> start(Loop &loop, const Config &config);

    Agent(const Agent &) = delete;
    Agent &operator=(const Agent &) = delete;

    /// The sources have told everything, and it is applied.
    [[nodiscard]] bool synced() const { return synced_; }

    [[nodiscard]] const Config &config() const { return config_; }
    [[nodiscard]] const ServicePlanner &services() const { return services_; }
    [[nodiscard]] const NodePlanner &nodes() const { return nodes_; }
    [[nodiscard]] const ServiceTables &service_tables() const { return *service_tables_; }
    [[nodiscard]] const Datapath &datapath() const { return datapath_; }
    [[nodiscard]] const HostNetwork &host() const { return *host_; }
    [[nodiscard]] Pods &pods() { return *pods_; }
    [[nodiscard]] const Arrays &arrays() const { return arrays_; }
    /// When changes were last brought into the maps: µs since 1970, 0 never.
    [[nodiscard]] int64_t updated() const { return updated_; }
    [[nodiscard]] const Source &source() const { return *source_; }
    [[nodiscard]] Metrics &metrics() { return metrics_; }
    [[nodiscard]] MetricsSnapshot snapshot() const;

private:
    Agent(Loop &loop, Config config);

    Result<> lock();
    Result<> open_datapath();
    Result<> open_network();
    Result<> start_source();
    void on_changes(std::vector<Change> changes);
    void on_synced();
    void take(Change &change);
    bool update_place();
    void apply();
    void apply_services();
    void end_flows(const std::vector<tw_purge> &lost);
    [[nodiscard]] std::vector<Prefix> service_ranges() const;
    void apply_nodes();
    Result<> attach_sockets();
    void use_current_table();
    void walk_flows();
    Result<> end_table_change();
    void refuse(const std::string &line);
    void refuse_health_port(const ObjectName &service, uint16_t port, const Error &error);
    void walk(const std::function<void(const Object &)> &visit) const;

    Loop *loop_;
    Config config_;
    std::optional<FileLock> run_lock_;
    std::optional<FileLock> bpffs_lock_;
    Datapath datapath_;
    Arrays arrays_;
    std::unique_ptr<GracePeriod> grace_;
    std::optional<Gc> gc_;
    uint64_t current_table_ticket_ = 0; // passed: nobody makes flows in the previous table any more
    std::unique_ptr<NextHopTables> nexthops_;
    std::unique_ptr<ServiceTables> service_tables_;
    std::unique_ptr<HostNetwork> host_;
    std::unique_ptr<Pods> pods_;
    ServicePlanner services_;
    NodePlanner nodes_;
    std::unordered_map<ObjectName, Pod> pod_objects_;
    std::unordered_map<ObjectName, ServiceCidr> service_cidrs_;
    Journal journal_;
    Metrics metrics_;
    HealthPorts health_ports_;
    NodePorts node_ports_;
    std::unique_ptr<Source> source_;
    bool synced_ = false;
    int64_t updated_ = 0;
};

/// Removes all that an agent with this configuration leaves in the kernel and on disk, and nothing else.
Result<> cleanup(const Config &config);

} // namespace thruway
