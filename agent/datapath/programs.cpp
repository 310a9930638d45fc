// SPDX-License-Identifier: Apache-2.0
#include "agent/datapath/programs.h"

#include "agent/base/address.h"
#include "agent/datapath/clock.h"
#include "agent/datapath/flow_tables.h"
#include "agent/datapath/object.h"

#include <algorithm>
#include <bit>
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

/// What load_barrier() in bpf/lib/flow.h is about.
#ifdef __x86_64__
constexpr uint32_t loads_reorder = 0;
#else
constexpr uint32_t loads_reorder = 1;
#endif

/// The constants for these flow tables: their numbers of buckets, 0 if there is no previous one.
Result<tw_config> make_config(const DatapathOptions &options, const tw_layout &layout, uint32_t buckets,
                              uint32_t previous)
{
    auto cookie = own_netns_cookie();
    if (!cookie)
        return std::unexpected(cookie.error());
    tw_config config{};
    config.flow_seed = layout.flow_seed;
    config.clock = layout.clock;
    config.jiffy = jiffy();
    config.netns_cookie = *cookie;
    config.sock_all = options.sock == SockMode::all;
    config.localhost_node_ports = options.localhost_node_ports;
    config.flow_mask = std::bit_floor(buckets) - 1; // behind them lies the spill area
    if (previous > 0) {
        config.previous_mask = std::bit_floor(previous) - 1;
        config.previous_window = std::has_single_bit(previous) ? 0 : TW_FLOW_WINDOW; // layout version 1 had none
    }
    config.loads_reorder = loads_reorder;
    config.endpoints_max = options.sizes.endpoints;
    config.snat_first = snat_first;
    config.snat_mask = options.snat_ports - 1;
    config.tcp_established = ticks(options.timeouts.tcp_established);
    config.tcp_half_open = ticks(options.timeouts.tcp_half_open);
    config.tcp_closing = ticks(options.timeouts.tcp_closing);
    config.udp_one_way = ticks(options.timeouts.udp_one_way);
    config.udp_two_way = ticks(options.timeouts.udp_two_way);
    config.icmp = ticks(options.timeouts.icmp);
    config.adopt_until = options.timeouts.adopt ? layout.since + ticks(options.timeouts.adopt) : 0;
    return config;
}

Result<> make_folder(const std::string &path)
{
    if (::mkdir(path.c_str(), 0700) != 0 && errno != EEXIST)
        return fail_errno("cannot create {}", path);
    return {};
}

} // namespace

std::string_view sock_mode_name(SockMode mode)
{
    constexpr std::array<std::string_view, 3> names{"off", "host", "all"};
    return names.at(static_cast<size_t>(mode));
}

Result<Datapath> Datapath::open(const DatapathOptions &options)
{
    Datapath datapath;
    datapath.options_ = options;
    datapath.links_ = Links(options.bpffs + "/links");
    datapath.features_ = Features::probe();
    if (!datapath.features_.missing.empty())
        return fail("this kernel lacks {}", fmt::join(datapath.features_.missing, ", "));
    for (const char *folder : {"", "/programs", "/links"})
        if (auto made = make_folder(options.bpffs + folder); !made)
            return std::unexpected(made.error());

    if (auto prepared = prepare_flow_tables(options.bpffs, options.sizes.flows); !prepared)
        return std::unexpected(prepared.error());
    // What is pinned may be just what is wanted.
    if (auto pinned = Maps::open(options.bpffs)) {
        auto layout = MappedArray<tw_layout>::of(pinned->layout, false);
        if (!layout)
            return std::unexpected(layout.error());
        const tw_layout &row = (*layout)[0];
        auto config = make_config(options, row, pinned->flows4.capacity(), pinned->previous4.capacity());
        if (!config)
            return std::unexpected(config.error());
        datapath.digest_ = digest_of(*config, *pinned);
        if (std::memcmp(datapath.digest_.data(), row.programs, sizeof(row.programs)) == 0) {
            if (datapath.take_over_programs()) {
                datapath.maps_ = std::move(*pinned);
                return datapath;
            }
        }
    }
    if (auto loaded = datapath.load(true); !loaded)
        return std::unexpected(loaded.error());
    auto maps = Maps::open(options.bpffs);
    if (!maps)
        return std::unexpected(maps.error());
    datapath.maps_ = std::move(*maps);
    datapath.loaded_ = true;
    return datapath;
}

