// SPDX-License-Identifier: Apache-2.0
#include "agent/datapath/programs.h"

#include "agent/base/address.h"
#include "agent/datapath/object.h"

#include <algorithm>
#include <bpf/bpf.h>
#include <bpf/libbpf.h>
#include <fcntl.h>
#include <filesystem>
#include <linux/bpf.h>
#include <spdlog/spdlog.h>
#include <sys/random.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

namespace thruway {
namespace {

namespace fs = std::filesystem;

Result<uint64_t> own_netns_cookie()
{
    const Fd socket(::socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0));
    uint64_t cookie = 0;
    socklen_t length = sizeof(cookie);

    if (!socket || getsockopt(socket.get(), SOL_SOCKET, SO_NETNS_COOKIE, &cookie, &length) != 0)
        return fail_errno("cannot learn the cookie of this network namespace");
    return cookie;
}

uint64_t random_seed()
{
    uint64_t seed = 0;
    while (getrandom(&seed, sizeof(seed), 0) != sizeof(seed)) {
    }
    return seed;
}

uint32_t ticks(uint32_t seconds)
{
    const uint64_t nanoseconds = uint64_t{seconds} * 1'000'000'000;
    return static_cast<uint32_t>(std::clamp<uint64_t>(nanoseconds >> TW_CLOCK_SHIFT, 1, 0xfff0));
}

Result<tw_config> make_config(const DatapathOptions &options, uint64_t seed, uint32_t buckets)
{
    auto cookie = own_netns_cookie();
    if (!cookie)
        return std::unexpected(cookie.error());
    tw_config config{};
    config.flow_seed = seed;
    config.host_netns_cookie = *cookie;
    config.flow_mask = buckets - 1;
    config.endpoints_max = options.sizes.endpoints;
    config.snat_first = snat_first;
    config.snat_mask = snat_count - 1;
    config.tcp_established = ticks(options.timeouts.tcp_established);
    config.tcp_half_open = ticks(options.timeouts.tcp_half_open);
    config.tcp_closing = ticks(options.timeouts.tcp_closing);
    config.udp_one_way = ticks(options.timeouts.udp_one_way);
    config.udp_two_way = ticks(options.timeouts.udp_two_way);
    config.icmp = ticks(options.timeouts.icmp);
    return config;
}

/// Puts a pin in the place of another one, in one step.
Result<> repin(int fd, const std::string &path)
{
    const std::string next = path + "-new"; // bpffs allows no dots
    ::unlink(next.c_str());
    if (bpf_obj_pin(fd, next.c_str()) != 0)
        return fail_errno("cannot pin {}", next);
    if (::rename(next.c_str(), path.c_str()) != 0)
        return fail_errno("cannot rename {}", next);
    return {};
}

Result<> make_folder(const std::string &path)
{
    if (::mkdir(path.c_str(), 0700) != 0 && errno != EEXIST)
        return fail_errno("cannot create {}", path);
    return {};
}

} // namespace

Result<Datapath> Datapath::open(const DatapathOptions &options)
{
    Datapath datapath;
    datapath.bpffs_ = options.bpffs;
    datapath.cgroup_ = options.cgroup;
    datapath.links_ = Links(options.bpffs + "/links");
    datapath.features_ = Features::probe();
    if (!datapath.features_.missing.empty())
        return fail("this kernel lacks {}", fmt::join(datapath.features_.missing, ", "));
    for (const char *folder : {"", "/programs", "/links"})
        if (auto made = make_folder(options.bpffs + folder); !made)
            return std::unexpected(made.error());

    // What is pinned may be just what is wanted.
    if (auto pinned = Maps::open(options.bpffs)) {
        auto layout = MappedArray<tw_layout>::of(pinned->layout, false);
        if (!layout)
            return std::unexpected(layout.error());
        const tw_layout &row = (*layout)[0];
        if (row.version != 0 && row.version != TW_LAYOUT_VERSION) // 0: the first load was cut short
            return fail("{} holds maps of layout version {}, this agent knows version {}: take them down first with "
                        "\"thruway-agent cleanup\" (this ends the connections that they carry)",
                        options.bpffs, row.version, TW_LAYOUT_VERSION);
        auto config = make_config(options, row.flow_seed, pinned->flows4.capacity());
        if (!config)
            return std::unexpected(config.error());
        datapath.digest_ = digest_of(*config, *pinned);
        if (std::memcmp(datapath.digest_.data(), row.programs, sizeof(row.programs)) == 0) {
            for (const Hook &hook : hooks) {
                Fd fd(bpf_obj_get(fmt::format("{}/programs/{}", options.bpffs, hook.program).c_str()));
                if (!fd)
                    break;
                datapath.programs_.push_back(std::move(fd));
            }
            if (datapath.programs_.size() == hooks.size()) {
                datapath.maps_ = std::move(*pinned);
                return datapath;
            }
            datapath.programs_.clear();
        }
    }
    if (auto loaded = datapath.load(options); !loaded)
        return std::unexpected(loaded.error());
    return datapath;
}

