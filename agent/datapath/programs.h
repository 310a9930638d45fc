// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "agent/base/error.h"
#include "agent/base/fd.h"
#include "agent/datapath/features.h"
#include "agent/datapath/layout.h"
#include "agent/datapath/links.h"
#include "agent/datapath/xdp.h"

#include <array>
#include <functional>
#include <string>
#include <string_view>
#include <vector>

struct datapath; // NOLINT(readability-identifier-naming): the skeleton, as bpftool names it

namespace thruway {

/// The number of `lo` in each network namespace.
constexpr unsigned loopback_ifindex = 1;
/// The program that walks the flow table (bpf/gc.bpf.c): pinned with the others, but attached to nothing.
constexpr std::string_view gc_program = "gc";
constexpr std::string_view iterator_program = "sockets_connected";

/// The map of the constants that all of them have: pinned beside them for those who load the same once more, since only
/// who may administer the whole machine finds a map by its number.
constexpr std::string_view constants_map = "constants";

/// Source ports for SNAT. Their number is a power of two.
constexpr uint16_t snat_first = 49'152;
constexpr uint32_t snat_count = 16'384;

/// How long flows may be idle, in seconds, and for how long after the first start connections that were there before us
/// are left to the host's stack.
struct Timeouts {
    uint32_t tcp_established = 86'400;
    uint32_t tcp_half_open = 60;
    uint32_t tcp_closing = 20;
    uint32_t udp_one_way = 30;
    uint32_t udp_two_way = 180;
    uint32_t icmp = 30;
    uint32_t adopt = 3'600;
};

/// Whose sockets are translated: those of processes in this network namespace, or in any (pods too).
enum class SockMode : uint8_t { off, host, all };

std::string_view sock_mode_name(SockMode mode);

struct DatapathOptions {
    std::string bpffs;  ///< folder for pins, below a mounted bpffs
    std::string cgroup; ///< cgroup2 folder whose processes get socket translation; empty: none
    SockMode sock = SockMode::host;
    bool localhost_node_ports = false;
    uint32_t snat_ports = snat_count; ///< how many from snat_first on are used, a power of two
    Sizes sizes;
    Timeouts timeouts;
};

/// The programs in the kernel, and the maps they run on. Everything is pinned, so it goes on when the agent ends; the
/// next agent takes it over. Programs are loaded only if code, constants or maps differ from what is pinned.
class Datapath {
public:
    static Result<Datapath> open(const DatapathOptions &options);

    [[nodiscard]] const Maps &maps() const { return maps_; }
    [[nodiscard]] const Features &features() const { return features_; }
    [[nodiscard]] bool loaded() const { return loaded_; }
    /// Nothing of ours has carried packets here yet, and the tables are empty: pods' traffic goes another way, and must
    /// not come to ours before the tables are full.
    [[nodiscard]] bool fresh() const { return fresh_; }
    [[nodiscard]] int gc() const { return gc_.get(); }
    [[nodiscard]] int sockets_connected() const { return sockets_connected_.get(); }

    /// Attaches from_net and to_net to an uplink: by tcx links where the kernel has them. A device that has them
    /// already gets the current ones in their place, in one step.
    Result<> attach_uplink(unsigned ifindex, std::string_view device);

    /// Attaches xdp_net to an uplink that has the others, as far as that goes. See there.
    XdpState attach_xdp(const XdpDevice &device, XdpMode mode) const;

    /// Detaches all of them. A device that is gone needs no detaching, only its pins go.
    void detach_uplink(unsigned ifindex);

    /// Attaches to_net to `lo`, for what the host sends to itself, or takes it off.
    Result<> attach_loopback();
    void detach_loopback();

    /// Detaches what a run before has left on devices that `keep` does not name.
    void detach_others(const std::function<bool(unsigned ifindex)> &keep);

    /// Attaches from_pod and to_pod to a pod's host-side interface: by clsact filters, which end with the interface. A
    /// tcx link waits for a grace period with the kernel's network lock held: two of them 22 ms a pod, measured, where
    /// two filters take 0.5; and an interface of our own needs no protection from others.
    Result<> attach_pod(unsigned ifindex, std::string_view device);

    /// Attaches socket translation to the cgroup, or takes it off.
    Result<> attach_sockets();
    void detach_sockets();

    /// Notes that what is pinned is what this agent has loaded, and has a fresh datapath carry packets. To be called
    /// when all is attached, of a fresh one not before the tables are filled, too.
    void commit();

    /// Loads programs that do not know the previous flow table, which is empty now. They have to be attached in the
    /// place of those that do; then, and not before, drop_previous_table().
    Result<> forget_previous_table();
    void drop_previous_table();

    /// Removes every pin and attachment below `bpffs`; nothing else is touched.
    static Result<> cleanup(const std::string &bpffs);

private:
    Result<> load(bool previous);
    Result<> attach_device(HookIndex hook, unsigned ifindex, std::string_view device);
    bool take_over_programs();
    Result<Fd> pin_program(const datapath &skeleton, std::string_view name) const;
    [[nodiscard]] std::string program_path(std::string_view program) const;

    DatapathOptions options_;
    Features features_;
    Maps maps_;
    std::vector<Fd> programs_; // as `hooks` has them
    Fd gc_;
    Fd sockets_connected_;
    Links links_;
    std::array<uint8_t, sizeof(tw_layout::programs)> digest_{};
    bool loaded_ = false;
    bool fresh_ = false;
};

} // namespace thruway
