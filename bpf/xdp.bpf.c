// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
/* An uplink before the kernel makes a buffer of a frame: what goes by a frontend of this node to another node, and
 * what comes back. Only whole, ordinary packets are carried here; any other passes untouched to from_net, which has the
 * same rows and deals with it once. So until a packet is sure to be sent from here nothing is counted or changed. */

#include "lib/uplink.h"

/* Reads the headers. `length` is that of the whole frame, of which [data, end) may be only the first buffer. */
inline_always enum tw_drop frame_parse(struct xdp_md *ctx, struct packet *p, u32 *length, const bool v6)
{
    void *data = (void *)(long)ctx->data, *end = (void *)(long)ctx->data_end;
    enum tw_drop reason;

    *length = end - data;
    reason = parse(data, end, *length, p, v6);
    if (likely(reason != TW_DROP_MALFORMED))
        return reason;
    *length = bpf_xdp_get_buff_len(ctx);
    __builtin_memset(p, 0, sizeof(*p));
    return parse(data, end, *length, p, v6);
}

/* True for what frontends speak, in one piece, without options or extension headers, and with a hop left. */
inline_always bool frame_ordinary(const struct packet *p, const bool v6)
{
    return p->kind == KIND_FLOW && (p->tuple.protocol == IPPROTO_TCP || p->tuple.protocol == IPPROTO_UDP) &&
           p->transport == ETH_HLEN + (v6 ? sizeof(struct ipv6hdr) : sizeof(struct iphdr)) && p->hops > 1;
}

/* True if the checksum is but the sum of the pseudo-header. That is how a sender on the same machine leaves it to a
 * device that is to complete it (CHECKSUM_PARTIAL), and nothing tells an XDP program. A complete checksum looks like it
 * once in 65,536 packets, and loses only time by it. */
inline_always bool frame_sum_partial(void *data, void *end, const struct packet *p, const bool v6)
{
    u16 *checksum = packet_transport(data, p) + checksum_offset(p->tuple.protocol);
    u64 sum = (u64)p->tuple.source.word[3] + p->tuple.destination.word[3] + bpf_htons(p->tuple.protocol);
    u32 folded;

    if (v6) {
        struct ipv6hdr *ip = data + ETH_HLEN;

        if ((void *)(ip + 1) > end || (void *)(checksum + 1) > end)
            return true;
        sum += ip->payload_len;
        for (int i = 0; i < 3; i++)
            sum += (u64)p->tuple.source.word[i] + p->tuple.destination.word[i];
    } else {
        struct iphdr *ip = data + ETH_HLEN;

        if ((void *)(ip + 1) > end || (void *)(checksum + 1) > end)
            return true;
        sum += bpf_htons(bpf_ntohs(ip->tot_len) - sizeof(*ip));
    }
    folded = sum_fold32(sum);
    folded = (folded & 0xffff) + (folded >> 16);
    folded = (folded & 0xffff) + (folded >> 16);
    return *checksum == folded;
}

/* True if the frame is for the device that it came in by, which the next hop must lead through: no broadcast, and
 * nobody else's frame that a device in promiscuous mode shows us. */
inline_always bool frame_for(struct xdp_md *ctx, const struct tw_nexthop *nexthop)
{
    struct ethhdr *ethernet = (void *)(long)ctx->data;

    if ((void *)(ethernet + 1) > (void *)(long)ctx->data_end || nexthop->link.ifindex != ctx->ingress_ifindex)
        return false;
    return !__builtin_memcmp(ethernet->h_dest, nexthop->from.mac, ETH_ALEN);
}

inline_always bool frame_for_uplink(struct xdp_md *ctx)
{
    u32 ifindex = ctx->ingress_ifindex;
    u32 *uplink = bpf_map_lookup_elem(&ifindexes, &ifindex);
    struct tw_nexthop *nexthop = uplink ? bpf_map_lookup_elem(&nexthops, uplink) : 0;

    return nexthop && frame_for(ctx, nexthop);
}

__weak int xdp_net_open4(struct xdp_md *ctx, const struct packet *p, struct flow *f)
{
    return p && f ? net_open(ctx, 0, ctx->ingress_ifindex, p, f, false, false) : TW_DROP_FLOW_BUSY;
}

__weak int xdp_net_open6(struct xdp_md *ctx, const struct packet *p, struct flow *f)
{
    return p && f ? net_open(ctx, 0, ctx->ingress_ifindex, p, f, false, true) : TW_DROP_FLOW_BUSY;
}

/* The packet's flow, found or opened: TW_PASS, OPEN_PASS or a reason to drop. Rows to be mended are left to tc, and so
 * is a service without backends, which owes an answer. So are all new flows while a former proxy's may be met: only tc
 * programs can see those. */