namespace {

/// The configured size of each map whose size is a setting.
uint32_t entries_of(std::string_view map, const Sizes &sizes, uint32_t standard)
{
    const std::array<std::pair<std::string_view, uint32_t>, 15> table{{
        {"services", sizes.services},
        {"totals", sizes.services},
        {"frontends", sizes.frontends},
        {"vips", sizes.frontends},
        {"backends", sizes.backends},
        {"slots", (sizes.slots + 1) / 2},
        {"endpoints", sizes.endpoints * 2}, // an address of each family
        {"node_addresses", sizes.node_addresses},
        {"addresses", sizes.node_addresses + sizes.nexthops},
        {"nodes", sizes.nodes},
        {"gateways", sizes.nexthops},
        {"nexthops", sizes.nexthops},
        {"generations", sizes.nexthops},
        {"flows4", sizes.flows / TW_FLOW_WAYS},
        {"flows6", sizes.flows / TW_FLOW_WAYS},
    }};
    const auto *found = std::ranges::find(table, map, &std::pair<std::string_view, uint32_t>::first);
    return found == table.end() ? standard : found->second;
}

/// Gives each map its pin and its size: that of the pinned one, if there is one, since flows live in it.
void place_maps(datapath &skeleton, const DatapathOptions &options)
{
    bpf_map *map = nullptr;
    bpf_object__for_each_map(map, skeleton.obj)
    {
        const std::string name = bpf_map__name(map);
        if (std::ranges::find(Maps::members, name, &Maps::Member::name) == Maps::members.end())
            continue; // constants, scratch room
        const std::string path = fmt::format("{}/{}", options.bpffs, name);
        uint32_t entries = entries_of(name, options.sizes, bpf_map__max_entries(map));
        if (auto pinned = Map::open(path, name); pinned && pinned->capacity() != entries) {
            spdlog::warn("map {} has {} entries, not the {} that are configured: a new size takes effect after "
                         "\"thruway-agent cleanup\"",
                         name, pinned->capacity(), entries);
            entries = pinned->capacity();
        }
        if (bpf_map__type(map) != BPF_MAP_TYPE_SK_STORAGE)
            bpf_map__set_max_entries(map, entries);
        bpf_map__set_pin_path(map, path.c_str());
    }
}

} // namespace

