// SPDX-License-Identifier: Apache-2.0
#include "tests/model/manifest.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

namespace thruway::reference {
namespace {

/// ["a", "b"], which YAML reads, too.
std::string list(const std::vector<std::string> &texts)
{
    std::vector<std::string> quoted;
    for (const std::string &text : texts)
        quoted.push_back('"' + text + '"');
    return fmt::format("[{}]", fmt::join(quoted, ", "));
}

/// RFC 3339, so many seconds after a day.
std::string time(int seconds)
{
    return fmt::format("2026-01-01T{:02}:{:02}:{:02}Z", seconds / 3600, seconds / 60 % 60, seconds % 60);
}

std::string entry(const Port &port)
{
    std::string text = fmt::format("  - {{port: {}, protocol: {}", port.number, port.protocol);
    if (!port.name.empty())
        text += ", name: " + port.name;
    if (port.node_port)
        text += fmt::format(", nodePort: {}", port.node_port);
    return text + "}\n";
}

std::string entry(const Ingress &ingress)
{
    if (ingress.ip.empty())
        return "    - {hostname: balancer.example}\n";
    return fmt::format("    - {{ip: \"{}\"{}}}\n", ingress.ip, ingress.mode.empty() ? "" : ", ipMode: " + ingress.mode);
}

std::string condition(const char *name, const std::optional<bool> &value)
{
    return value ? fmt::format("{}: {}, ", name, *value) : "";
}

std::string hints(const char *kind, const std::vector<std::string> &names)
{
    std::vector<std::string> entries;
    for (const std::string &name : names)
        entries.push_back(fmt::format("{{name: {}}}", name));
    return names.empty() ? "" : fmt::format("{}: [{}], ", kind, fmt::join(entries, ", "));
}

std::string entry(const Endpoint &endpoint)
{
    std::string text = fmt::format("- addresses: [\"{}\"]\n", endpoint.address);
    if (!endpoint.node.empty())
        text += fmt::format("  nodeName: {}\n", endpoint.node);
    text += fmt::format("  conditions: {{{}{}{}}}\n", condition("ready", endpoint.ready),
                        condition("serving", endpoint.serving), condition("terminating", endpoint.terminating));
    if (!endpoint.node_hints.empty() || !endpoint.zone_hints.empty())
        text += fmt::format("  hints: {{{}{}}}\n", hints("forNodes", endpoint.node_hints),
                            hints("forZones", endpoint.zone_hints));
    return text;
}

std::string entry(const SlicePort &port)
{
    std::string text = fmt::format("- {{protocol: {}", port.protocol);
    if (!port.name.empty())
        text += ", name: " + port.name;
    if (port.number)
        text += fmt::format(", port: {}", port.number);
    return text + "}\n";
}

template<typename Entries>
std::string entries(const std::string &head, const Entries &all)
{
    std::string text = all.empty() ? "" : head + ":\n";
    for (const auto &one : all)
        text += entry(one);
    return text;
}

} // namespace

std::string manifest(const Service &service)
{
    std::string text = fmt::format("apiVersion: v1\n"
                                   "kind: Service\n"
                                   "metadata:\n"
                                   "  name: {}\n"
                                   "  namespace: {}\n"
                                   "  creationTimestamp: \"{}\"\n",
                                   service.name, space, time(service.created));
    if (service.others)
        text += "  labels: {service.kubernetes.io/service-proxy-name: theirs}\n";
    text += fmt::format("spec:\n  type: {}\n", service.type);
    if (service.type == "ExternalName")
        text += "  externalName: elsewhere.example\n";
    if (!service.cluster_ips.empty()) {
        std::vector<std::string> families;
        for (const std::string &ip : service.cluster_ips)
            families.emplace_back(ip.find(':') == std::string::npos ? "IPv4" : "IPv6");
        text += fmt::format("  clusterIP: \"{}\"\n  clusterIPs: {}\n  ipFamilies: {}\n", service.cluster_ips.front(),
                            list(service.cluster_ips), list(families));
    }
    text += entries("  ports", service.ports);
    if (!service.external_ips.empty())
        text += fmt::format("  externalIPs: {}\n", list(service.external_ips));
    if (!service.source_ranges.empty())
        text += fmt::format("  loadBalancerSourceRanges: {}\n", list(service.source_ranges));
    if (service.internal_local)
        text += "  internalTrafficPolicy: Local\n";
    if (service.external_local)
        text += "  externalTrafficPolicy: Local\n";
    if (service.affinity)
        text += fmt::format("  sessionAffinity: ClientIP\n"
                            "  sessionAffinityConfig: {{clientIP: {{timeoutSeconds: {}}}}}\n",
                            service.affinity);
    if (!service.ingress.empty())
        text += "status:\n  loadBalancer:\n" + entries("    ingress", service.ingress);
    return text;
}

std::string manifest(const Slice &slice)
{
    const std::string head =
        fmt::format("apiVersion: discovery.k8s.io/v1\n"
                    "kind: EndpointSlice\n"
                    "metadata:\n"
                    "  name: {}\n"
                    "  namespace: {}\n"
                    "  labels: {{kubernetes.io/service-name: {}{}}}\n"
                    "addressType: {}\n",
                    slice.name, space, slice.service, slice.headless ? ", service.kubernetes.io/headless: \"\"" : "",
                    slice.v6 ? "IPv6" : "IPv4");
    return head + entries("ports", slice.ports) + entries("endpoints", slice.endpoints);
}

std::string manifest(const Node &node)
{
    std::string text = fmt::format("apiVersion: v1\n"
                                   "kind: Node\n"
                                   "metadata:\n"
                                   "  name: {}\n",
                                   node.name);
    if (!node.zone.empty())
        text += fmt::format("  labels: {{topology.kubernetes.io/zone: {}}}\n", node.zone);
    text += "status:\n  addresses:\n";
    for (const std::string &address : node.addresses)
        text += fmt::format("  - {{type: InternalIP, address: \"{}\"}}\n", address);
    if (node.node_port_addresses != node.addresses)
        text += "# NodePorts on " + list(node.node_port_addresses) + "\n";
    return text;
}

std::string text(const Packet &packet)
{
    const char *from = packet.from == From::pod ? "a pod" : packet.from == From::outside ? "outside" : "the host";
    const std::string port = packet.protocol == "ICMP" ? "" : fmt::format(" port {}", packet.port);
    return fmt::format("{} from {}: {} to {}{}", packet.protocol, from, packet.source, packet.destination, port);
}

std::string text(const Backend &backend)
{
    return fmt::format("{} port {}", backend.address, backend.port);
}

std::string text(const Answer &answer)
{
    std::vector<std::string> backends;
    switch (answer.kind) {
    case Answer::Kind::stranger:
        return "no Service's, so it keeps its addresses";
    case Answer::Kind::forwarded:
        for (const Backend &backend : answer.backends)
            backends.push_back(text(backend));
        return fmt::format("to one of {{{}}}, {}", fmt::join(backends, "; "),
                           answer.as_node ? "as from the node" : "with its own source");
    case Answer::Kind::refused:
        return "refused: " + answer.reason;
    case Answer::Kind::dropped:
        return "dropped: " + answer.reason;
    case Answer::Kind::answered:
        return "a ping that the node answers";
    }
    return {};
}

} // namespace thruway::reference
