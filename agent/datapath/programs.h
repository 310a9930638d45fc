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

namespace thruway {

/// Source ports for SNAT. Their number is a power of two.
constexpr uint16_t snat_first = 49'152;
constexpr uint32_t snat_count = 16'384;

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

    /// Attaches xdp_net to an uplink that has the others, as far as that goes. See there.
    XdpState attach_xdp(const XdpDevice &device, XdpMode mode) const;

    /// Detaches all of them. A device that is gone needs no detaching, only its pins go.
    void detach_uplink(unsigned ifindex);

    /// Detaches what a run before has left on devices that are no uplinks any more.
    void detach_other_uplinks(const std::function<bool(unsigned ifindex)> &keep);

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
    Result<> load(const DatapathOptions &options);

    std::string bpffs_;
    std::string cgroup_;
    Features features_;
    Maps maps_;
    std::vector<Fd> programs_; // as `hooks` has them
    Links links_;
    std::array<uint8_t, 32> digest_{};
    bool loaded_ = false;
};

} // namespace thruway