Result<> Datapath::load(const DatapathOptions &options)
{
    auto opened = open_object();
    if (!opened)
        return std::unexpected(opened.error());
    const Skeleton &skeleton = *opened;
    place_maps(*skeleton, options);

    uint64_t seed = random_seed();
    if (auto pinned = Map::open(options.bpffs + "/layout", "layout"))
        if (auto row = MappedArray<tw_layout>::of(*pinned, false); row && (*row)[0].version == TW_LAYOUT_VERSION)
            seed = (*row)[0].flow_seed;
    auto config = make_config(options, seed, bpf_map__max_entries(skeleton->maps.flows4));
    if (!config)
        return std::unexpected(config.error());
    if (auto loaded = load_object(*skeleton, *config); !loaded)
        return loaded;
    loaded_ = true;
    for (const Hook &hook : hooks) {
        const bpf_program *program = bpf_object__find_program_by_name(skeleton->obj, std::string(hook.program).c_str());
        Fd fd(::fcntl(bpf_program__fd(program), F_DUPFD_CLOEXEC, 3));
        if (!fd)
            return fail_errno("program {}", hook.program);
        if (auto pinned = repin(fd.get(), fmt::format("{}/programs/{}", bpffs_, hook.program)); !pinned)
            return pinned;
        programs_.push_back(std::move(fd));
    }
    auto maps = Maps::open(bpffs_);
    if (!maps)
        return std::unexpected(maps.error());
    maps_ = std::move(*maps);
    digest_ = digest_of(*config, maps_);

    auto layout = MappedArray<tw_layout>::of(maps_.layout, true);
    if (!layout)
        return std::unexpected(layout.error());
    (*layout)[0].flow_seed = seed;
    publish((*layout)[0].version, static_cast<uint32_t>(TW_LAYOUT_VERSION));
    return {};
}

void Datapath::commit()
{
    if (auto layout = MappedArray<tw_layout>::of(maps_.layout, true))
        if (std::memcmp((*layout)[0].programs, digest_.data(), digest_.size()) != 0)
            std::memcpy((*layout)[0].programs, digest_.data(), digest_.size());
}

Result<> Datapath::attach_pod(unsigned ifindex, std::string_view device)
{
    for (const HookIndex hook : {to_pod, from_pod})
        if (auto attached = attach_filter(hooks.at(hook), programs_[hook].get(), ifindex); !attached)
            return fail_within(fmt::format("cannot attach {} to {}", hooks.at(hook).program, device), attached.error());
    return {};
}

Result<> Datapath::attach_uplink(unsigned ifindex, std::string_view device)
{
    for (const HookIndex hook : {to_net, from_net}) {
        auto attached = features_.tcx ? links_.attach_tcx(hooks.at(hook), programs_[hook].get(), ifindex)
                                      : links_.attach_clsact(hooks.at(hook), programs_[hook].get(), ifindex);
        if (!attached)
            return fail_within(fmt::format("cannot attach {} to {}", hooks.at(hook).program, device), attached.error());
    }
    return {};
}

XdpState Datapath::attach_xdp(const XdpDevice &device, XdpMode mode) const
{
    return thruway::attach_xdp(links_, programs_[xdp_net].get(), device, mode);
}

void Datapath::detach_uplink(unsigned ifindex)
{
    for (const HookIndex hook : {xdp_net, from_net, to_net})
        links_.detach(hooks.at(hook), ifindex);
}

void Datapath::detach_other_uplinks(const std::function<bool(unsigned ifindex)> &keep)
{
    links_.detach_others(keep);
}

Result<> Datapath::attach_sockets()
{
    for (size_t i = sockets_first; i < hooks.size(); i++)
        if (auto attached = links_.attach_cgroup(hooks[i], programs_[i].get(), cgroup_); !attached)
            return fail_within(fmt::format("cannot attach {} to cgroup {}", hooks[i].program, cgroup_),
                               attached.error());
    return {};
}

void Datapath::detach_sockets()
{
    for (size_t i = sockets_first; i < hooks.size(); i++)
        links_.detach(hooks.at(i));
}

Result<> Datapath::cleanup(const std::string &bpffs)
{
    std::error_code error;
    Links(bpffs + "/links").detach_all();
    // Only what carries our names: somebody may have put pins of his own into the folder.
    for (const Hook &hook : hooks)
        fs::remove(fmt::format("{}/programs/{}", bpffs, hook.program), error);
    for (const Maps::Member &member : Maps::members)
        fs::remove(fmt::format("{}/{}", bpffs, member.name), error);
    for (const char *folder : {"/programs", "/links", ""})
        if (::rmdir((bpffs + folder).c_str()) != 0 && errno != ENOENT && errno != EBUSY) // busy: a mount of its own
            return fail_errno("cannot remove {}{}", bpffs, folder);
    return {};
}

} // namespace thruway
