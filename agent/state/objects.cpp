// SPDX-License-Identifier: Apache-2.0
#include "agent/state/objects.h"

#include <algorithm>

namespace thruway {

std::string_view protocol_name(Protocol protocol)
{
    switch (protocol) {
    case Protocol::tcp:
        return "TCP";
    case Protocol::udp:
        return "UDP";
    case Protocol::sctp:
        return "SCTP";
    }
    return "?";
}

std::string_view service_type_name(ServiceType type)
{
    switch (type) {
    case ServiceType::cluster_ip:
        return "ClusterIP";
    case ServiceType::node_port:
        return "NodePort";
    case ServiceType::load_balancer:
        return "LoadBalancer";
    case ServiceType::external_name:
        return "ExternalName";
    }
    return "?";
}

std::string_view kind_name(Kind kind)
{
    switch (kind) {
    case Kind::service:
        return "Service";
    case Kind::endpoint_slice:
        return "EndpointSlice";
    case Kind::node:
        return "Node";
    case Kind::pod:
        return "Pod";
    case Kind::name_space:
        return "Namespace";
    case Kind::service_cidr:
        return "ServiceCIDR";
    }
    return "?";
}

std::string ObjectName::text() const
{
    return space.empty() ? name : fmt::format("{}/{}", space.text(), name);
}

std::string ObjectKey::text() const
{
    return fmt::format("{} {}", kind_name(kind), name.text());
}

uint16_t EndpointSlice::add_hints(Hints added)
{
    const auto known = std::ranges::find(hints, added);
    const auto index = static_cast<uint16_t>(known - hints.begin());
    if (known == hints.end())
        hints.push_back(std::move(added));
    return index;
}

uint32_t EndpointSlice::add_pod(std::string_view pod)
{
    const auto at = static_cast<uint32_t>(pods.size());
    pods.append(pod);
    pods.push_back('\0');
    return at;
}

ObjectKey key_of(const Object &object)
{
    return {static_cast<Kind>(object.index()), std::visit([](const auto &o) { return o.name; }, object)};
}

} // namespace thruway
