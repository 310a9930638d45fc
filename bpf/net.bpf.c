// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
/* Both directions of an uplink, and what the host sends to itself. What is neither for a pod nor for a frontend is the
 * host's and passes untouched. */

#include "lib/answer.h"
#include "lib/icmp.h"
#include "lib/uplink.h"

__weak int from_net_open4(struct __sk_buff *skb, const struct packet *p, struct flow *f, bool stale)
{
    return p && f ? net_open(skb, skb, skb->ifindex, p, f, stale, false) : TW_DROP_FLOW_BUSY;
}

__weak int from_net_open6(struct __sk_buff *skb, const struct packet *p, struct flow *f, bool stale)
{
    return p && f ? net_open(skb, skb, skb->ifindex, p, f, stale, true) : TW_DROP_FLOW_BUSY;
}

/* An ICMP error from outside: about a packet of a flow, or the host's own business. */
inline_always int from_net_error(struct __sk_buff *skb, const struct packet *p, const bool v6)
{
    struct error_room *room = error_room_get();
    int reason;

    if (!room)
        return VERDICT_DROP;
    reason = error_find(skb, p, room, v6);
    if (reason == TW_DROP_UNSOLICITED_ERROR && !address_find(&endpoints, &p->tuple.destination))
        return VERDICT_NEXT;
    if (!reason && room->flow.back < config.endpoints_max) /* nobody outside has seen such a packet */
        reason = TW_DROP_UNSOLICITED_ERROR;
    if (!reason && (address_find(&endpoints, &p->tuple.source) || address_find(&node_addresses, &p->tuple.source)))
        reason = TW_DROP_SPOOFED_SOURCE;
    return reason ? drop(reason, TW_HOOK_FROM_NET, skb->len) : error_forward(skb, p, room, TW_HOOK_FROM_NET, v6);
}

__weak int from_net_error4(struct __sk_buff *skb, const struct packet *p)
{
    return p ? from_net_error(skb, p, false) : VERDICT_DROP;
}

__weak int from_net_error6(struct __sk_buff *skb, const struct packet *p)
{
    return p ? from_net_error(skb, p, true) : VERDICT_DROP;
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
    if (unlikely(p.kind != KIND_FLOW)) {
        if (!open_carries())
            return VERDICT_NEXT;
        if (p.kind == KIND_ICMP_ERROR)
            return v6 ? from_net_error6(skb, &p) : from_net_error4(skb, &p);
        if (p.kind == KIND_ICMP_OTHER)
            return VERDICT_NEXT;
        if (p.kind == KIND_FRAGMENT) {
            reason = fragment_recall(&p, f.now, v6);
            if (reason == TW_DROP_FRAGMENT && !address_find(&endpoints, &p.tuple.destination))
                return VERDICT_NEXT; /* the host can tell better whose it is */
            if (reason)
                return drop(reason, TW_HOOK_FROM_NET, length);
        }
    }
    reason = find_or_open(skb, &p, &f, &row, v6 ? from_net_open6 : from_net_open4, v6);
    if (unlikely(reason))
        return unopened(skb, &p, reason, TW_HOOK_FROM_NET, 0, v6);
    if (unlikely(f.back < config.endpoints_max)) {
        reason = net_carried(&p, &f);
        return reason ? drop(reason, TW_HOOK_FROM_NET, length) : VERDICT_NEXT;
    }
    established(&p, &f, row, segments_of(skb), length, v6);
    verdict = deliver(skb, &p, &f, &reason, false, v6);
    return unlikely(verdict == VERDICT_DROP) ? refuse(skb, &p, &f, reason, TW_HOOK_FROM_NET, v6) : verdict;
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
    if (unlikely(skb->vlan_present)) /* a device of its own, above this one, is to have it */
        return VERDICT_NEXT;
    switch (skb->protocol) {
    case bpf_htons(ETH_P_IP):
        return from_net4(skb);
    case bpf_htons(ETH_P_IPV6):
        return from_net6(skb);
    default:
        return VERDICT_NEXT;
    }
}

/* First packet of a flow that the host opens to a frontend: what its sockets have not translated already. Or one of a
 * pod's connections that the stack carries: its answers are to take the stack's way, too. */
