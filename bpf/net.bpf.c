// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
/* Both directions of an uplink. What is neither for a pod nor for a frontend is the host's and passes untouched. */

#include "lib/open.h"

/* The way back to whoever sent this packet: by the uplink it came in by, whatever other routes there are. */
inline_always u32 net_back(struct __sk_buff *skb, const struct packet *p)
{
    u32 ifindex = skb->ifindex;
    u32 back = route_kernel(skb, &p->tuple.source, &p->tuple.destination, ifindex, BPF_FIB_LOOKUP_OUTPUT);
    u32 *uplink;

    if (back)
        return back;
    uplink = bpf_map_lookup_elem(&ifindexes, &ifindex);
    return uplink ? *uplink : NEXTHOP_STACK;
}

/* First packet of a flow from outside, or one whose ends have moved. */
inline_always int from_net_open(struct __sk_buff *skb, const struct packet *p, struct flow *f, bool stale,
                                const bool v6)
{
    struct chosen chosen;
    bool frontend;
    int reason;

    if (stale) {
        reason = route(skb, &f->to.destination, &p->tuple.source, &f->next);
        f->back = net_back(skb, p);
        if (!reason)
            flow_repoint(f->place, f->word, f->next, f->back, v6);
        return reason;
    }
    frontend = service_find(&p->tuple.destination, p->tuple.destination_port, p->tuple.protocol, &chosen);
    if (!frontend && !bpf_map_lookup_elem(&endpoints, &p->tuple.destination))
        return OPEN_PASS;
    if (bpf_map_lookup_elem(&endpoints, &p->tuple.source) || bpf_map_lookup_elem(&node_addresses, &p->tuple.source))
        return TW_DROP_SPOOFED_SOURCE;
    f->to = p->tuple;
    f->flags = 0;
    f->service = 0;
    if (frontend) {
        if (!packet_opens(p)) /* perhaps a connection of the node's own, or of a former proxy */
            return OPEN_PASS;
        reason = open_service(f, chosen.service);
        if (reason)
            return reason;
    }
    reason = route(skb, &f->to.destination, &p->tuple.source, &f->next);
    if (!reason && frontend && f->next != NEXTHOP_STACK) /* the backend's reply must come back through this node */
        reason = open_source(f, v6);
    if (reason)
        return reason;
    f->back = net_back(skb, p);
    return open_flow(p, f, v6);
}

__weak int from_net_open4(struct __sk_buff *skb, const struct packet *p, struct flow *f, bool stale)
{
    return p && f ? from_net_open(skb, p, f, stale, false) : TW_DROP_FLOW_BUSY;
}

__weak int from_net_open6(struct __sk_buff *skb, const struct packet *p, struct flow *f, bool stale)
{
    return p && f ? from_net_open(skb, p, f, stale, true) : TW_DROP_FLOW_BUSY;
}

inline_always int from_net_family(struct __sk_buff *skb, const bool v6)
{
    struct flow f = {.now = flow_now()};
    struct tw_flow *row = 0;
    struct packet p = {};
    u32 length = skb->len;
    int reason, verdict;

    reason = packet_load(skb, &p, v6);
    if (reason)
        return reason == TW_DROP_UNKNOWN_PROTOCOL ? VERDICT_NEXT : drop(reason, TW_HOOK_FROM_NET, length);
    if (unlikely(p.kind != KIND_FLOW))
        return VERDICT_NEXT;
    reason = find_or_open(skb, &p, &f, &row, v6 ? from_net_open6 : from_net_open4, v6);
    if (unlikely(reason))
        return reason == OPEN_PASS ? VERDICT_NEXT : drop(reason, TW_HOOK_FROM_NET, length);
    if (f.back < config.endpoints_max || !row) /* the flow comes from this node, but this packet does not */
        return drop(TW_DROP_SPOOFED_SOURCE, TW_HOOK_FROM_NET, length);
    established(skb, &p, &f, row, v6);
    verdict = deliver(skb, &p, &f, &reason, v6);
    return verdict == VERDICT_DROP ? drop(reason, TW_HOOK_FROM_NET, length) : verdict;
}

static __noinline int from_net4(struct __sk_buff *skb)
{
    return from_net_family(skb, false);
}

static __noinline int from_net6(struct __sk_buff *skb)
{
    return from_net_family(skb, true);
}

SEC("tc")
int from_net(struct __sk_buff *skb)
{
    switch (skb->protocol) {
    case bpf_htons(ETH_P_IP):
        return from_net4(skb);
    case bpf_htons(ETH_P_IPV6):
        return from_net6(skb);
    default:
        return VERDICT_NEXT;
    }
}

/* Answers of the host's own backends to clients that dialled a frontend. Whatever else the host sends is its own. */
inline_always int to_net_family(struct __sk_buff *skb, const bool v6)
{
    struct flow f = {.now = flow_now()};
    struct tw_flow *row = 0;
    struct packet p = {};
    u32 length = skb->len;
    int reason;

    if (packet_load(skb, &p, v6) || p.kind != KIND_FLOW)
        return VERDICT_NEXT;
    if (flow_find(&p.tuple, &f, &row, f.now, v6) == FLOW_MISSING || f.back != NEXTHOP_STACK || !row)
        return VERDICT_NEXT;
    established(skb, &p, &f, row, v6);
    reason = translate(skb, &p, &f, v6);
    return reason ? drop(reason, TW_HOOK_TO_NET, length) : VERDICT_NEXT;
}

static __noinline int to_net4(struct __sk_buff *skb)
{
    return to_net_family(skb, false);
}

static __noinline int to_net6(struct __sk_buff *skb)
{
    return to_net_family(skb, true);
}

SEC("tc")
int to_net(struct __sk_buff *skb)
{
    if (skb->mark & TW_MARK_HANDLED)
        return VERDICT_NEXT;
    switch (skb->protocol) {
    case bpf_htons(ETH_P_IP):
        return to_net4(skb);
    case bpf_htons(ETH_P_IPV6):
        return to_net6(skb);
    default:
        return VERDICT_NEXT;
    }
}

const char LICENSE[] __attribute__((weak)) SEC("license") = "Dual BSD/GPL";
