// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
/* Both directions of a pod's host-side interface. */

#include "lib/answer.h"
#include "lib/icmp.h"
#include "lib/open.h"

/* The pod that owns this source address and sent by this interface. */
inline_always enum tw_drop pod_source(struct __sk_buff *skb, const struct packet *p, u32 *endpoint)
{
    u32 *id = address_find(&endpoints, &p->tuple.source);
    struct tw_nexthop *nexthop;

    if (!id)
        return TW_DROP_BAD_SOURCE;
    nexthop = bpf_map_lookup_elem(&nexthops, id);
    if (!nexthop || nexthop->link.ifindex != skb->ifindex)
        return TW_DROP_BAD_SOURCE;
    *endpoint = *id;
    step_number(TW_STEP_SOURCE, 0, *id);
    return TW_PASS;
}

/* A packet whose row says that it comes from elsewhere: a flow that the host's stack carries since it was there before
 * us (see open_adopts), or a pod that sends from an address that is not its own. */
inline_always enum tw_drop pod_carried(struct __sk_buff *skb, const struct packet *p, const struct flow *f)
{
    u32 endpoint;

    return f->back == NEXTHOP_STACK ? pod_source(skb, p, &endpoint) : TW_DROP_BAD_SOURCE;
}

/* First packet of a flow from a pod, or one whose ends have moved: makes or mends the rows. */
inline_always int from_pod_open(struct __sk_buff *skb, const struct packet *p, struct flow *f, bool stale,
                                const bool v6)
{
    int reason = pod_source(skb, p, &f->back);
    struct chosen chosen;

    if (reason)
        return reason;
    if (stale) {
        reason = route(skb, skb->ifindex, &f->to.destination, &p->tuple.source, &f->next);
        if (!reason)
            flow_repoint(f->place, f->word, f->next, f->back, v6);
        return reason;
    }
    f->to = p->tuple;
    f->flags = 0;
    f->service = 0;
    if (service_find(&p->tuple.destination, p->tuple.destination_port, p->tuple.protocol, &chosen)) {
        if (!packet_opens(p))
            return open_unknown(p);
        reason = open_service(f, &chosen, &p->tuple.source, false);
        if (reason)
            return reason;
    } else if (service_pinged(p)) {
        return OPEN_PING;
    } else if (service_missed(p)) {
        return TW_DROP_NO_SERVICE;
    } else if (open_adopts(p)) {
        return OPEN_PASS;
    }
    reason = route(skb, skb->ifindex, &f->to.destination, &p->tuple.source, &f->next);
    if (!f->service && !is_endpoint(f->next) && service_unallocated(&p->tuple.destination))
        return OPEN_PASS;
    if (!reason && f->service && f->next == f->back) /* to itself: it must not take the reply for its own packet */
        reason = snat_source(f, v6);
    return reason ? reason : open_flow(skb, 0, p, f, false, v6);
}

__weak int from_pod_open4(struct __sk_buff *skb, const struct packet *p, struct flow *f, bool stale)
{
    return p && f ? from_pod_open(skb, p, f, stale, false) : TW_DROP_FLOW_BUSY;
}

__weak int from_pod_open6(struct __sk_buff *skb, const struct packet *p, struct flow *f, bool stale)
{
    return p && f ? from_pod_open(skb, p, f, stale, true) : TW_DROP_FLOW_BUSY;
}

/* An ICMP error from a pod, about a packet that the pod was sent. */
inline_always int from_pod_error(struct __sk_buff *skb, const struct packet *p, const bool v6)
{
    struct error_room *room = error_room_get();
    u32 endpoint;
    int reason;

    if (!room)
        return VERDICT_DROP;
    reason = pod_source(skb, p, &endpoint);
    if (!reason)
        reason = error_find(skb, p, room, v6);
    if (!reason && room->flow.back != endpoint)
        reason = TW_DROP_UNSOLICITED_ERROR;
    return reason ? drop(reason, TW_HOOK_FROM_POD, skb->len) : error_forward(skb, p, room, TW_HOOK_FROM_POD, v6);
}

__weak int from_pod_error4(struct __sk_buff *skb, const struct packet *p)
{
    return p ? from_pod_error(skb, p, false) : VERDICT_DROP;
}

__weak int from_pod_error6(struct __sk_buff *skb, const struct packet *p)
{
    return p ? from_pod_error(skb, p, true) : VERDICT_DROP;
}

inline_always int from_pod_family(struct __sk_buff *skb, const bool v6)
{
    struct flow f = {.now = flow_now()};
    struct tw_nexthop *back;
    struct tw_flow *row = 0;
    struct packet p = {};
    u32 length = skb->len;
    int reason, verdict;

    reason = packet_load(skb, &p, v6);
    if (reason)
        return drop(reason, TW_HOOK_FROM_POD, length);
    if (unlikely(p.kind != KIND_FLOW)) {
        if (!open_carries())
            return VERDICT_NEXT;
        if (p.kind == KIND_ICMP_ERROR)
            return v6 ? from_pod_error6(skb, &p) : from_pod_error4(skb, &p);
        if (p.kind == KIND_ICMP_OTHER) {
            reason = pod_source(skb, &p, &f.back);
            if (reason && v6 && address_is_link(&p.tuple.source)) /* neighbour discovery, multicast listeners */
                reason = TW_PASS;
            return reason ? drop(reason, TW_HOOK_FROM_POD, length) : VERDICT_NEXT;
        }
        if (p.kind == KIND_FRAGMENT) {
            reason = fragment_recall(&p, f.now, v6);
            if (reason)
                return drop(reason, TW_HOOK_FROM_POD, length);
        }
    }
    reason = find_or_open(skb, &p, &f, &row, v6 ? from_pod_open6 : from_pod_open4, v6);
    if (unlikely(reason))
        return unopened(skb, &p, reason, TW_HOOK_FROM_POD, 0, v6);
    back = bpf_map_lookup_elem(&nexthops, &f.back);
    if (unlikely(!back || back->link.ifindex != skb->ifindex)) {
        reason = pod_carried(skb, &p, &f);
        return reason ? drop(reason, TW_HOOK_FROM_POD, length) : VERDICT_NEXT;
    }
    established(&p, &f, row, segments_of(skb), length, v6);
    verdict = deliver(skb, &p, &f, &reason, false, v6);
    return unlikely(verdict == VERDICT_DROP) ? refuse(skb, &p, &f, reason, TW_HOOK_FROM_POD, v6) : verdict;
}

