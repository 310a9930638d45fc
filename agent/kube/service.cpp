// SPDX-License-Identifier: Apache-2.0
#include "agent/kube/service.h"

#include "agent/kube/fields.h"

#include <algorithm>
#include <fmt/format.h>
#include <optional>
#include <string_view>
#include <utility>
#include <vector>

namespace thruway {
namespace {

struct ServiceSpec {
    ServiceType type = ServiceType::cluster_ip;
    std::string_view cluster_ip;
    std::vector<std::string_view> cluster_ips;
    std::vector<std::string_view> families;
    std::vector<ServicePort> ports;
    std::vector<Address> external_ips;
    std::vector<Prefix> source_ranges;
    bool internal_local = false;
    bool external_local = false;
    bool affine = false;
    uint32_t affinity_timeout = 10'800; // the API's default
    uint16_t health_port = 0;
};

ServiceType read_service_type(Field &field)
{
    const std::string_view text = field.text();
    for (const ServiceType type :
         {ServiceType::cluster_ip, ServiceType::node_port, ServiceType::load_balancer, ServiceType::external_name}) {
        if (text == service_type_name(type))
            return type;
    }
    if (!text.empty())
        field.refuse(fmt::format("{} is not a type of Service", quoted(text)));
    return ServiceType::cluster_ip;
}

ServicePort read_service_port(Field &field)
{
    ServicePort port;
    std::optional<uint16_t> number;
    field.each_field([&](std::string_view key, Field value) {
        if (key == "name")
            port.name = Symbol(value.text());
        else if (key == "protocol")
            port.protocol = read_protocol(value);
        else if (key == "port")
            number = read_port(value, 1);
        else if (key == "nodePort")
            port.node_port = read_port(value, 0).value_or(0);
    });
    if (!number)
        field.faults().refuse(field.path() + ".port", "missing");
    port.port = number.value_or(0);
    return port;
}

/// A port of a Service is known by its name and protocol, and dialled by its number and protocol.
void check_twins(const std::vector<ServicePort> &ports, const ServicePort &port, const Field &field)
{
    for (size_t i = 0; i < ports.size(); i++) {
        if (ports[i].protocol != port.protocol)
            continue;
        if (ports[i].name == port.name)
            field.refuse(fmt::format("has the name and protocol of ports[{}]", i));
        else if (ports[i].port == port.port)
            field.refuse(fmt::format("has the number and protocol of ports[{}]", i));
    }
}

std::vector<ServicePort> read_service_ports(Field &field)
{
    std::vector<ServicePort> ports;
    field.each_item([&](Field item, size_t) {
        const ServicePort port = read_service_port(item);
        check_twins(ports, port, item);
        ports.push_back(port);
    });
    return ports;
}

/// Puts what `parse` makes of a text with the others; what cannot be read is skipped as a fault of `field`.
template<typename T>
void add_parsed(std::vector<T> &values, const Field &field, std::string_view text, Result<T> (*parse)(std::string_view))
{
    if (auto value = parse(text))
        values.push_back(std::move(*value));
    else
        field.skip(value.error().text());
}

template<typename T>
std::vector<T> read_list(Field &list, Result<T> (*parse)(std::string_view))
{
    std::vector<T> values;
    list.each_item([&](Field item, size_t) { add_parsed(values, item, item.text(), parse); });
    return values;
}

Result<Prefix> parse_range(std::string_view text)
{
    if (auto range = Prefix::parse(text))
        return range;
    return fail("{} is not a CIDR block", quoted(text));
}

/// True for `yes`, false for `no` or nothing.
bool read_choice(Field &field, std::string_view yes, std::string_view no)
{
    const std::string_view text = field.text();
    if (!text.empty() && text != yes && text != no)
        field.skip(fmt::format("must be {} or {}, is {}", no, yes, quoted(text)));
    return text == yes;
}

/// Seconds; the API allows a day.
uint32_t read_affinity_timeout(Field &config, uint32_t standard)
{
    constexpr int64_t longest = 86'400;
    uint32_t timeout = standard;
    config.each_field([&](std::string_view key, Field client) {
        if (key != "clientIP")
            return;
        client.each_field([&](std::string_view name, Field value) {
            if (name != "timeoutSeconds")
                return;
            const int64_t seconds = value.number().value_or(standard);
            if (seconds < 1 || seconds > longest)
                value.skip(fmt::format("must be 1 to {}, is {}", longest, seconds));
            else
                timeout = static_cast<uint32_t>(seconds);
        });
    });
    return timeout;
}

/// The addresses at which a load balancer sends what it takes on as it is. One that is a proxy of its own is dialled
/// itself (ipMode, KEP-1860), and one that has only a name is none of ours.
std::vector<Address> read_balancer_ips(Field &status)
{
    std::vector<Address> addresses;
    status.each_field([&](std::string_view key, Field balancer) {
        if (key != "loadBalancer")
            return;
        balancer.each_field([&](std::string_view name, Field ingress) {
            if (name != "ingress")
                return;
            ingress.each_item([&](Field item, size_t) {
                std::string_view ip;
                std::string_view mode;
                item.each_field([&](std::string_view part, Field value) {
                    if (part == "ip")
                        ip = value.text();
                    else if (part == "ipMode")
                        mode = value.text();
                });
                if (!ip.empty() && mode != "Proxy")
                    add_parsed(addresses, item, ip, &parse_destination);
            });
        });
    });
    return addresses;
}

ServiceSpec read_service_spec(Field &field)
{
    ServiceSpec spec;
    field.each_field([&](std::string_view key, Field value) {
        if (key == "type")
            spec.type = read_service_type(value);
        else if (key == "clusterIP")
            spec.cluster_ip = value.text();
        else if (key == "clusterIPs")
            spec.cluster_ips = read_texts(value);
        else if (key == "ipFamilies")
            spec.families = read_texts(value);
        else if (key == "ports")
            spec.ports = read_service_ports(value);
        else if (key == "externalIPs")
            spec.external_ips = read_list(value, &parse_destination);
        else if (key == "loadBalancerSourceRanges")
            spec.source_ranges = read_list(value, &parse_range);
        else if (key == "internalTrafficPolicy")
            spec.internal_local = read_choice(value, "Local", "Cluster");
        else if (key == "externalTrafficPolicy")
            spec.external_local = read_choice(value, "Local", "Cluster");
        else if (key == "sessionAffinity")
            spec.affine = read_choice(value, "ClientIP", "None");
        else if (key == "sessionAffinityConfig")
            spec.affinity_timeout = read_affinity_timeout(value, spec.affinity_timeout);
        else if (key == "healthCheckNodePort")
            spec.health_port = read_port(value, 0).value_or(0);
    });
    return spec;
}

/// The cluster addresses, at most one a family. With ipFamilies, the n-th family is served at the n-th address
/// (kube-proxy's rule); without, each address is taken for what it is, which is what the API server makes of a manifest
/// that leaves them out.
std::vector<Address> cluster_addresses(const ServiceSpec &spec, Faults &faults)
{
    const bool plural = !spec.cluster_ips.empty();
    const auto texts = plural ? spec.cluster_ips : std::vector{spec.cluster_ip};
    const size_t count = spec.families.empty() ? texts.size() : std::min(texts.size(), spec.families.size());

    std::vector<Address> addresses;
    for (size_t i = 0; i < count; i++) {
        const auto skip = [&](std::string_view reason) {
            faults.skip(plural ? fmt::format("spec.clusterIPs[{}]", i) : "spec.clusterIP", reason);
        };
        const auto address = parse_destination(texts[i]);
        if (!address) {
            skip(address.error().text());
            continue;
        }
        const std::string_view family = family_name(address->family());
        const auto same_family = [&](const Address &other) { return other.family() == address->family(); };
        if (!spec.families.empty() && spec.families[i] != family)
            skip(fmt::format("{} is not {}, as spec.ipFamilies says", quoted(texts[i]), quoted(spec.families[i])));
        else if (std::ranges::any_of(addresses, same_family))
            skip(fmt::format("{} is a second {} address", quoted(texts[i]), family));
        else
            addresses.push_back(*address);
    }
    return addresses;
}

/// A Service by name only: ExternalName, or headless.
bool is_name_only(const ServiceSpec &spec)
{
    return spec.type == ServiceType::external_name || spec.cluster_ip == "None" ||
           (!spec.cluster_ips.empty() && spec.cluster_ips.front() == "None");
}

} // namespace

Service read_service(Field &root, const Metadata &metadata)
{
    ServiceSpec spec;
    Service service;
    root.each_field([&](std::string_view key, Field value) {
        if (key == "spec")
            spec = read_service_spec(value);
        else if (key == "status")
            service.balancer_ips = read_balancer_ips(value);
    });
    if (spec.ports.empty() && !is_name_only(spec))
        root.faults().refuse("spec.ports", "missing");

    const bool opened = spec.type == ServiceType::node_port || spec.type == ServiceType::load_balancer;
    service.type = spec.type;
    service.created = metadata.created / 1000;
    service.ports = std::move(spec.ports);
    service.internal_local = spec.internal_local;
    service.external_local = spec.external_local && (opened || !spec.external_ips.empty());
    service.affinity = spec.affine ? spec.affinity_timeout : 0;
    service.external_ips = std::move(spec.external_ips);
    service.source_ranges = std::move(spec.source_ranges);
    if (spec.type == ServiceType::load_balancer && spec.external_local)
        service.health_port = spec.health_port;
    if (!opened) {
        for (ServicePort &port : service.ports)
            port.node_port = 0;
    }
    // What kube-proxy leaves alone; a Service that has no address yet is not there yet.
    const bool has_address = !spec.cluster_ip.empty() || !spec.cluster_ips.empty();
    service.proxied = has_address && !is_name_only(spec) && !metadata.foreign_proxy;
    if (service.proxied) {
        service.cluster_ips = cluster_addresses(spec, root.faults());
        if (service.cluster_ips.empty())
            root.faults().refuse();
    }
    return service;
}

} // namespace thruway
