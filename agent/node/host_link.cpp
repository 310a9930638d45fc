// SPDX-License-Identifier: Apache-2.0
#include "agent/node/host_link.h"

namespace thruway {
namespace {

constexpr const char *name = "thruway0";
constexpr const char *peer = "thruway1";

} // namespace

Result<Link> make_host_link(Netlink &netlink)
{
    if (!netlink.link(name))
        if (auto made = netlink.add_veth({.name = name, .peer = peer}); !made)
            return fail_within(fmt::format("cannot make {}", name), made.error());
    for (const auto &[sysctl, value] : {std::pair{"ipv4/conf/{}/accept_local", "1"},
                                        {"ipv4/conf/{}/rp_filter", "0"},
                                        {"ipv6/conf/{}/accept_ra", "0"}})
        if (auto set = set_net_sysctl(fmt::format(fmt::runtime(sysctl), name), value);
            !set && set.error().code() != ENOENT)
            return std::unexpected(set.error());
    return netlink.link(name);
}

Result<> remove_host_link(Netlink &netlink)
{
    return netlink.delete_link(name);
}

} // namespace thruway
