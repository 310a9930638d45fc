// SPDX-License-Identifier: Apache-2.0
#include "agent/planner/plan.h"

#include <arpa/inet.h>

namespace thruway {

std::string ServiceKey::text() const
{
    return fmt::format("Service {} port {}/{} ({})", service.text(), port.empty() ? "(unnamed)" : port.text(),
                       protocol_name(protocol), family == Family::ipv4 ? "IPv4" : "IPv6");
}

tw_frontend Frontend::raw() const
{
    tw_frontend raw{};
    raw.address = address.raw();
    raw.port = htons(port);
    raw.protocol = static_cast<uint8_t>(protocol);
    return raw;
}

std::string Frontend::text() const
{
    return fmt::format("{}/{}", endpoint_text(address, port), protocol_name(protocol));
}

} // namespace thruway
