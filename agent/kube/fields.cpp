// SPDX-License-Identifier: Apache-2.0
#include "agent/kube/fields.h"

#include <fmt/format.h>

namespace thruway {

Protocol read_protocol(Field &field)
{
    const std::string_view text = field.text();
    for (const Protocol protocol : {Protocol::tcp, Protocol::udp, Protocol::sctp}) {
        if (text == protocol_name(protocol))
            return protocol;
    }
    if (!text.empty())
        field.refuse(fmt::format("must be TCP, UDP or SCTP, is {}", quoted(text)));
    return Protocol::tcp;
}

std::optional<uint16_t> read_port(Field &field, int64_t least)
{
    const auto number = field.number();
    if (!number)
        return std::nullopt;
    if (*number < least || *number > UINT16_MAX)
        field.refuse(fmt::format("must be {} to 65535, is {}", least, *number));
    return static_cast<uint16_t>(*number);
}

std::vector<std::string_view> read_texts(Field &field)
{
    std::vector<std::string_view> texts;
    field.each_item([&](Field item, size_t) { texts.push_back(item.text()); });
    return texts;
}

Result<Address> parse_destination(std::string_view text)
{
    const auto address = Address::parse_sloppy(text);
    if (!address)
        return fail("{} is not an IP address", quoted(text));
    if (address->is_unspecified() || address->is_loopback() || address->is_multicast())
        return fail("{} cannot be a destination", quoted(text));
    return *address;
}

std::string_view family_name(Family family)
{
    return family == Family::ipv4 ? "IPv4" : "IPv6";
}

std::vector<std::string_view> plural_or(std::vector<std::string_view> plural, std::string_view singular)
{
    if (plural.empty() && !singular.empty())
        plural.push_back(singular);
    return plural;
}

} // namespace thruway
