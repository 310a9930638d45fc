// SPDX-License-Identifier: Apache-2.0
#include "agent/node/reserved_ports.h"

#include "agent/base/file.h"
#include "agent/node/netlink.h"

#include <charconv>
#include <filesystem>

namespace thruway {
namespace {

constexpr const char *sysctl = "ipv4/ip_local_reserved_ports";

/// Takes a number from the front of the text.
bool take_port(std::string_view &text, uint16_t &port)
{
    const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), port);
    text.remove_prefix(static_cast<size_t>(end - text.data()));
    return error == std::errc{};
}

bool take(std::string_view &text, char expected)
{
    if (!text.starts_with(expected))
        return false;
    text.remove_prefix(1);
    return true;
}

Result<PortSet> reserved_now()
{
    auto text = get_net_sysctl(sysctl);
    if (!text)
        return std::unexpected(text.error());
    return PortSet::parse(*text);
}

} // namespace

PortSet PortSet::range(uint16_t first, uint16_t last)
{
    PortSet set;
    for (uint32_t port = first; port <= last; port++)
        set.ports_.set(port);
    return set;
}

Result<PortSet> PortSet::parse(std::string_view text)
{
    PortSet set;
    std::string_view rest = text;
    while (!rest.empty()) {
        uint16_t first = 0;
        bool good = take_port(rest, first);
        uint16_t last = first;
        if (take(rest, '-'))
            good = take_port(rest, last) && good;
        if (!rest.empty())
            good = take(rest, ',') && !rest.empty() && good;
        if (!good || last < first)
            return fail("\"{}\" is no list of ports", text);
        set = set.with(range(first, last));
    }
    return set;
}

std::string PortSet::text() const
{
    std::string text;
    for (size_t first = 0; first < ports_.size(); first++) {
        if (!ports_[first])
            continue;
        size_t last = first;
        while (last + 1 < ports_.size() && ports_[last + 1])
            last++;
        text += fmt::format("{}{}", text.empty() ? "" : ",", first);
        if (last > first)
            text += fmt::format("-{}", last);
        first = last;
    }
    return text;
}

Result<> ReservedPorts::reserve(const PortSet &ports) const
{
    auto now = reserved_now();
    if (!now)
        return std::unexpected(now.error());
    const PortSet missing = ports.without(*now);
    if (missing.empty())
        return {};
    const auto recorded = PortSet::parse(read_file(record_).value_or(""));
    // If what we once added is not there, somebody has written the list anew since, and all that it has is his.
    const bool ours_stand = recorded && recorded->without(*now).empty();
    const PortSet ours = ours_stand ? recorded->with(missing) : missing;
    // First the record: what is in the sysctl and not in it would stay for ever.
    if (auto written = replace_file(record_, ours.text()); !written)
        return written;
    return set_net_sysctl(sysctl, now->with(missing).text());
}

Result<> ReservedPorts::release() const
{
    const auto recorded = read_file(record_);
    if (!recorded)
        return recorded.error().code() == ENOENT ? Result<>() : std::unexpected(recorded.error());
    const auto ours = PortSet::parse(*recorded);
    if (!ours)
        return fail_within(record_, ours.error());
    const auto now = reserved_now();
    if (!now)
        return std::unexpected(now.error());
    if (auto set = set_net_sysctl(sysctl, now->without(*ours).text()); !set)
        return set;
    std::error_code error;
    std::filesystem::remove(record_, error);
    return {};
}

} // namespace thruway
