// SPDX-License-Identifier: Apache-2.0
#include "agent/kube/endpoint_slice.h"

#include "agent/kube/fields.h"

#include <cstdint>
#include <fmt/format.h>
#include <string_view>
#include <vector>

namespace thruway {
namespace {

/// An endpoint as it was read: whether its address fits is known only at the end of the slice.
struct RawEndpoint {
    std::string_view address;
    std::string_view node;
    std::string_view pod;
    uint8_t conditions = Endpoint::ready | Endpoint::serving;
    Hints hints;
};

/// Absent conditions: ready and serving are true, terminating is false (as kube-proxy reads them).
uint8_t read_conditions(Field &field)
{
    bool ready = true;
    bool serving = true;
    bool terminating = false;
    field.each_field([&](std::string_view key, Field value) {
        if (key == "ready")
            ready = value.flag().value_or(true);
        else if (key == "serving")
            serving = value.flag().value_or(true);
        else if (key == "terminating")
            terminating = value.flag().value_or(false);
    });
    return static_cast<uint8_t>((ready ? Endpoint::ready : 0) | (serving ? Endpoint::serving : 0) |
                                (terminating ? Endpoint::terminating : 0));
}

/// The names of a list of objects that have nothing but a name.
std::vector<Symbol> read_names(Field &field)
{
    std::vector<Symbol> names;
    field.each_item([&](Field item, size_t) {
        item.each_field([&](std::string_view key, Field value) {
            if (key == "name")
                names.emplace_back(value.text());
        });
    });
    return names;
}

Hints read_hints(Field &field)
{
    Hints hints;
    field.each_field([&](std::string_view key, Field value) {
        if (key == "forNodes")
            hints.nodes = read_names(value);
        else if (key == "forZones")
            hints.zones = read_names(value);
    });
    return hints;
}

/// The name of the pod that an endpoint stands for.
std::string_view read_target(Field &field)
{
    std::string_view kind;
    std::string_view name;
    field.each_field([&](std::string_view key, Field value) {
        if (key == "kind")
            kind = value.text();
        else if (key == "name")
            name = value.text();
    });
    return kind == "Pod" ? name : std::string_view();
}

RawEndpoint read_endpoint(Field &field)
{
    RawEndpoint endpoint;
    field.each_field([&](std::string_view key, Field value) {
        if (key == "addresses")
            // The API leaves the meaning of further addresses open, and nobody uses them.
            value.each_item([&](Field item, size_t index) {
                if (index == 0)
                    endpoint.address = item.text();
            });
        else if (key == "conditions")
            endpoint.conditions = read_conditions(value);
        else if (key == "nodeName")
            endpoint.node = value.text();
        else if (key == "hints")
            endpoint.hints = read_hints(value);
        else if (key == "targetRef")
            endpoint.pod = read_target(value);
    });
    return endpoint;
}

/// Ports without a number are left out: "all ports" is not a thing that a Service can map.
std::vector<SlicePort> read_slice_ports(Field &field)
{
    std::vector<SlicePort> ports;
    field.each_item([&](Field item, size_t) {
        SlicePort port;
        item.each_field([&](std::string_view key, Field value) {
            if (key == "name")
                port.name = Symbol(value.text());
            else if (key == "protocol")
                port.protocol = read_protocol(value);
            else if (key == "port")
                port.port = read_port(value, 0).value_or(0);
        });
        if (port.port != 0)
            ports.push_back(port);
    });
    return ports;
}

std::vector<RawEndpoint> read_endpoints(Field &field)
{
    std::vector<RawEndpoint> endpoints;
    field.each_item([&](Field item, size_t) { endpoints.push_back(read_endpoint(item)); });
    return endpoints;
}

/// What the API server asks of an endpoint's address.
Result<Address> read_endpoint_address(std::string_view text, Family family)
{
    if (text.empty())
        return fail("missing");
    auto address = parse_destination(text);
    if (address && address->family() != family)
        return fail("{} is not {}", quoted(text), family_name(family));
    if (address && address->is_link_local())
        return fail("{} is link-local", quoted(text));
    return address;
}

/// A bad endpoint costs the others nothing.
void add_endpoints(EndpointSlice &slice, const std::vector<RawEndpoint> &endpoints, Faults &faults)
{
    slice.endpoints.reserve(endpoints.size());
    for (size_t i = 0; i < endpoints.size(); i++) {
        const RawEndpoint &raw = endpoints[i];
        const auto address = read_endpoint_address(raw.address, slice.family);
        if (!address) {
            faults.skip(fmt::format("endpoints[{}].addresses[0]", i), address.error().text());
            continue;
        }
        slice.endpoints.push_back({.address = *address,
                                   .node = Symbol(raw.node),
                                   .pod = raw.pod.empty() ? 0 : slice.add_pod(raw.pod),
                                   .conditions = raw.conditions,
                                   .hints = slice.add_hints(raw.hints)});
    }
    slice.pods.shrink_to_fit(); // there may be ten thousand slices, and they stay
}

} // namespace

std::optional<EndpointSlice> read_endpoint_slice(Field &root, const Metadata &metadata)
{
    EndpointSlice slice;
    std::string_view type;
    std::vector<RawEndpoint> endpoints;
    root.each_field([&](std::string_view key, Field value) {
        if (key == "addressType")
            type = value.text();
        else if (key == "ports")
            slice.ports = read_slice_ports(value);
        else if (key == "endpoints")
            endpoints = read_endpoints(value);
    });
    if (metadata.headless || type == "FQDN")
        return std::nullopt;
    if (type != "IPv4" && type != "IPv6")
        root.faults().refuse("addressType", fmt::format("must be IPv4, IPv6 or FQDN, is {}", quoted(type)));
    if (metadata.service.empty())
        root.faults().refuse("metadata.labels", "kubernetes.io/service-name is missing");

    slice.service = metadata.service;
    slice.triggered = metadata.triggered;
    slice.family = type == "IPv6" ? Family::ipv6 : Family::ipv4;
    add_endpoints(slice, endpoints, root.faults());
    return slice;
}

} // namespace thruway
