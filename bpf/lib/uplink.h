/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
#pragma once

/* What comes in by an uplink, at tc and at XDP alike. */

#include "open.h"

/* The way back to whoever sent this packet: by the uplink it came in by, whatever other routes there are. */
inline_always u32 net_back(void *ctx, u32 ifindex, const struct packet *p)
{
    u32 back = route_kernel(ctx, &p->tuple.source, &p->tuple.destination, ifindex, BPF_FIB_LOOKUP_OUTPUT);
    u32 *uplink;

    if (back)
        return back;
    uplink = bpf_map_lookup_elem(&ifindexes, &ifindex);
    return uplink ? *uplink : NEXTHOP_STACK;
}

/* A packet whose row says that it comes from this node: a flow that the host's stack carries since it was there before
 * us (see open_adopts), or somebody who claims an address of this node. */
inline_always enum tw_drop net_carried(const struct packet *p, const struct flow *f)
{
    if (f->back != NEXTHOP_STACK || address_find(&endpoints, &p->tuple.source) ||
        address_find(&node_addresses, &p->tuple.source))
        return TW_DROP_SPOOFED_SOURCE;
    return TW_PASS;
}

/* Makes the rows for the first packet of a flow from outside, or mends those of a flow whose ends have moved. `skb` is
 * the context of a tc program for which conntrack is to be asked, or null. */
inline_always int net_open(void *ctx, struct __sk_buff *skb, u32 ifindex, const struct packet *p, struct flow *f,
                           bool stale, const bool v6)
{
    struct chosen chosen;
    bool frontend, pinged, missed;
    int reason;

    if (stale) {
        reason = route(ctx, ifindex, &f->to.destination, &p->tuple.source, &f->next);
        f->back = net_back(ctx, ifindex, p);
        if (!reason)
            flow_repoint(f->place, f->word, f->next, f->back, v6);
        return reason;
    }
    frontend = service_find(&p->tuple.destination, p->tuple.destination_port, p->tuple.protocol, &chosen);
    pinged = !frontend && service_pinged(p);
    missed = !frontend && !pinged && !address_find(&endpoints, &p->tuple.destination);
    if (missed && !service_missed(p))
        return OPEN_PASS;
    if (address_find(&endpoints, &p->tuple.source) || address_find(&node_addresses, &p->tuple.source))
        return TW_DROP_SPOOFED_SOURCE;
    if (pinged)
        return OPEN_PING;
    if (missed)
        return TW_DROP_NO_SERVICE;
    if (!frontend && open_adopts(p))
        return OPEN_PASS;
    f->to = p->tuple;
    f->flags = 0;
    f->service = 0;
    if (frontend) {
        if (!packet_opens(p))
            return open_unknown(p);
        reason = open_service(f, &chosen, &p->tuple.source, true);
        if (reason)
            return reason;
    }
    reason = route(ctx, ifindex, &f->to.destination, &p->tuple.source, &f->next);
    /* The backend's reply must come back through this node, as it does by itself from the only node that it may be on.
     */
    if (!reason && frontend && f->next != NEXTHOP_STACK && !(chosen.local && chosen.kind != TW_FRONTEND_CLUSTER))
        reason = snat_source(f, v6);
    if (reason)
        return reason;
    f->back = net_back(ctx, ifindex, p);
    return open_flow(ctx, skb, p, f, false, v6);
}
