// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "agent/base/error.h"
#include "agent/base/fd.h"
#include "tools/lab/folder.h"
#include "tools/lab/presence.h"

#include <filesystem>
#include <string>

namespace thruway::lab {

/// The process that a lab lives under: the first of a pid namespace, with a mount and a network namespace of its own.
/// It does nothing but be there. When it dies, however it dies, the kernel kills every process of the lab and with the
/// last of them drops the mounts and the network namespaces, so nothing has to be cleaned up by anybody.
class Keeper {
public:
    /// Starts the keeper of the lab in `folder`. It ends with the object (or its owner's death) until it is released.
    static Result<Keeper> start(const std::filesystem::path &program, const Folder &folder);

    /// The keeper of the lab in `folder`, which may be dead or never have been.
    static Result<Keeper> find(const Folder &folder);

    [[nodiscard]] bool lives() const { return bool(presence_); }

    [[nodiscard]] const Presence &presence() const { return presence_; }

    /// The network namespace of that name in the lab.
    [[nodiscard]] Result<Fd> netns(const std::string &name) const;

    /// Lets the keeper outlive its owner.
    void release();

    /// Whether the keeper ends with its owner.
    [[nodiscard]] bool owned() const { return bool(owner_); }

    /// Ends the keeper and waits until everything of the lab is gone.
    Result<> kill();

private:
    explicit Keeper(Presence presence) : presence_(std::move(presence)) {}

    Presence presence_;
    Fd root_;  ///< the root of the lab's mount namespace
    Fd owner_; ///< the keeper ends when this is closed unused
};

/// The name of the keeper's own network namespace, which is the router of the fabric.
constexpr const char *fabric_netns = "fabric";

/// Where network namespaces have their names, in the lab's mount namespace.
constexpr const char *netns_folder = "/run/netns";

/// What the keeper process runs: sets up its namespaces, says "ready" or an error on standard output, stays if a byte
/// comes in on standard input, and ends when that is closed.
int run_keeper(const Folder &folder);

} // namespace thruway::lab
