// SPDX-License-Identifier: Apache-2.0
#include "agent/state/fingerprint.h"

#include <string_view>
#include <type_traits>
#include <variant>
#include <vector>

namespace thruway {
namespace {

// Each type is taken apart by a structured binding, which stops compiling when the type gets a field more.

uint64_t mix(uint64_t seed, Symbol symbol)
{
    return hash_mix(seed, symbol.id());
}

uint64_t mix(uint64_t seed, std::string_view text)
{
    return hash_mix(seed, std::hash<std::string_view>{}(text));
}

uint64_t mix(uint64_t seed, const Address &address)
{
    return hash_mix(seed, hash_of(address));
}

uint64_t mix(uint64_t seed, const Prefix &prefix)
{
    return hash_mix(seed, std::hash<Prefix>{}(prefix));
}

template<typename T>
    requires std::is_integral_v<T> || std::is_enum_v<T>
uint64_t mix(uint64_t seed, T number)
{
    return hash_mix(seed, static_cast<uint64_t>(number));
}

uint64_t mix(uint64_t seed, const ObjectName &value)
{
    const auto &[space, name] = value;
    return mix(mix(seed, space), name);
}

uint64_t mix(uint64_t seed, const ServicePort &value)
{
    const auto &[name, protocol, port, node_port] = value;
    return mix(mix(mix(mix(seed, name), protocol), port), node_port);
}

uint64_t mix(uint64_t seed, const SlicePort &value)
{
    const auto &[name, protocol, port] = value;
    return mix(mix(mix(seed, name), protocol), port);
}

uint64_t mix(uint64_t seed, const Endpoint &value)
{
    const auto &[address, node, pod, conditions, hints] = value;
    return mix(mix(mix(mix(mix(seed, address), node), pod), conditions), hints);
}

uint64_t mix(uint64_t seed, const Hints &value);

template<typename T>
uint64_t mix(uint64_t seed, const std::vector<T> &values)
{
    seed = mix(seed, values.size());
    for (const T &value : values)
        seed = mix(seed, value);
    return seed;
}

uint64_t mix(uint64_t seed, const Hints &value)
{
    const auto &[nodes, zones] = value;
    return mix(mix(seed, nodes), zones);
}

template<typename... Fields>
uint64_t mix_all(const Fields &...fields)
{
    uint64_t seed = 0;
    ((seed = mix(seed, fields)), ...);
    return seed;
}

uint64_t fingerprint(const Service &value)
{
    const auto &[name, type, proxied, created, cluster_ips, ports, external_ips, balancer_ips, source_ranges,
                 internal_local, external_local, health_port, affinity] = value;
    return mix_all(name, type, proxied, created, cluster_ips, ports, external_ips, balancer_ips, source_ranges,
                   internal_local, external_local, health_port, affinity);
}

uint64_t fingerprint(const EndpointSlice &value)
{
    const auto &[name, service, family, triggered, ports, endpoints, hints, pods] = value;
    return mix_all(name, service, family, triggered, ports, endpoints, hints, pods);
}

uint64_t fingerprint(const Node &value)
{
    const auto &[name, addresses, pod_cidrs, zone, leaving] = value;
    return mix_all(name, addresses, pod_cidrs, zone, leaving);
}

uint64_t fingerprint(const Pod &value)
{
    const auto &[name, node, host_network, finished, addresses] = value;
    return mix_all(name, node, host_network, finished, addresses);
}

uint64_t fingerprint(const Namespace &value)
{
    const auto &[name] = value;
    return mix_all(name);
}

uint64_t fingerprint(const ServiceCidr &value)
{
    const auto &[name, cidrs] = value;
    return mix_all(name, cidrs);
}

} // namespace

uint64_t fingerprint_of(const Object &object)
{
    return std::visit([](const auto &value) { return fingerprint(value); }, object);
}

} // namespace thruway
