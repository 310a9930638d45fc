// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "agent/datapath/dry_run.h"
#include "agent/datapath/gc.h"
#include "agent/datapath/grace.h"
#include "agent/datapath/nexthops.h"
#include "agent/datapath/programs.h"
#include "agent/datapath/services.h"
#include "agent/node/netlink.h"
#include "tests/datapath/packet.h"

#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <vector>

namespace thruway::test {

/// Where main() has mounted a bpffs in this process's own mount namespace.
constexpr const char *bpffs = "/tmp/thruway-datapath-tests";
constexpr const char *pins = "/tmp/thruway-datapath-tests/thruway";

constexpr int verdict_next = -1;
constexpr int verdict_drop = 2;
constexpr int verdict_redirect = 7;

constexpr int xdp_drop = 1;
constexpr int xdp_pass = 2;
constexpr int xdp_tx = 3;
constexpr int xdp_redirect = 4;

/// What a program made of a packet.
struct Outcome {
    int verdict;
    Frame frame;
    uint32_t mark;
};

struct PodSpec {
    std::string name;
    std::vector<Address> addresses;
    unsigned ifindex = 0;
    MacBytes mac{};      ///< the pod's
    MacBytes host_mac{}; ///< of the host's side
};

/// One node with the loaded programs, in a network namespace, mount namespace and bpffs of its own (see main()).
/// Packets go in by BPF_PROG_TEST_RUN on behalf of real interfaces.
///
/// node 172.20.0.11 / fd20::11, uplink "up0", other node 172.20.0.12 / fd20::12 with pods 10.244.2.0/24, gateway
/// 172.20.0.1; own pods 10.244.1.0/24 and fd00:10:244:1::/64.
class World {
public:
    /// What its agent is configured to.
    static DatapathOptions options();

    /// `adjust` changes the options that the programs are loaded with. Worlds with the same options share the programs;
    /// a test that has them loaded several times is tagged [reloads], and takes too long for an emulated machine.
    explicit World(const std::function<void(DatapathOptions &)> &adjust = {});
    ~World();
    World(const World &) = delete;
    World &operator=(const World &) = delete;

    /// A pod with addresses 10.244.1.N and fd00:10:244:1::N.
    const PodSpec &pod(unsigned number, uint16_t mtu = 1500);
    void remove_pod(const PodSpec &pod);

    /// A service of one port; frontends and backends are written as in packet.h. A frontend ":30080" is a NodePort, any
    /// other a ClusterIP, unless `adjust` says otherwise.
    void service(const std::string &name, const std::vector<std::string> &frontends,
                 const std::vector<std::string> &backends, Protocol protocol = Protocol::tcp,
                 const std::function<void(ServicePlan &)> &adjust = {});
    void remove_service(const std::string &name);

    Outcome from_pod(const PodSpec &pod, const Bytes &packet) { return run("from_pod", pod.ifindex, packet); }
    /// With a segment size the packet is one of several segments that the kernel has joined.
    Outcome from_pod(const PodSpec &pod, const Packet &packet, unsigned segment = 0)
    {
        return run("from_pod", pod.ifindex, packet.build(), 0, segment);
    }
    Outcome to_pod(const PodSpec &pod, const Bytes &packet, uint32_t mark = 0)
    {
        return run("to_pod", pod.ifindex, packet, mark);
    }
    Outcome to_pod(const PodSpec &pod, const Packet &packet, uint32_t mark = 0)
    {
        return to_pod(pod, packet.build(), mark);
    }
    Outcome from_net(const Bytes &packet) { return run("from_net", uplink.index, packet); }
    Outcome from_net(const Packet &packet) { return from_net(packet.build()); }
    Outcome to_net(const Bytes &packet, uint32_t mark = 0) { return run("to_net", uplink.index, packet, mark); }
    Outcome to_net(const Packet &packet, uint32_t mark = 0) { return to_net(packet.build(), mark); }
    Outcome to_lo(const Packet &packet) { return run("to_net", loopback_ifindex, packet.build()); }

    /// As from a device that sums what it receives (CHECKSUM_COMPLETE). Throws if the sum is not that of what comes
    /// out.
    Outcome run_summed(const std::string &program, unsigned ifindex, const Bytes &packet);

    /// What the program would do, step by step.
    Walk dry_run(HookIndex hook, unsigned ifindex, const Packet &packet);

    Outcome xdp_net(const Bytes &packet) { return run_xdp(uplink.index, packet); }
    Outcome xdp_net(const Packet &packet) { return xdp_net(packet.build()); }
    /// A program by its descriptor, for those that are not pinned any more.
    static Outcome run(const Fd &program, unsigned ifindex, const Bytes &packet, uint32_t mark = 0,
                       unsigned segment = 0);
    static Fd program(const std::string &name);

    /// gc walks all of the flow table.
    void walk_flows();

    /// As if all clients that have session affinity had last dialled so much earlier.
    void age_affinity(uint64_t seconds);

    /// How often packets were dropped for this reason, at all hooks.
    [[nodiscard]] uint64_t drops(tw_drop reason) const;
    [[nodiscard]] uint64_t drops(tw_drop reason, tw_hook hook) const;

    /// What source translation has come to.
    [[nodiscard]] tw_snat snat() const;

    /// Rows of the flow table that are in use.
    [[nodiscard]] std::vector<tw_flow4> rows4() const;
    [[nodiscard]] std::vector<tw_flow6> rows6() const;

    /// What a packet looks like that comes in by the uplink.
    [[nodiscard]] Packet off_wire(const Packet &packet) const { return packet.with_macs(neighbour_mac, uplink.mac); }
    /// What a packet looks like on the uplink, on its way to the other node or to the gateway.
    [[nodiscard]] Packet on_wire(const Packet &packet) const;
    /// What a packet looks like in a pod.
    [[nodiscard]] static Packet in_pod(const Packet &packet, const PodSpec &pod);

    /// A way by the uplink to the neighbour that all others are behind.
    [[nodiscard]] NextHop to_neighbour(const std::string &gateway) const;

    Link uplink;
    const MacBytes neighbour_mac{0x02, 0xee, 0, 0, 0, 0x12};
    std::unique_ptr<Datapath> datapath;
    Arrays arrays;
    std::unique_ptr<GracePeriod> grace;
    std::unique_ptr<ServiceTables> services;
    std::unique_ptr<NextHopTables> nexthops;
    std::unique_ptr<Gc> gc;

private:
    Outcome run(const std::string &program, unsigned ifindex, const Bytes &packet, uint32_t mark = 0,
                unsigned segment = 0);
    Outcome run_xdp(unsigned ifindex, const Bytes &packet);
    void clear();

    std::vector<std::unique_ptr<PodSpec>> pods_;
};

Address address(const std::string &text);
/// As address(), of one that is written as in "[fd00::1]:80".
Address host(const std::string &text);

/// The same scene in both families, for GENERATE: `client` is pod 2, `local_backend` pod 3.
struct Scene {
    std::string client, vip, local_backend, remote_backend, outside, node, node_port, router;
};
inline const std::array<Scene, 2> scenes{{
    {"10.244.1.2", "10.96.0.1", "10.244.1.3", "10.244.2.7", "172.21.0.2", "172.20.0.11", ":30080", "192.0.2.254"},
    {"[fd00:10:244:1::2]", "[fd00:96::1]", "[fd00:10:244:1::3]", "[fd00:10:244:2::7]", "[fd21::2]", "[fd20::11]",
     "[]:30080", "[2001:db8::fe]"},
}};

} // namespace thruway::test
