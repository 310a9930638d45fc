// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "agent/base/error.h"
#include "tools/lab/folder.h"
#include "tools/lab/keeper.h"
#include "tools/lab/process.h"
#include "tools/lab/topology.h"

#include <filesystem>
#include <functional>
#include <string>
#include <string_view>
#include <vector>

namespace thruway::lab {

/// Asked between the steps of whatever takes long: whether to give up.
using Interrupted = std::function<bool()>;

/// Nodes, pods and a client as network namespaces on a fabric of virtual wires. All that lives is under the lab's
/// keeper; what lies about is under its folder and its control group. pods.h and agents.h say what can be done with
/// one.
class Lab {
public:
    /// Makes a lab: fabric, nodes, agents (waiting until they are ready) and pods. It goes down with the object, or
    /// with the process if that is killed, unless it is released. What a dead lab of the same name left is removed
    /// first.
    static Result<Lab> up(const Options &options, const Interrupted &interrupted = {});

    /// The lab of that name that is up.
    static Result<Lab> open(const std::string &name);

    /// Ends the lab of that name, or removes what it left if it is dead or half made.
    static Result<> down(const std::string &name);

    Lab(Lab &&) = default;
    Lab &operator=(Lab &&) = delete;
    Lab(const Lab &) = delete;
    Lab &operator=(const Lab &) = delete;
    ~Lab();

    /// Lets it stay up without this object.
    void release() { keeper_.release(); }

    [[nodiscard]] const Options &options() const { return options_; }
    [[nodiscard]] const Topology &topology() const { return topology_; }
    [[nodiscard]] const Folder &folder() const { return folder_; }
    [[nodiscard]] const Keeper &keeper() const { return keeper_; }

    [[nodiscard]] Result<Node> node(std::string_view name) const;
    [[nodiscard]] std::filesystem::path node_cgroup(std::string_view node) const { return cgroup_ / node; }
    [[nodiscard]] std::filesystem::path pods_cgroup(std::string_view node) const { return cgroup_ / node / "pods"; }

    /// Where commands run that are sent to "node1", "client", "fabric", or a pod: "pod-1-2", "kube-system/dns".
    [[nodiscard]] Result<Place> place(const std::string &name) const;

    /// Runs a command at a place and catches its output.
    Result<Output> run(const std::string &place_name, std::vector<std::string> argv,
                       std::chrono::milliseconds timeout = std::chrono::seconds(60)) const;

    /// Starts a command at a place; its output goes where ours does.
    Result<Process> start(const std::string &place_name, std::vector<std::string> argv) const;

    /// Shows the agents a manifest, or another version of it, under a name that is the caller's to choose.
    Result<> put_manifest(std::string_view name, std::string_view text) const;
    Result<> remove_manifest(std::string_view name) const;

private:
    Lab(Options options, Folder folder, std::filesystem::path cgroup, Keeper keeper)
        : options_(std::move(options)), topology_(topology_of(options_)), folder_(std::move(folder)),
          cgroup_(std::move(cgroup)), keeper_(std::move(keeper))
    {
    }

    static Result<Lab> claim(const Options &options);
    Result<> build(const Interrupted &interrupted) const;

    Options options_;
    Topology topology_;
    Folder folder_;
    std::filesystem::path cgroup_;
    Keeper keeper_;
};

} // namespace thruway::lab