static __noinline int from_pod4(struct __sk_buff *skb)
{
    return from_pod_family(skb, false);
}

static __noinline int from_pod6(struct __sk_buff *skb)
{
    return from_pod_family(skb, true);
}

SEC("tc")
int from_pod(struct __sk_buff *skb)
{
    if (unlikely(skb->vlan_present))
        return drop(TW_DROP_VLAN, TW_HOOK_FROM_POD, skb->len);
    switch (skb->protocol) {
    case bpf_htons(ETH_P_IP):
        return from_pod4(skb);
    case bpf_htons(ETH_P_IPV6):
        return from_pod6(skb);
    case bpf_htons(ETH_P_ARP):
        return VERDICT_NEXT;
    case bpf_htons(ETH_P_8021Q): /* one that the kernel has not taken off */
    case bpf_htons(ETH_P_8021AD):
        return drop(TW_DROP_VLAN, TW_HOOK_FROM_POD, skb->len);
    default:
        return drop(TW_DROP_UNKNOWN_PROTOCOL, TW_HOOK_FROM_POD, skb->len);
    }
}

/* First packet of a flow from the host stack to a pod. */
inline_always int to_pod_open(struct __sk_buff *skb, const struct packet *p, struct flow *f, bool stale, const bool v6)
{
    u32 *id = address_find(&endpoints, &p->tuple.destination);
    struct tw_nexthop *nexthop;

    if (!id)
        return OPEN_PASS;
    nexthop = bpf_map_lookup_elem(&nexthops, id);
    if (!nexthop || nexthop->link.ifindex != skb->ifindex)
        return OPEN_PASS;
    f->next = *id;
    f->back = NEXTHOP_STACK;
    if (stale) {
        flow_repoint(f->place, f->word, f->next, f->back, v6);
        return TW_PASS;
    }
    f->to = p->tuple;
    f->flags = 0;
    f->service = 0;
    return open_flow(skb, 0, p, f, false, v6);
}

__weak int to_pod_open4(struct __sk_buff *skb, const struct packet *p, struct flow *f, bool stale)
{
    return p && f ? to_pod_open(skb, p, f, stale, false) : TW_DROP_FLOW_BUSY;
}

__weak int to_pod_open6(struct __sk_buff *skb, const struct packet *p, struct flow *f, bool stale)
{
    return p && f ? to_pod_open(skb, p, f, stale, true) : TW_DROP_FLOW_BUSY;
}

inline_always int to_pod_family(struct __sk_buff *skb, const bool v6)
{
    struct flow f = {.now = flow_now()};
    struct tw_flow *row = 0;
    struct packet p = {};
    u32 length = skb->len;
    int reason;

    reason = packet_load(skb, &p, v6);
    if (reason)
        return drop(reason, TW_HOOK_TO_POD, length);
    if (unlikely(p.kind == KIND_ICMP_ERROR))
        return v6 ? host_error6(skb, &p, TW_HOOK_TO_POD) : host_error4(skb, &p, TW_HOOK_TO_POD);
    if (p.kind == KIND_ICMP_OTHER || (p.kind == KIND_FRAGMENT && fragment_recall(&p, f.now, v6)))
        return VERDICT_NEXT;
    reason = find_or_open(skb, &p, &f, &row, v6 ? to_pod_open6 : to_pod_open4, v6);
    if (reason)
        return reason == OPEN_PASS ? VERDICT_NEXT : drop(reason, TW_HOOK_TO_POD, length);
    established(&p, &f, row, segments_of(skb), length, v6);
    reason = translate(skb, &p, &f, v6);
    return reason ? drop(reason, TW_HOOK_TO_POD, length) : VERDICT_NEXT;
}

static __noinline int to_pod4(struct __sk_buff *skb)
{
    return to_pod_family(skb, false);
}

static __noinline int to_pod6(struct __sk_buff *skb)
{
    return to_pod_family(skb, true);
}

SEC("tc")
int to_pod(struct __sk_buff *skb)
{
    if (skb->mark & TW_MARK_HANDLED)
        return VERDICT_NEXT;
    switch (skb->protocol) {
    case bpf_htons(ETH_P_IP):
        return to_pod4(skb);
    case bpf_htons(ETH_P_IPV6):
        return to_pod6(skb);
    default:
        return VERDICT_NEXT;
    }
}

const char LICENSE[] __attribute__((weak)) SEC("license") = "Dual BSD/GPL";