namespace {

/// The configured size of each map whose size is a setting.
uint32_t entries_of(std::string_view map, const Sizes &sizes, uint32_t standard)
{
    const std::array<std::pair<std::string_view, uint32_t>, 16> table{{
        {"services", sizes.services},
        {"totals", sizes.services},
        {"frontends", sizes.frontends},
        {"vips", sizes.frontends},
        {"backends", sizes.backends},
        {"slots", (sizes.slots + 1) / 2},
        {"endpoints", sizes.endpoints * 2}, // an address of each family
        {"node_addresses", sizes.node_addresses},
        {"node_port_addresses", sizes.node_addresses},
        {"addresses", sizes.node_addresses + sizes.nexthops},
        {"nodes", sizes.nodes},
        {"gateways", sizes.nexthops},
        {"nexthops", sizes.nexthops},
        {"generations", sizes.nexthops},
        {"flows4", flow_buckets(sizes.flows)},
        {"flows6", flow_buckets(sizes.flows)},
    }};
    const auto *found = std::ranges::find(table, map, &std::pair<std::string_view, uint32_t>::first);
    return found == table.end() ? standard : found->second;
}

/// Gives each map its pin and its size: that of the pinned one, if there is one, since flows live in it.
void place_maps(datapath &skeleton, const DatapathOptions &options, bool previous)
{
    bpf_map *map = nullptr;
    bpf_object__for_each_map(map, skeleton.obj)
    {
        const std::string name = bpf_map__name(map);
        const std::string path = fmt::format("{}/{}", options.bpffs, name);
        if (name.starts_with("previous")) {
            auto pinned = Map::open(path, name);
            if (!pinned || !previous)
                continue; // the programs are to know no such table: it is made with one entry, and never read
            bpf_map__set_max_entries(map, pinned->capacity());
            bpf_map__set_pin_path(map, path.c_str());
            continue;
        }
        if (std::ranges::find(Maps::members, name, &Maps::Member::name) == Maps::members.end())
            continue; // constants, scratch room
        uint32_t entries = entries_of(name, options.sizes, bpf_map__max_entries(map));
        const bool counts_only = name == "drops" || name == "flow_events";
        if (auto pinned = Map::open(path, name); pinned && pinned->capacity() != entries && counts_only) {
            ::unlink(path.c_str()); // other reasons or events are counted now, from 0
        } else if (pinned && pinned->capacity() != entries && !name.starts_with("flows")) {
            spdlog::warn("map {} has {} entries, not the {} that are configured: a new size takes effect after "
                         "\"thruway-agent cleanup\"",
                         name, pinned->capacity(), entries);
            entries = pinned->capacity();
        } else if (pinned) {
            entries = pinned->capacity();
        }
        if (bpf_map__type(map) != BPF_MAP_TYPE_SK_STORAGE)
            bpf_map__set_max_entries(map, entries);
        bpf_map__set_pin_path(map, path.c_str());
    }
}

} // namespace

bool Datapath::take_over_programs()
{
    std::vector<Fd> all;
    for (const Hook &hook : hooks)
        all.emplace_back(bpf_obj_get(program_path(hook.program).c_str()));
    Fd gc(bpf_obj_get(program_path(gc_program).c_str()));
    Fd iterator(bpf_obj_get(program_path(iterator_program).c_str()));
    const Fd constants(bpf_obj_get(program_path(constants_map).c_str()));
    if (!gc || !iterator || !constants || !std::ranges::all_of(all, [](const Fd &fd) { return static_cast<bool>(fd); }))
        return false;
    programs_ = std::move(all);
    gc_ = std::move(gc);
    sockets_connected_ = std::move(iterator);
    return true;
}

std::string Datapath::program_path(std::string_view program) const
{
    return fmt::format("{}/programs/{}", options_.bpffs, program);
}

Result<> Datapath::load(bool previous)
{
    auto opened = open_object();
    if (!opened)
        return std::unexpected(opened.error());
    const Skeleton &skeleton = *opened;
    place_maps(*skeleton, options_, previous);

    auto clock = monotonic_less_jiffies();
    if (!clock)
        return std::unexpected(clock.error());
    tw_layout known{};
    known.flow_seed = random_seed();
    known.since = tick_now();
    known.clock = *clock;
    fresh_ = true;
    if (auto pinned = Map::open(options_.bpffs + "/layout", "layout"))
        if (auto row = MappedArray<tw_layout>::of(*pinned, false); row && (*row)[0].version == TW_LAYOUT_VERSION) {
            known.flow_seed = (*row)[0].flow_seed;
            known.since = (*row)[0].since;
            fresh_ = !(*row)[0].carries;
        }
    const bpf_map *previous4 = skeleton->maps.previous4;
    auto config = make_config(options_, known, bpf_map__max_entries(skeleton->maps.flows4),
                              bpf_map__pin_path(previous4) ? bpf_map__max_entries(previous4) : 0);
    if (!config)
        return std::unexpected(config.error());
    if (auto loaded = load_object(*skeleton, *config); !loaded)
        return loaded;
    // What is pinned is not what was committed, from the first new pin on.
    if (auto pinned = Map::open(options_.bpffs + "/layout", "layout"))
        if (auto row = MappedArray<tw_layout>::of(*pinned, true))
            std::ranges::fill((*row)[0].programs, uint8_t{0});
    std::vector<Fd> all;
    for (const Hook &hook : hooks) {
        auto pinned = pin_program(*skeleton, hook.program);
        if (!pinned)
            return std::unexpected(pinned.error());
        all.push_back(std::move(*pinned));
    }
    if (auto pinned = pin_over(bpf_map__fd(skeleton->maps.rodata_config), program_path(constants_map)); !pinned)
        return pinned;
    auto gc = pin_program(*skeleton, gc_program);
    if (!gc)
        return std::unexpected(gc.error());
    auto iterator = pin_program(*skeleton, iterator_program);
    if (!iterator)
        return std::unexpected(iterator.error());
    programs_ = std::move(all);
    gc_ = std::move(*gc);
    sockets_connected_ = std::move(*iterator);
    auto maps = Maps::open(options_.bpffs);
    if (!maps)
        return std::unexpected(maps.error());
    digest_ = digest_of(*config, *maps);

    auto layout = MappedArray<tw_layout>::of(maps->layout, true);
    if (!layout)
        return std::unexpected(layout.error());
    (*layout)[0].flow_seed = known.flow_seed;
    (*layout)[0].since = known.since;
    (*layout)[0].clock = known.clock;
    (*layout)[0].carries = !fresh_;
    publish((*layout)[0].version, static_cast<uint32_t>(TW_LAYOUT_VERSION));
    return {};
}

