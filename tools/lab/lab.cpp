// SPDX-License-Identifier: Apache-2.0
#include "tools/lab/lab.h"

#include "agent/base/file.h"
#include "tools/lab/agents.h"
#include "tools/lab/cgroup.h"
#include "tools/lab/fabric.h"
#include "tools/lab/pods.h"

#include <algorithm>
#include <fcntl.h>
#include <nlohmann/json.hpp>
#include <sys/file.h>
#include <thread>

namespace thruway::lab {
namespace {

using nlohmann::json;

constexpr std::chrono::seconds ready_timeout(20);

std::string options_text(const Options &options)
{
    return json{
        {"name", options.name},
        {"nodes", options.nodes},
        {"pods", options.pods},
        {"mtu", options.mtu},
        {"fabric", options.fabric},
        {"xdp", options.xdp},
        {"dataplane", options.dataplane},
        {"agents", options.agents},
        {"source", options.source},
        {"bin_dir", options.bin_dir.native()},
        {"agent_args", options.agent_args},
    }
        .dump(2);
}

Result<Options> parse_options(const std::string &text)
{
    try {
        const json read = json::parse(text);
        return Options{
            .name = read.at("name"),
            .nodes = read.at("nodes"),
            .pods = read.at("pods"),
            .mtu = read.at("mtu"),
            .fabric = read.at("fabric"),
            .xdp = read.at("xdp"),
            .dataplane = read.at("dataplane"),
            .agents = read.at("agents"),
            .source = read.at("source"),
            .bin_dir = read.at("bin_dir").get<std::string>(),
            .agent_args = read.at("agent_args"),
        };
    } catch (const json::exception &error) {
        return fail("{}", error.what());
    }
}

/// A lab's name becomes part of file names.
Result<> check_name(const std::string &name)
{
    const bool good = !name.empty() && name.size() <= 40 && std::ranges::all_of(name, [](char c) {
        return (c >= 'a' && c <= 'z') || (c >= '0' && c <= '9') || c == '-';
    });
    if (!good)
        return fail("\"{}\" is no name for a lab: use up to 40 of a-z, 0-9 and -", name);
    return {};
}

Result<> check(const Options &options)
{
    if (::geteuid() != 0)
        return fail("a lab needs root: it makes namespaces");
    std::vector<std::string> programs{"thruway-lab"};
    if (options.dataplane == Dataplane::thruway)
        programs.insert(programs.end(), {"thruway-agent", "thruway-cni"});
    for (const auto &program : programs) {
        const auto path = options.bin_dir / program;
        if (::access(path.c_str(), X_OK) != 0)
            return fail_errno("cannot run {} (build it, or name its folder with --bin-dir)", path.native());
    }
    if (!options.agents && options.pods > 0)
        return fail("pods need agents: with --no-agents, say --pods 0 and add pods later");
    return check_name(options.name);
}

/// Only one process at a time takes or gives up a name. Nobody holds this for long.
Result<Fd> lock_names()
{
    if (auto made = make_folder(Folder::base()); !made)
        return std::unexpected(made.error());
    Fd folder(::open(Folder::base().c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC));
    if (!folder || ::flock(folder.get(), LOCK_EX) != 0)
        return fail_errno("cannot lock {}", Folder::base().native());
    return folder;
}

/// What is left when a lab's keeper is gone.
Result<> remove_remains(const Folder &folder, const std::filesystem::path &cgroup)
{
    if (auto removed = remove_cgroup(cgroup); !removed)
        return removed;
    std::error_code error;
    std::filesystem::remove_all(folder.root(), error);
    if (error)
        return fail_code(error.value(), "cannot remove {}", folder.root().native());
    return {};
}

Result<> check_interrupted(const Interrupted &interrupted)
{
    if (interrupted && interrupted())
        return fail("interrupted");
    return {};
}

} // namespace

Result<Lab> Lab::up(const Options &options, const Interrupted &interrupted)
{
    if (auto good = check(options); !good)
        return std::unexpected(good.error());
    auto lab = claim(options);
    if (!lab)
        return lab;
    if (auto built = lab->build(interrupted); !built)
        return std::unexpected(built.error());
    return lab;
}

Result<Lab> Lab::claim(const Options &options)
{
    const Folder folder(options.name);
    auto cgroup = lab_cgroup(options.name);
    if (!cgroup)
        return std::unexpected(cgroup.error());
    auto lock = lock_names();
    if (!lock)
        return std::unexpected(lock.error());

    auto living = Keeper::find(folder);
    if (!living)
        return std::unexpected(living.error());
    if (living->lives())
        return fail("lab \"{0}\" is up already: end it with thruway-lab down --name {0}", options.name);
    if (auto removed = remove_remains(folder, *cgroup); !removed)
        return std::unexpected(removed.error());

    for (const auto &path : {folder.root(), folder.manifests(), folder.pods()}) {
        if (auto made = make_folder(path); !made)
            return std::unexpected(made.error());
    }
    if (auto written = folder.write(folder.options(), options_text(options)); !written)
        return std::unexpected(written.error());
    auto keeper = Keeper::start(options.bin_dir / "thruway-lab", folder);
    if (!keeper) {
        auto failure = std::unexpected(keeper.error());
        [[maybe_unused]] const auto removed = remove_remains(folder, *cgroup);
        return failure;
    }
    return Lab(options, folder, *cgroup, std::move(*keeper));
}

Result<> Lab::build(const Interrupted &interrupted) const
{
    if (auto built = build_fabric(*this); !built)
        return built;
    for (const Node &node : topology_.nodes) {
        if (auto good = check_interrupted(interrupted); !good)
            return good;
        if (auto built = build_node(*this, node); !built)
            return built;
    }
    if (options_.dataplane == Dataplane::thruway && options_.agents) {
        for (const Node &node : topology_.nodes) {
            if (auto started = start_agent(*this, node.name); !started)
                return started;
        }
        for (const Node &node : topology_.nodes) {
            if (auto ready = wait_agent_ready(*this, node.name, ready_timeout, interrupted); !ready)
                return ready;
        }
    }
    for (unsigned number = 1; number <= options_.nodes; number++) {
        for (unsigned pod = 1; pod <= options_.pods; pod++) {
            if (auto good = check_interrupted(interrupted); !good)
                return good;
            const PodSpec spec{.node = topology_.nodes[number - 1].name, .name = fmt::format("pod-{}-{}", number, pod)};
            if (auto added = add_pod(*this, spec); !added)
                return std::unexpected(added.error());
        }
    }
    return {};
}

Result<Lab> Lab::open(const std::string &name)
{
    if (auto good = check_name(name); !good)
        return std::unexpected(good.error());
    Folder folder(name);
    if (!std::filesystem::exists(folder.root()))
        return fail("there is no lab \"{}\"", name);
    auto keeper = Keeper::find(folder);
    if (!keeper)
        return std::unexpected(keeper.error());
    if (!keeper->lives())
        return fail("lab \"{0}\" is dead: remove what it left with thruway-lab down --name {0}", name);

    auto text = read_file(folder.options());
    if (!text)
        return std::unexpected(text.error());
    auto options = parse_options(*text);
    if (!options)
        return fail_within(folder.options().native(), options.error());
    auto cgroup = lab_cgroup(name);
    if (!cgroup)
        return std::unexpected(cgroup.error());
    return Lab(std::move(*options), std::move(folder), std::move(*cgroup), std::move(*keeper));
}

Result<> Lab::down(const std::string &name)
{
    if (auto good = check_name(name); !good)
        return good;
    const Folder folder(name);
    auto cgroup = lab_cgroup(name);
    if (!cgroup)
        return std::unexpected(cgroup.error());
    auto lock = lock_names();
    if (!lock)
        return std::unexpected(lock.error());
    if (!std::filesystem::exists(folder.root()) && !std::filesystem::exists(*cgroup))
        return fail("there is no lab \"{}\"", name);

    auto keeper = Keeper::find(folder);
    if (!keeper)
        return std::unexpected(keeper.error());
    if (keeper->lives()) {
        if (auto killed = keeper->kill(); !killed)
            return fail_within(fmt::format("lab \"{}\" does not end", name), killed.error());
    }
    return remove_remains(folder, *cgroup);
}

Lab::~Lab()
{
    if (!keeper_.owned())
        return;
    // Even if this fails the lab ends, for the keeper goes with its owner; the next `up` removes what is left.
    [[maybe_unused]] const auto killed = keeper_.kill();
    if (const auto lock = lock_names()) [[maybe_unused]]
        const auto removed = remove_remains(folder_, cgroup_);
}

Result<Node> Lab::node(std::string_view name) const
{
    const auto found = std::ranges::find(topology_.nodes, name, &Node::name);
    if (found == topology_.nodes.end())
        return fail("lab \"{}\" has no node \"{}\"", options_.name, name);
    return *found;
}

Result<Place> Lab::place(const std::string &name) const
{
    if (name == topology_.client.name || name == fabric_netns)
        return Place{.netns = name, .cgroup = {}};
    if (node(name))
        return Place{.netns = name, .cgroup = node_cgroup(name)};

    const auto slash = name.find('/');
    auto pod = slash == std::string::npos ? find_pod(*this, "default", name)
                                          : find_pod(*this, name.substr(0, slash), name.substr(slash + 1));
    if (!pod)
        return fail("lab \"{}\" has no node or pod \"{}\"", options_.name, name);
    return Place{.netns = pod->id(), .cgroup = pods_cgroup(pod->node)};
}

Result<Output> Lab::run(const std::string &place_name, std::vector<std::string> argv,
                        std::chrono::milliseconds timeout) const
{
    auto where = place(place_name);
    if (!where)
        return std::unexpected(where.error());
    return lab::run(keeper_, *where, Command{.argv = std::move(argv)}, {}, timeout);
}

Result<Process> Lab::start(const std::string &place_name, std::vector<std::string> argv) const
{
    auto where = place(place_name);
    if (!where)
        return std::unexpected(where.error());
    return Process::start(keeper_, *where, Command{.argv = std::move(argv)});
}

Result<> Lab::put_manifest(std::string_view name, std::string_view text) const
{
    return folder_.write(folder_.manifest(name), text);
}

Result<> Lab::remove_manifest(std::string_view name) const
{
    std::error_code error;
    std::filesystem::remove(folder_.manifest(name), error);
    if (error)
        return fail_code(error.value(), "cannot remove manifest {}", name);
    return {};
}

} // namespace thruway::lab
