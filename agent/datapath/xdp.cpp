// SPDX-License-Identifier: Apache-2.0
#include "agent/datapath/xdp.h"

#include "agent/base/fd.h"

#include <algorithm>
#include <bpf/bpf.h>
#include <bpf/libbpf.h>
#include <linux/netdev.h>
#include <thruway/nexthop.h>

namespace thruway {
namespace {

constexpr std::array<std::pair<XdpMode, std::string_view>, 3> mode_names{{
    {XdpMode::off, "off"},
    {XdpMode::native, "native"},
    {XdpMode::automatic, "auto"},
}};

/// What a device runs at its XDP hook, by program id, and what it can.
struct Hooked {
    uint32_t native = 0;
    uint32_t generic = 0;
    uint32_t hardware = 0;
    uint64_t features = 0; ///< enum netdev_xdp_act; none before Linux 6.3
};

Result<Hooked> look_at(unsigned ifindex)
{
    bpf_xdp_query_opts query{};
    query.sz = sizeof(query);
    if (const int error = bpf_xdp_query(static_cast<int>(ifindex), 0, &query); error != 0)
        return fail_code(-error, "cannot ask for its XDP programs");
    return Hooked{query.drv_prog_id, query.skb_prog_id, query.hw_prog_id, query.feature_flags};
}

/// Who has the hook: "program 17 (their_name)".
std::string program_text(uint32_t id)
{
    const Fd program(bpf_prog_get_fd_by_id(id));
    bpf_prog_info info{};
    uint32_t length = sizeof(info);
    if (!program || bpf_prog_get_info_by_fd(program.get(), &info, &length) != 0)
        return fmt::format("program {}", id);
    return fmt::format("program {} ({})", id, info.name);
}

/// A program at the hook that is not ours; 0: none.
uint32_t foreign_program(const Hooked &hooked, uint32_t ours)
{
    for (const uint32_t id : {hooked.native, hooked.generic, hooked.hardware})
        if (id != 0 && id != ours)
            return id;
    return 0;
}

/// What XDP sends by a veth is lost without a trace unless the other end polls (drivers/net/veth.c, veth_xdp_xmit).
/// The kernel tells by this feature whether it does.
bool loses_frames(const XdpDevice &device, const Hooked &hooked)
{
    return device.veth && !(hooked.features & NETDEV_XDP_ACT_NDO_XMIT);
}

/// A veth that is told XDP_TX wakes the other end only if that one runs an XDP program, too (veth_xdp_flush); until
/// some other packet comes by the frame lies there. A redirect always wakes it.
uint16_t way_of(const XdpDevice &device, const Hooked &hooked)
{
    constexpr uint64_t whole = NETDEV_XDP_ACT_NDO_XMIT | NETDEV_XDP_ACT_NDO_XMIT_SG;
    uint16_t way = device.veth ? TW_NEXTHOP_REDIRECT : 0;
    if ((hooked.features & whole) == whole)
        way |= TW_NEXTHOP_XDP;
    return way;
}

} // namespace

std::string_view xdp_mode_name(XdpMode mode)
{
    return std::ranges::find(mode_names, mode, &std::pair<XdpMode, std::string_view>::first)->second;
}

Result<XdpMode> parse_xdp_mode(const std::string &text)
{
    const auto *found = std::ranges::find(mode_names, text, &std::pair<XdpMode, std::string_view>::second);
    if (found == mode_names.end())
        return fail("must be auto, native or off, is \"{}\"", text);
    return found->first;
}

XdpState attach_xdp(const Links &links, int program, const XdpDevice &device, XdpMode mode)
{
    const Hook &hook = hooks.at(xdp_net);
    const auto off = [&](std::string reason, bool refused = false) {
        links.detach(hook, device.ifindex);
        return XdpState{.reason = std::move(reason), .refused = refused};
    };
    if (mode == XdpMode::off)
        return off({});
    auto hooked = look_at(device.ifindex);
    if (!hooked)
        return off(hooked.error().text());
    const uint32_t ours = links.xdp_program(hook, device.ifindex);
    if (const uint32_t foreign = foreign_program(*hooked, ours))
        return off(fmt::format("somebody else's XDP {} is attached, and stays", program_text(foreign)));

    if (loses_frames(device, *hooked))
        return off("what XDP sends by it would be lost: switch GRO on at the other end of this veth");
    if (auto attached = links.attach_xdp(hook, program, device.ifindex); !attached)
        return off(fmt::format("its driver does not take it: {}", attached.error().text()), true);

    // Some drivers take frames only while they run a program themselves, so this is asked last.
    hooked = look_at(device.ifindex);
    return {.mode = XdpMode::native, .way = way_of(device, hooked.value_or(Hooked{}))};
}

} // namespace thruway