Result<Fd> Datapath::pin_program(const datapath &skeleton, std::string_view name) const
{
    const bpf_program *program = bpf_object__find_program_by_name(skeleton.obj, std::string(name).c_str());
    Fd fd(::fcntl(bpf_program__fd(program), F_DUPFD_CLOEXEC, 3));
    if (!fd)
        return fail_errno("program {}", name);
    if (auto pinned = pin_over(fd.get(), program_path(name)); !pinned)
        return std::unexpected(pinned.error());
    return fd;
}

Result<> Datapath::forget_previous_table()
{
    return load(false);
}

void Datapath::drop_previous_table()
{
    commit();
    drop_previous_flow_tables(options_.bpffs);
    maps_.previous4 = {};
    maps_.previous6 = {};
}

void Datapath::commit()
{
    fresh_ = false;
    if (auto layout = MappedArray<tw_layout>::of(maps_.layout, true)) {
        if (std::memcmp((*layout)[0].programs, digest_.data(), digest_.size()) != 0)
            std::memcpy((*layout)[0].programs, digest_.data(), digest_.size());
        publish((*layout)[0].carries, 1U);
    }
}

Result<> Datapath::attach_pod(unsigned ifindex, std::string_view device)
{
    for (const HookIndex hook : {to_pod, from_pod})
        if (auto attached = attach_filter(hooks.at(hook), programs_[hook].get(), ifindex); !attached)
            return fail_within(fmt::format("cannot attach {} to {}", hooks.at(hook).program, device), attached.error());
    return {};
}

Result<> Datapath::attach_device(HookIndex hook, unsigned ifindex, std::string_view device)
{
    auto attached = features_.tcx ? links_.attach_tcx(hooks.at(hook), programs_[hook].get(), ifindex)
                                  : links_.attach_clsact(hooks.at(hook), programs_[hook].get(), ifindex);
    if (!attached)
        return fail_within(fmt::format("cannot attach {} to {}", hooks.at(hook).program, device), attached.error());
    return {};
}

Result<> Datapath::attach_uplink(unsigned ifindex, std::string_view device)
{
    for (const HookIndex hook : {to_net, from_net})
        if (auto attached = attach_device(hook, ifindex, device); !attached)
            return attached;
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

Result<> Datapath::attach_loopback()
{
    return attach_device(to_net, loopback_ifindex, "lo");
}

void Datapath::detach_loopback()
{
    links_.detach(hooks.at(to_net), loopback_ifindex);
}

void Datapath::detach_others(const std::function<bool(unsigned ifindex)> &keep)
{
    links_.detach_others(keep);
}

Result<> Datapath::attach_sockets()
{
    for (size_t i = sockets_first; i < hooks.size(); i++)
        if (auto attached = links_.attach_cgroup(hooks[i], programs_[i].get(), options_.cgroup); !attached)
            return fail_within(fmt::format("cannot attach {} to cgroup {}", hooks[i].program, options_.cgroup),
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
    for (const std::string_view pin : {gc_program, iterator_program, constants_map})
        fs::remove(fmt::format("{}/programs/{}", bpffs, pin), error);
    for (const Maps::Member &member : Maps::members)
        fs::remove(fmt::format("{}/{}", bpffs, member.name), error);
    drop_previous_flow_tables(bpffs);
    for (const char *folder : {"/programs", "/links", ""})
        if (::rmdir((bpffs + folder).c_str()) != 0 && errno != ENOENT && errno != EBUSY) // busy: a mount of its own
            return fail_errno("cannot remove {}{}", bpffs, folder);
    return {};
}

} // namespace thruway
