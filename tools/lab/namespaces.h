// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "agent/base/error.h"
#include "agent/node/netlink.h"
#include "tools/lab/keeper.h"

#include <filesystem>
#include <string>

namespace thruway::lab {

/// What a network namespace is for; decides the sysctls that are set in it before it has interfaces.
enum class NetnsRole : uint8_t {
    router, ///< forwards: the fabric, and nodes as Kubernetes wants them
    host,   ///< an end point that the lab configures
    bare,   ///< as the kernel makes it: a pod, which a CNI plugin is to configure
};

/// Makes a network namespace in the lab, with its loopback up (in a bare one, too, it is the runtime's task).
Result<> make_netns(const Keeper &keeper, const std::string &name, NetnsRole role);

/// Takes the name away; the namespace goes with the last process in it.
Result<> remove_netns(const Keeper &keeper, const std::string &name);

/// Sets the sysctls of a role, and brings up the loopback, in a namespace that exists.
Result<> prepare_netns(int netns, NetnsRole role);

/// A netlink socket in a namespace of the lab.
Result<Netlink> netlink_in(const Keeper &keeper, const std::string &netns);

/// Mounts a bpffs on a folder, visible in the lab only.
Result<> mount_bpffs(const Keeper &keeper, const std::filesystem::path &folder);

} // namespace thruway::lab
