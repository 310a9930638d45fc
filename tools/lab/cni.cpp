// SPDX-License-Identifier: Apache-2.0
#include "tools/lab/cni.h"

#include <nlohmann/json.hpp>

namespace thruway::lab {
namespace {

using nlohmann::json;

constexpr std::chrono::seconds call_timeout(30);
constexpr const char *plugin = "thruway-cni";

std::string configuration(const Lab &lab, const Pod &pod)
{
    return json{
        {"cniVersion", "1.0.0"},
        {"name", "thruway"},
        {"type", plugin},
        {"socket", (lab.folder().run_dir(pod.node) / "agent.sock").native()},
    }
        .dump();
}

/// A plugin's error is an object on standard output: {"code", "msg", "details"}.
std::string reason(const Output &output)
{
    const json error = json::parse(output.out, nullptr, false);
    if (!error.is_object())
        return output.err.empty() ? fmt::format("exit {}", output.exit.shell_code()) : output.err;
    const std::string details = error.value("details", "");
    return fmt::format("{} (code {}{}{})", error.value("msg", "no message"), error.value("code", 0),
                       details.empty() ? "" : ", ", details);
}

Result<std::string> call(const Lab &lab, const Pod &pod, const char *verb)
{
    const Place place{.netns = pod.node, .cgroup = lab.node_cgroup(pod.node)};
    const auto &bin_dir = lab.options().bin_dir;
    const Command command{
        .argv = {bin_dir / plugin},
        .environment = {fmt::format("CNI_COMMAND={}", verb), fmt::format("CNI_CONTAINERID={}", pod.container),
                        fmt::format("CNI_NETNS={}/{}", netns_folder, pod.id()), "CNI_IFNAME=eth0",
                        fmt::format("CNI_PATH={}", bin_dir.native()),
                        fmt::format("CNI_ARGS=K8S_POD_NAMESPACE={};K8S_POD_NAME={}", pod.space, pod.name)},
    };
    auto output = run(lab.keeper(), place, command, configuration(lab, pod), call_timeout);
    if (!output)
        return std::unexpected(output.error());
    if (!output->exit.good())
        return fail("{} {}: {}", plugin, verb, reason(*output));
    return output->out;
}

} // namespace

Result<std::vector<Address>> cni_add(const Lab &lab, const Pod &pod)
{
    auto text = call(lab, pod, "ADD");
    if (!text)
        return std::unexpected(text.error());
    try {
        std::vector<Address> addresses;
        for (const auto &entry : json::parse(*text).at("ips")) {
            auto prefix = entry.at("address").get<std::string>();
            auto address = Address::parse(std::string_view(prefix).substr(0, prefix.find('/')));
            if (!address)
                return fail("{} ADD: ips.address: {}", plugin, address.error().text());
            addresses.push_back(*address);
        }
        if (addresses.empty())
            return fail("{} ADD gave the pod no address", plugin);
        return addresses;
    } catch (const json::exception &error) {
        return fail("{} ADD: {}", plugin, error.what());
    }
}

Result<> cni_delete(const Lab &lab, const Pod &pod)
{
    if (auto deleted = call(lab, pod, "DEL"); !deleted)
        return std::unexpected(deleted.error());
    return {};
}

} // namespace thruway::lab
