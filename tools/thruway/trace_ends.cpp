// SPDX-License-Identifier: Apache-2.0
#include "tools/thruway/trace_ends.h"

#include <algorithm>
#include <charconv>
#include <map>
#include <set>

namespace thruway::cli {
namespace {

std::optional<uint16_t> port_number(const std::string &text)
{
    uint16_t port = 0;
    const char *end = text.data() + text.size();
    const auto [at, error] = std::from_chars(text.data(), end, port);
    return error == std::errc{} && at == end && port != 0 ? std::optional(port) : std::nullopt;
}

std::vector<const Service *> services_called(const TraceEnd &end, const Names &names)
{
    std::vector<const Service *> found;
    names.each_service([&](const Service &service) {
        if (service.name.name == end.name && (!end.space || service.name.space == *end.space))
            found.push_back(&service);
    });
    return found;
}

/// What this name can only mean: the Service or the pod, or why neither.
template<typename Found>
Result<> expect_one(const TraceEnd &end, const Found &found, const char *what)
{
    if (found.empty())
        return fail("no {} {} is known here", what, end.text());
    if (found.size() == 1)
        return {};
    std::set<std::string> all;
    for (const ObjectName &name : found)
        all.insert(name.text());
    return fail("{} may be any of {}", end.text(), fmt::join(all, ", "));
}

std::string port_list(const std::vector<ServicePort> &ports)
{
    std::string text;
    for (const ServicePort &port : ports)
        text += fmt::format("{}{}/{}", text.empty() ? "" : ", ", port.port, protocol_name(port.protocol));
    return text;
}

bool is_wanted(const ServicePort &port, const TraceEnd &end, const std::optional<std::string> &protocol)
{
    static const std::map<std::string, Protocol, std::less<>> protocols{
        {"tcp", Protocol::tcp}, {"udp", Protocol::udp}, {"sctp", Protocol::sctp}};
    if (protocol && port.protocol != protocols.at(*protocol))
        return false;
    return !end.port || end.number() == port.port || port.name.text() == *end.port;
}

/// The one port of the Service that is meant; if several could be, one of TCP.
Result<ServicePort> find_port(const Service &service, const TraceEnd &end, const std::optional<std::string> &protocol)
{
    std::vector<ServicePort> ports;
    for (const ServicePort &port : service.ports)
        if (is_wanted(port, end, protocol))
            ports.push_back(port);
    if (ports.empty())
        return fail("Service {} has no such port; it has {}", service.name.text(), port_list(service.ports));
    if (ports.size() > 1)
        std::erase_if(ports, [](const ServicePort &port) { return port.protocol != Protocol::tcp; });
    if (ports.size() != 1)
        return fail("Service {} has several ports, say which: {}", service.name.text(), port_list(service.ports));
    return ports.front();
}

Result<TracePoint> service_point(const Service &service, const TraceEnd &end,
                                 const std::optional<std::string> &protocol)
{
    if (!service.proxied)
        return fail("Service {} is not for us: it is headless, of type ExternalName, or left to another proxy",
                    service.name.text());
    if (protocol == "icmp")
        return TracePoint{service.cluster_ips, 0, std::nullopt};
    auto port = find_port(service, end, protocol);
    if (!port)
        return std::unexpected(port.error());
    return TracePoint{service.cluster_ips, port->port, port->protocol};
}

} // namespace

std::string TraceEnd::text() const
{
    std::string text = address ? address->text() : name;
    return space ? fmt::format("{}/{}", space->text(), text) : text;
}

std::optional<uint16_t> TraceEnd::number() const
{
    return port ? port_number(*port) : std::nullopt;
}

Result<TraceEnd> parse_trace_end(const std::string &text)
{
    TraceEnd end;
    std::string rest = text;
    if (auto address = Address::parse(text)) {
        end.address = *address;
        return end;
    }
    const size_t colon = rest.rfind(':');
    if (colon != std::string::npos && !rest.ends_with(']')) {
        end.port = rest.substr(colon + 1);
        rest.resize(colon);
        const bool all_digits = std::ranges::all_of(*end.port, [](char c) { return c >= '0' && c <= '9'; });
        if (end.port->empty() || (all_digits && !port_number(*end.port)))
            return fail("\"{}\" has no port (1 to 65535) behind its colon", text);
    }
    if (rest.starts_with('[') && rest.ends_with(']'))
        rest = rest.substr(1, rest.size() - 2);
    if (auto address = Address::parse(rest)) {
        end.address = *address;
        return end;
    }
    const size_t slash = rest.find('/');
    if (slash != std::string::npos)
        end.space = Symbol(rest.substr(0, slash));
    end.name = slash == std::string::npos ? rest : rest.substr(slash + 1);
    if (end.name.empty() || slash == 0 || end.name.find_first_of("/:[]") != std::string::npos)
        return fail("\"{}\" is neither an address nor [NAMESPACE/]NAME, with or without :PORT", text);
    return end;
}

Result<std::vector<Address>> find_pod(const TraceEnd &end, const Names &names, const char *what)
{
    const auto pods = names.pods_called(end.space, end.name);
    std::vector<ObjectName> found;
    for (const auto &[name, addresses] : pods)
        found.push_back(name);
    if (auto one = expect_one(end, found, what); !one)
        return std::unexpected(one.error());
    return pods.begin()->second;
}

Result<TracePoint> find_destination(const TraceEnd &end, const std::optional<std::string> &protocol, const Names &names)
{
    const std::optional<uint16_t> port = end.number();
    if (end.address)
        return TracePoint{{*end.address}, port.value_or(0), std::nullopt};
    const std::vector<const Service *> services = services_called(end, names);
    if (!services.empty()) {
        std::vector<ObjectName> found;
        for (const Service *service : services)
            found.push_back(service->name);
        if (auto one = expect_one(end, found, "Service"); !one)
            return std::unexpected(one.error());
        return service_point(*services.front(), end, protocol);
    }
    auto pod = find_pod(end, names, "Service or pod");
    if (!pod)
        return std::unexpected(pod.error());
    if (end.port && !port)
        return fail("only a Service's port has a name: {} is a pod", end.text());
    return TracePoint{*pod, port.value_or(0), std::nullopt};
}

} // namespace thruway::cli
