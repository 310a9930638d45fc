// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "agent/base/error.h"
#include "agent/base/fd.h"
#include "agent/datapath/layout.h"

#include <array>
#include <string>
#include <string_view>
#include <vector>

namespace thruway {

/// What this kernel can do, found by trying and not by its version: vendors carry features back.
struct Features {
    bool tcx = false; ///< multi-program tc links (Linux 6.6); else clsact filters are used

    /// Names of features that are needed and missing.
    std::vector<std::string> missing;

    static Features probe();
};

/// How long flows may be idle, in seconds.
struct Timeouts {
    uint32_t tcp_established = 86'400;
    uint32_t tcp_half_open = 60;
    uint32_t tcp_closing = 20;
    uint32_t udp_one_way = 30;
    uint32_t udp_two_way = 180;
    uint32_t icmp = 30;
};

struct DatapathOptions {
    std::string bpffs;  ///< folder for pins, below a mounted bpffs
    std::string cgroup; ///< cgroup2 folder whose processes get socket translation; empty: none
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

    /// Attaches from_net and to_net to an uplink: by tcx links where the kernel has them. A device that has them
    /// already gets the current ones in their place, in one step.
    Result<> attach_uplink(unsigned ifindex, std::string_view device);

    /// Detaches them. A device that is gone needs no detaching, only its pins go.
    void detach_uplink(unsigned ifindex);

    /// Attaches from_pod and to_pod to a pod's host-side interface: by clsact filters, which end with the interface. A
    /// tcx link waits for a grace period with the kernel's network lock held: two of them 22 ms a pod, measured, where
    /// two filters take 0.5; and an interface of our own needs no protection from others.
    Result<> attach_pod(unsigned ifindex, std::string_view device);

    /// Attaches socket translation to the cgroup, or takes it off.
    Result<> attach_sockets();
    void detach_sockets();

    /// Notes that what is pinned is what this agent has loaded. To be called when all is attached.
    void commit();

    /// Removes every pin and attachment below `bpffs`; nothing else is touched.
    static Result<> cleanup(const std::string &bpffs);

private:
    struct Program {
        std::string_view name;
        Fd fd;
    };
    enum Which : uint8_t { from_pod, to_pod, from_net, to_net, sockets_first };

    Result<> load(const DatapathOptions &options);
    Result<> attach_tcx(Which program, unsigned ifindex);
    Result<> attach_filter(Which program, unsigned ifindex);
    [[nodiscard]] std::string link_path(Which program, unsigned ifindex) const;

    std::string bpffs_;
    std::string cgroup_;
    Features features_;
    Maps maps_;
    std::vector<Program> programs_;
    std::array<uint8_t, 32> digest_{};
    bool loaded_ = false;
};

} // namespace thruway
