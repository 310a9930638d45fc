// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "agent/datapath/grace.h"
#include "agent/datapath/nexthops.h"
#include "agent/datapath/programs.h"
#include "agent/datapath/services.h"
#include "tools/bench/packet_path_list.h"

#include <filesystem>
#include <memory>
#include <optional>

namespace thruway::bench {

/// One node with the loaded programs and tables, but no agent: what packets need to go from its pods to Services, and
/// from outside to a NodePort. All backends are on another node.
class PacketNode {
public:
    /// In the network and mount namespace of the caller, which should be of its own.
    static Result<std::unique_ptr<PacketNode>> up(uint32_t flow_rows);
    PacketNode(const PacketNode &) = delete;
    PacketNode &operator=(const PacketNode &) = delete;
    ~PacketNode();

    /// What client `number` sends to a pod of another node, a ClusterIP, or the NodePort: all are different, for
    /// millions of clients.
    static tw_bench_packet to_pod(uint32_t number);
    static tw_bench_packet to_cluster_ip(uint32_t number);
    static tw_bench_packet to_node_port(uint32_t number);

    /// Likewise to Services that differ in one thing: one or 1,000 source ranges, 5,000 endpoints, session affinity.
    static tw_bench_packet to_one_range(uint32_t number);
    static tw_bench_packet to_many_ranges(uint32_t number);
    static tw_bench_packet to_many_endpoints(uint32_t number);
    static tw_bench_packet to_affinity(uint32_t number);

    /// A loaded program by its name.
    [[nodiscard]] Result<Fd> program(const std::string &name) const;

    [[nodiscard]] const Maps &maps() const { return datapath_->maps(); }
    Arrays &arrays() { return arrays_; }
    [[nodiscard]] uint32_t rows() const { return rows_; }     ///< of the flow table, without the spill area
    [[nodiscard]] unsigned pod() const { return pod_; }       ///< ifindex of the interface of all client pods
    [[nodiscard]] unsigned uplink() const { return uplink_; } ///< likewise

private:
    PacketNode() = default;
    Result<> mount_bpffs();
    Result<> load(uint32_t flow_rows);
    Result<> make_links();
    Result<> fill_tables();
    Result<> add_services();

    std::filesystem::path bpffs_;
    std::optional<Datapath> datapath_;
    Arrays arrays_;
    std::unique_ptr<GracePeriod> grace_;
    std::optional<NextHopTables> nexthops_;
    std::optional<ServiceTables> services_;
    unsigned pod_ = 0;
    unsigned uplink_ = 0;
    uint32_t rows_ = 0;
};

} // namespace thruway::bench
