// SPDX-License-Identifier: Apache-2.0
#include "tools/lab/status.h"

#include "tools/lab/agents.h"
#include "tools/lab/pods.h"

#include <algorithm>
#include <nlohmann/json.hpp>

namespace thruway::lab {
namespace {

using json = nlohmann::ordered_json;

template<typename Items>
json texts(const Items &items)
{
    json list = json::array();
    for (const auto &item : items)
        list.push_back(item.text());
    return list;
}

template<typename Items>
std::string joined(const Items &items)
{
    std::string text;
    for (const auto &item : items)
        text += (text.empty() ? "" : ", ") + item.text();
    return text;
}

/// Columns as wide as they need to be.
std::string table(const std::vector<std::vector<std::string>> &rows)
{
    std::vector<size_t> widths;
    for (const auto &row : rows) {
        widths.resize(std::max(widths.size(), row.size()));
        for (size_t i = 0; i < row.size(); i++)
            widths[i] = std::max(widths[i], row[i].size());
    }
    std::string text;
    for (const auto &row : rows) {
        std::string line;
        for (size_t i = 0; i < row.size(); i++)
            line += fmt::format("{:{}}  ", row[i], widths[i]);
        text += line.substr(0, line.find_last_not_of(' ') + 1) + '\n';
    }
    return text;
}

Result<std::string> agent_state(const Lab &lab, const std::string &node)
{
    if (lab.options().dataplane == Dataplane::none)
        return "none";
    auto presence = find_agent(lab, node);
    if (!presence)
        return std::unexpected(presence.error());
    if (!*presence)
        return "stopped";
    return agent_ready(lab, node) ? "ready" : "not ready";
}

const char *fabric_name(const Lab &lab)
{
    return lab.options().fabric == FabricKind::switched ? "switched" : "routed";
}

const char *dataplane_name(const Lab &lab)
{
    return lab.options().dataplane == Dataplane::thruway ? "thruway" : "none";
}

} // namespace

Result<std::string> status_table(const Lab &lab)
{
    auto pods = list_pods(lab);
    if (!pods)
        return std::unexpected(pods.error());
    std::vector<std::vector<std::string>> nodes{{"NODE", "ADDRESSES", "POD CIDRS", "AGENT"}};
    for (const Node &node : lab.topology().nodes) {
        auto agent = agent_state(lab, node.name);
        if (!agent)
            return agent;
        nodes.push_back({node.name, joined(node.addresses), joined(node.pod_cidrs), *agent});
    }
    const Station &client = lab.topology().client;
    nodes.push_back({client.name, joined(client.addresses)});

    std::vector<std::vector<std::string>> rows{{"POD", "NODE", "ADDRESSES"}};
    for (const Pod &pod : *pods)
        rows.push_back({fmt::format("{}/{}", pod.space, pod.name), pod.node, joined(pod.addresses)});
    return fmt::format("lab {}: {} fabric, mtu {}, dataplane {}, files in {}\n\n{}\n{}", lab.options().name,
                       fabric_name(lab), lab.options().mtu, dataplane_name(lab), lab.folder().root().native(),
                       table(nodes), table(rows));
}

Result<std::string> status_json(const Lab &lab)
{
    auto pods = list_pods(lab);
    if (!pods)
        return std::unexpected(pods.error());
    json nodes = json::array();
    for (const Node &node : lab.topology().nodes) {
        json entry{{"name", node.name},
                   {"addresses", texts(node.addresses)},
                   {"pod_cidrs", texts(node.pod_cidrs)},
                   {"cgroup", lab.node_cgroup(node.name).native()}};
        auto agent = find_agent(lab, node.name);
        if (!agent)
            return std::unexpected(agent.error());
        if (lab.options().dataplane == Dataplane::thruway)
            entry["agent"] = {{"running", bool(*agent)}, {"ready", *agent && agent_ready(lab, node.name)}};
        if (*agent)
            entry["agent"]["pid"] = agent->pid;
        nodes.push_back(std::move(entry));
    }
    json list = json::array();
    for (const Pod &pod : *pods)
        list.push_back({{"namespace", pod.space},
                        {"name", pod.name},
                        {"node", pod.node},
                        {"addresses", texts(pod.addresses)},
                        {"tcp", pod.tcp},
                        {"udp", pod.udp}});
    const Station &client = lab.topology().client;
    return json{
               {"name", lab.options().name},
               {"fabric", fabric_name(lab)},
               {"mtu", lab.options().mtu},
               {"dataplane", dataplane_name(lab)},
               {"folder", lab.folder().root().native()},
               {"keeper_pid", lab.keeper().presence().pid},
               {"nodes", nodes},
               {"client", {{"addresses", texts(client.addresses)}}},
               {"pods", list},
           }
               .dump(2) +
           "\n";
}

} // namespace thruway::lab
