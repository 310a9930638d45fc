// SPDX-License-Identifier: Apache-2.0
#include "tools/lab/manifest.h"

#include <nlohmann/json.hpp>

// The manifests are JSON, which is YAML too.
namespace thruway::lab {
namespace {

using nlohmann::json;

void add_ports(json &ports, const std::vector<uint16_t> &numbers, const char *protocol)
{
    for (const uint16_t number : numbers)
        ports.push_back({{"containerPort", number}, {"protocol", protocol}});
}

} // namespace

std::string manifest_name(const Node &node)
{
    return "node-" + node.name;
}

std::string manifest_name(const Pod &pod)
{
    return "pod-" + pod.id();
}

std::string manifest_text(const Node &node)
{
    json addresses = json::array();
    for (const Address &address : node.addresses)
        addresses.push_back({{"type", "InternalIP"}, {"address", address.text()}});
    const json cidrs{node.pod_cidrs[0].text(), node.pod_cidrs[1].text()};
    return json{
        {"apiVersion", "v1"},
        {"kind", "Node"},
        {"metadata", {{"name", node.name}}},
        {"spec", {{"podCIDR", cidrs[0]}, {"podCIDRs", cidrs}}},
        {"status", {{"addresses", addresses}}},
    }
        .dump(2);
}

std::string manifest_text(const Pod &pod)
{
    json ports = json::array();
    add_ports(ports, pod.tcp, "TCP");
    add_ports(ports, pod.udp, "UDP");
    json addresses = json::array();
    for (const Address &address : pod.addresses)
        addresses.push_back({{"ip", address.text()}});
    return json{
        {"apiVersion", "v1"},
        {"kind", "Pod"},
        {"metadata", {{"namespace", pod.space}, {"name", pod.name}, {"uid", pod.container}}},
        {"spec", {{"nodeName", pod.node}, {"containers", json::array({{{"name", "echo"}, {"ports", ports}}})}}},
        {"status", {{"phase", "Running"}, {"podIP", addresses.at(0).at("ip")}, {"podIPs", addresses}}},
    }
        .dump(2);
}

} // namespace thruway::lab
