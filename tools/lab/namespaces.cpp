// SPDX-License-Identifier: Apache-2.0
#include "tools/lab/namespaces.h"

#include "tools/lab/process.h"

#include <fcntl.h>
#include <sched.h>
#include <sys/mount.h>
#include <utility>
#include <vector>

namespace thruway::lab {
namespace {

std::string netns_path(const std::string &name)
{
    return fmt::format("{}/{}", netns_folder, name);
}

/// Everything that a network namespace may inherit from the machine is set, so that labs are alike everywhere.
std::vector<std::pair<std::string, std::string>> sysctls_of(NetnsRole role)
{
    if (role == NetnsRole::bare)
        return {};
    const std::string forward = role == NetnsRole::router ? "1" : "0";
    return {
        {"ipv4/ip_forward", forward},
        {"ipv6/conf/all/forwarding", forward},
        {"ipv4/conf/all/rp_filter", "0"},
        {"ipv4/conf/default/rp_filter", "0"},
        {"ipv6/conf/all/accept_dad", "0"},
        {"ipv6/conf/default/accept_dad", "0"}, // addresses work at once
        {"ipv6/conf/default/dad_transmits", "0"},
    };
}

} // namespace

Result<> make_netns(const Keeper &keeper, const std::string &name, NetnsRole role)
{
    const std::string path = netns_path(name);
    auto made = call_inside(keeper, [&path] {
        const Fd point(::open(path.c_str(), O_RDONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0444));
        if (!point)
            return errno;
        if (::unshare(CLONE_NEWNET) == 0 && ::mount("/proc/self/ns/net", path.c_str(), nullptr, MS_BIND, nullptr) == 0)
            return 0;
        const int code = errno;
        ::unlink(path.c_str());
        return code;
    });
    if (!made)
        return fail_within(fmt::format("cannot make network namespace {}", name), made.error());

    auto netns = keeper.netns(name);
    if (!netns)
        return std::unexpected(netns.error());
    return prepare_netns(netns->get(), role);
}

Result<> remove_netns(const Keeper &keeper, const std::string &name)
{
    const std::string path = netns_path(name);
    auto removed = call_inside(keeper, [&path] {
        ::umount2(path.c_str(), MNT_DETACH);
        return ::unlink(path.c_str()) == 0 || errno == ENOENT ? 0 : errno;
    });
    if (!removed)
        return fail_within(fmt::format("cannot remove network namespace {}", name), removed.error());
    return {};
}

Result<> prepare_netns(int netns, NetnsRole role)
{
    auto visit = NetnsVisit::enter(netns);
    if (!visit)
        return std::unexpected(visit.error());
    for (const auto &[name, value] : sysctls_of(role)) {
        if (auto set = set_net_sysctl(name, value); !set)
            return set;
    }
    auto netlink = Netlink::open();
    if (!netlink)
        return std::unexpected(netlink.error());
    auto loopback = netlink->link("lo");
    if (!loopback)
        return std::unexpected(loopback.error());
    return netlink->set_up(loopback->index);
}

Result<Netlink> netlink_in(const Keeper &keeper, const std::string &netns)
{
    auto file = keeper.netns(netns);
    if (!file)
        return std::unexpected(file.error());
    auto visit = NetnsVisit::enter(file->get());
    if (!visit)
        return std::unexpected(visit.error());
    return Netlink::open();
}

Result<> mount_bpffs(const Keeper &keeper, const std::filesystem::path &folder)
{
    auto mounted = call_inside(keeper, [&folder] {
        return ::mount("bpf", folder.c_str(), "bpf", MS_NOSUID | MS_NODEV | MS_NOEXEC, "mode=0700") == 0 ? 0 : errno;
    });
    if (!mounted)
        return fail_within(fmt::format("cannot mount a bpffs on {}", folder.native()), mounted.error());
    return {};
}

} // namespace thruway::lab
