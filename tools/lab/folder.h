// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "agent/base/error.h"

#include <filesystem>
#include <string>
#include <string_view>

namespace thruway::lab {

/// Where a lab keeps its files:
///
///     options.json       what it was made of
///     keeper.lock        held by the keeper
///     manifests/         what the agents follow
///     nodes/NODE/        agent.lock and agent.log; run/; bpf/ with a bpffs that only the lab's own processes see; with
///                        dataplane none, addresses/ with an empty file for each address that a pod has
///     pods/NAMESPACE_NAME.{json,lock,log}   a pod; its echo server
class Folder {
public:
    using Path = std::filesystem::path;

    /// Where the folders of all labs are.
    static Path base() { return "/run/thruway-lab"; }

    explicit Folder(std::string_view lab) : root_(base() / lab) {}

    [[nodiscard]] const Path &root() const { return root_; }
    [[nodiscard]] Path options() const { return root_ / "options.json"; }
    [[nodiscard]] Path keeper_lock() const { return root_ / "keeper.lock"; }
    [[nodiscard]] Path keeper_log() const { return root_ / "keeper.log"; }
    [[nodiscard]] Path manifests() const { return root_ / "manifests"; }
    [[nodiscard]] Path manifest(std::string_view name) const { return manifests() / fmt::format("{}.yaml", name); }
    [[nodiscard]] Path node(std::string_view name) const { return root_ / "nodes" / name; }
    [[nodiscard]] Path bpffs(std::string_view node_name) const { return node(node_name) / "bpf"; }
    [[nodiscard]] Path run_dir(std::string_view node_name) const { return node(node_name) / "run"; }
    [[nodiscard]] Path agent_lock(std::string_view node_name) const { return node(node_name) / "agent.lock"; }
    [[nodiscard]] Path agent_log(std::string_view node_name) const { return node(node_name) / "agent.log"; }
    [[nodiscard]] Path addresses(std::string_view node_name) const { return node(node_name) / "addresses"; }
    [[nodiscard]] Path pods() const { return root_ / "pods"; }
    [[nodiscard]] Path pod_record(std::string_view id) const { return pods() / fmt::format("{}.json", id); }
    [[nodiscard]] Path pod_lock(std::string_view id) const { return pods() / fmt::format("{}.lock", id); }
    [[nodiscard]] Path pod_log(std::string_view id) const { return pods() / fmt::format("{}.log", id); }

    /// Writes a file of the lab so that readers see the old text or the new one, nothing between.
    [[nodiscard]] Result<> write(const Path &path, std::string_view text) const { return put(path, text, 0); }

    /// As write(), but fails with EEXIST if the file is there already.
    [[nodiscard]] Result<> write_new(const Path &path, std::string_view text) const;

private:
    [[nodiscard]] Result<> put(const Path &path, std::string_view text, unsigned rename_flags) const;

    Path root_;
};

Result<> make_folder(const std::filesystem::path &path);

/// Where the running program lies: our binaries are built, and installed, side by side.
std::filesystem::path program_folder();

/// The end of a log, for an error message: its last line that is not empty.
std::string last_line(const std::filesystem::path &path);

} // namespace thruway::lab