inline_always int xdp_flow(struct xdp_md *ctx, const struct packet *p, struct flow *f, struct tw_flow **row,
                           const bool v6)
{
    int outcome;

#pragma clang loop unroll(disable)
    for (int tries = 0; tries < 2; tries++) {
        enum flow_result result = flow_find(&p->tuple, f, row, f->now, v6);

        if (likely(result == FLOW_FOUND && !flow_reopens(f, p)))
            return TW_PASS;
        if (tries || result == FLOW_STALE || !packet_opens(p) || !open_carries() || snat_adopts() ||
            !frame_for_uplink(ctx))
            break;
        outcome = v6 ? xdp_net_open6(ctx, p, f) : xdp_net_open4(ctx, p, f);
        if (outcome == OPEN_MADE)
            return open_made(f, row, v6);
        if (outcome)
            return outcome < 0 || refuses(outcome) ? OPEN_PASS : outcome;
    }
    return OPEN_PASS;
}

/* The next hop, if a frame of this length may be sent there from here. */
inline_always const struct tw_nexthop *xdp_way(struct xdp_md *ctx, const struct flow *f, u32 length,
                                               union neighbour *to)
{
    u32 next = f->next, back = f->back;
    const struct tw_nexthop *nexthop, *in;

    if (next < config.endpoints_max || back < config.endpoints_max)
        return 0;
    in = nexthop = bpf_map_lookup_elem(&nexthops, &next);
    if (!nexthop || length > ETH_HLEN + nexthop->link.mtu)
        return 0;
    to->word = READ_ONCE(*(u64 *)&nexthop->to);
    if (!(to->flags & TW_NEXTHOP_RESOLVED))
        return 0;
    if (nexthop->link.ifindex != ctx->ingress_ifindex) {
        if (!(to->flags & TW_NEXTHOP_XDP))
            return 0;
        in = bpf_map_lookup_elem(&nexthops, &back);
    }
    return in && frame_for(ctx, in) ? nexthop : 0;
}

inline_always int xdp_send(struct xdp_md *ctx, const struct tw_nexthop *nexthop, u16 flags)
{
    u32 ifindex = nexthop->link.ifindex;

    if (ifindex == ctx->ingress_ifindex && !(flags & TW_NEXTHOP_REDIRECT))
        return XDP_TX;
    return bpf_redirect(ifindex, 0);
}

inline_always int xdp_net_family(struct xdp_md *ctx, const bool v6)
{
    void *data = (void *)(long)ctx->data, *end = (void *)(long)ctx->data_end;
    struct flow f = {.now = flow_now()};
    const struct tw_nexthop *nexthop;
    struct ethhdr *ethernet = data;
    struct tw_flow *row = 0;
    struct packet p = {};
    union neighbour to;
    u32 length;
    int reason;

    if (frame_parse(ctx, &p, &length, v6) || !frame_ordinary(&p, v6))
        return XDP_PASS;
    reason = xdp_flow(ctx, &p, &f, &row, v6);
    if (unlikely(reason)) {
        if (reason != OPEN_PASS)
            drop(reason, TW_HOOK_XDP_NET, length);
        return reason == OPEN_PASS ? XDP_PASS : XDP_DROP;
    }
    nexthop = xdp_way(ctx, &f, length, &to);
    if (!nexthop || !row || frame_sum_partial(data, end, &p, v6))
        return XDP_PASS;
    established(&p, &f, row, 1, length, v6);
    if (f.flags & TW_FLOW_TRANSLATED &&
        !(nat_checksum_write(data, end, &p, &f.to, false, v6) && nat_write(data, end, &p, &f.to, v6)))
        goto failed;
    if ((void *)(ethernet + 1) > end || !deliver_hop(data, end, v6))
        goto failed;
    deliver_macs(ethernet, nexthop, &to);
    return xdp_send(ctx, nexthop, to.flags);

failed: /* cannot be: all of these headers have been read; the verifier does not know */
    drop(TW_DROP_REWRITE_FAILED, TW_HOOK_XDP_NET, length);
    return XDP_DROP;
}

static __noinline int xdp_net4(struct xdp_md *ctx)
{
    return xdp_net_family(ctx, false);
}

static __noinline int xdp_net6(struct xdp_md *ctx)
{
    return xdp_net_family(ctx, true);
}

SEC("xdp.frags")
int xdp_net(struct xdp_md *ctx)
{
    struct ethhdr *ethernet = (void *)(long)ctx->data;

    if ((void *)(ethernet + 1) > (void *)(long)ctx->data_end)
        return XDP_PASS;
    switch (ethernet->h_proto) {
    case bpf_htons(ETH_P_IP):
        return xdp_net4(ctx);
    case bpf_htons(ETH_P_IPV6):
        return xdp_net6(ctx);
    default:
        return XDP_PASS;
    }
}

const char LICENSE[] __attribute__((weak)) SEC("license") = "Dual BSD/GPL";
