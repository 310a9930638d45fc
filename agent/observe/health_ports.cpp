// SPDX-License-Identifier: Apache-2.0
#include "agent/observe/health_ports.h"

#include <algorithm>

namespace thruway {

/// Ports are given back before others are asked for: a port may go from one Service to another in one change.
void HealthPorts::apply(const std::vector<std::pair<ObjectName, HealthCheck>> &changes)
{
    for (const auto &[service, check] : changes)
        if (const auto found = ports_.find(service); found != ports_.end() && found->second.check.port != check.port)
            ports_.erase(found);
    for (const auto &[service, check] : changes) {
        if (check.port == 0)
            continue;
        const auto entry = ports_.try_emplace(service).first;
        entry->second.check = check;
        serve(entry->first, entry->second);
    }
}

void HealthPorts::set_addresses(std::vector<Address> addresses)
{
    if (addresses_ == addresses)
        return;
    addresses_ = std::move(addresses);
    for (auto &[service, port] : ports_)
        serve(service, port);
}

/// What is not wanted any more goes first: a socket at all addresses is in the way of one at any.
void HealthPorts::serve(const ObjectName &service, Port &port)
{
    std::erase_if(port.servers,
                  [&](const auto &server) { return std::ranges::find(addresses_, server.first) == addresses_.end(); });
    for (const Address &address : addresses_)
        if (auto &server = port.servers[address]; !server)
            server = open(service, port, address);
}

std::unique_ptr<PatientServer> HealthPorts::open(const ObjectName &service, Port &port, const Address &address)
{
    // Names and ports stay where they are in the map, and the server goes with them.
    return std::make_unique<PatientServer>(
        loop_, endpoint_text(address, port.check.port),
        [this, &service, &port](const HttpRequest &, const HttpServer::Reply &reply) {
            reply(health_answer(service, port.check.endpoints, healthy_()));
        },
        [&](const Error &error) { refused_(service, port.check.port, error); });
}

HttpResponse health_answer(const ObjectName &service, uint32_t endpoints, bool healthy)
{
    return {.status = endpoints > 0 && healthy ? 200 : 503,
            .type = "application/json",
            .body = fmt::format("{{\n"
                                "\t\"service\": {{\n"
                                "\t\t\"namespace\": \"{}\",\n"
                                "\t\t\"name\": \"{}\"\n"
                                "\t}},\n"
                                "\t\"localEndpoints\": {},\n"
                                "\t\"serviceProxyHealthy\": {}\n"
                                "}}",
                                service.space.text(), service.name, endpoints, healthy),
            .headers = {{"X-Content-Type-Options", "nosniff"},
                        {"X-Load-Balancing-Endpoint-Weight", std::to_string(endpoints)}}};
}

} // namespace thruway