inline_always int to_net_open(struct __sk_buff *skb, const struct packet *p, struct flow *f, bool stale, const bool v6)
{
    struct chosen chosen;
    int reason;

    if (stale) {
        if (f->back != NEXTHOP_STACK)
            return OPEN_PASS;
        reason = route(skb, LOOPBACK_IFINDEX, &f->to.destination, &f->to.source, &f->next);
        if (!reason)
            flow_repoint(f->place, f->word, f->next, f->back, v6);
        return reason;
    }
    f->to = p->tuple;
    f->flags = 0;
    f->service = 0;
    f->back = NEXTHOP_STACK;
    if (open_adopts(p) && address_find(&endpoints, &p->tuple.source)) {
        u32 ifindex = skb->ifindex, *uplink = bpf_map_lookup_elem(&ifindexes, &ifindex);

        f->next = uplink ? *uplink : NEXTHOP_STACK;
        return open_flow(skb, skb, p, f, false, v6);
    }
    if (!packet_opens(p) && !address_find(&vips, &p->tuple.destination)) /* its own, as most of what misses here */
        return OPEN_PASS;
    if (service_unallocated(&p->tuple.destination))
        return TW_DROP_UNALLOCATED;
    if (!address_find(&node_addresses, &p->tuple.source))
        return OPEN_PASS;
    if (!service_find(&p->tuple.destination, p->tuple.destination_port, p->tuple.protocol, &chosen))
        return service_pinged(p) ? OPEN_PING : service_missed(p) ? TW_DROP_NO_SERVICE : OPEN_PASS;
    if (!packet_opens(p))
        return open_unknown(p);
    reason = open_service(f, &chosen, &p->tuple.source, false);
    if (!reason)
        reason = route(skb, LOOPBACK_IFINDEX, &f->to.destination, &p->tuple.source, &f->next);
    if (!reason && f->next == NEXTHOP_STACK && !host_device())
        return OPEN_PASS;
    return reason ? reason : open_flow(skb, skb, p, f, true, v6);
}

__weak int to_net_open4(struct __sk_buff *skb, const struct packet *p, struct flow *f, bool stale)
{
    return p && f ? to_net_open(skb, p, f, stale, false) : TW_DROP_FLOW_BUSY;
}

__weak int to_net_open6(struct __sk_buff *skb, const struct packet *p, struct flow *f, bool stale)
{
    return p && f ? to_net_open(skb, p, f, stale, true) : TW_DROP_FLOW_BUSY;
}

/* What the host stack sends, by an uplink or (sock: off) to itself: to frontends, and answers of its own backends to
 * clients that dialled one. Everything else it sends is its own. */
inline_always int to_net_family(struct __sk_buff *skb, const bool v6)
{
    struct flow f = {.now = flow_now()};
    struct tw_flow *row = 0;
    struct packet p = {};
    u32 length = skb->len;
    int reason, verdict;

    if (packet_load(skb, &p, v6))
        return VERDICT_NEXT;
    if (unlikely(p.kind == KIND_ICMP_ERROR))
        return v6 ? host_error6(skb, &p, TW_HOOK_TO_NET) : host_error4(skb, &p, TW_HOOK_TO_NET);
    if (p.kind == KIND_ICMP_OTHER || (p.kind == KIND_FRAGMENT && fragment_recall(&p, f.now, v6)))
        return VERDICT_NEXT;
    reason = find_or_open(skb, &p, &f, &row, v6 ? to_net_open6 : to_net_open4, v6);
    if (reason)
        return unopened(skb, &p, reason, TW_HOOK_TO_NET, BPF_F_INGRESS, v6);
    if (f.back != NEXTHOP_STACK)
        return VERDICT_NEXT;
    established(&p, &f, row, segments_of(skb), length, v6);
    if (f.flags & TW_FLOW_TRANSLATED && (!(f.flags & TW_FLOW_REPLY) || f.next == NEXTHOP_STACK)) {
        verdict = deliver(skb, &p, &f, &reason, true, v6);
        return verdict == VERDICT_DROP ? drop(reason, TW_HOOK_TO_NET, length) : verdict;
    }
    reason = translate(skb, &p, &f, v6); /* the kernel has found the way to the client, or of what it carries for us */
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
    if (skb->mark & TW_MARK_HANDLED || skb->vlan_present)
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
