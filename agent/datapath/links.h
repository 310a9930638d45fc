// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "agent/base/error.h"

#include <array>
#include <functional>
#include <linux/bpf.h>
#include <string>
#include <string_view>

namespace thruway {

/// A program of ours, and where in the kernel it belongs.
struct Hook {
    std::string_view program;
    bpf_attach_type type;
};

/// Each of them by its index here.
enum HookIndex : uint8_t { from_pod, to_pod, from_net, to_net, xdp_net, sockets_first };
constexpr std::array hooks{
    Hook{"from_pod", BPF_TCX_INGRESS},
    Hook{"to_pod", BPF_TCX_EGRESS},
    Hook{"from_net", BPF_TCX_INGRESS},
    Hook{"to_net", BPF_TCX_EGRESS},
    Hook{"xdp_net", BPF_XDP},
    Hook{"sock_connect4", BPF_CGROUP_INET4_CONNECT},
    Hook{"sock_connect6", BPF_CGROUP_INET6_CONNECT},
    Hook{"sock_sendmsg4", BPF_CGROUP_UDP4_SENDMSG},
    Hook{"sock_sendmsg6", BPF_CGROUP_UDP6_SENDMSG},
    Hook{"sock_recvmsg4", BPF_CGROUP_UDP4_RECVMSG},
    Hook{"sock_recvmsg6", BPF_CGROUP_UDP6_RECVMSG},
    Hook{"sock_peer4", BPF_CGROUP_INET4_GETPEERNAME},
    Hook{"sock_peer6", BPF_CGROUP_INET6_GETPEERNAME},
};

/// Attachments that outlive the agent: pins in a folder of a bpffs, named "PROGRAM" for the cgroup and
/// "PROGRAM-IFINDEX" for a device. Attaching again puts the new program in the place of the old one, in one step, and
/// does nothing if that is the same.
class Links {
public:
    Links() = default;
    explicit Links(std::string folder) : folder_(std::move(folder)) {}

    /// By a tcx link.
    Result<> attach_tcx(const Hook &hook, int program, unsigned ifindex) const;

    /// By a clsact filter, for kernels without tcx.
    Result<> attach_clsact(const Hook &hook, int program, unsigned ifindex) const;

    /// To a device's XDP hook, which has room for one program: an error (EBUSY, EEXIST) if it is somebody else's.
    /// Natively: by the driver.
    Result<> attach_xdp(const Hook &hook, int program, unsigned ifindex) const;

    /// Id of the program that our XDP link holds on the device; 0: there is no such link.
    [[nodiscard]] uint32_t xdp_program(const Hook &hook, unsigned ifindex) const;

    /// To a cgroup2 folder.
    Result<> attach_cgroup(const Hook &hook, int program, const std::string &cgroup) const;

    /// Detaches from a device. One that is gone needs no detaching, only the pin goes.
    void detach(const Hook &hook, unsigned ifindex) const;

    /// Detaches from the cgroup.
    void detach(const Hook &hook) const;

    /// Detaches from all devices but those that `keep` says.
    void detach_others(const std::function<bool(unsigned ifindex)> &keep) const;

    /// Detaches everything.
    void detach_all() const;

private:
    [[nodiscard]] std::string path(const Hook &hook, unsigned ifindex) const;

    std::string folder_;
};

/// Attaches by a clsact filter that nothing remembers: it ends with the device. Does nothing if it is there.
Result<> attach_filter(const Hook &hook, int program, unsigned ifindex);

} // namespace thruway
