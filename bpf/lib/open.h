/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
#pragma once

/* The first packet of a flow, whichever hook sees it: service, way out, source translation, rows. */

#include "deliver.h"
#include "drop.h"
#include "flow.h"
#include "fragment.h"
#include "service.h"
#include "snat.h"

/* What an opener says of a packet beside enum tw_drop. TW_PASS: its flow stands, and is to be found. */
enum {
    OPEN_PASS = -1, /* it is the host stack's business */
    OPEN_PING = -2, /* it is to be answered, see service_pinged() */
    OPEN_MADE = -3, /* its flow is new, and has its row in `place` */
};

/* Makes or mends the rows for a packet that found none, or whose flow's ends have moved (`stale`). */
typedef int (*opener)(struct __sk_buff *skb, const struct packet *p, struct flow *f, bool stale);

/* True if the reason is that nobody serves what was dialled. */
inline_always bool refuses(int reason)
{
    return reason == TW_DROP_NO_BACKEND || reason == TW_DROP_NO_SERVICE;
}

/* True for a packet of a connection that was there before us: TCP that opens nothing and misses, in the time after our
 * programs were first attached to this node. Its routes and perhaps a former proxy's conntrack know where it goes: the
 * host's stack is to go on with it, both ways. What the stack then sends makes rows (to_pod, to_net) that lead answers
 * into the stack, so that the connection stays on its way when that time is over. */
inline_always bool open_adopts(const struct packet *p)
{
    return !packet_opens(p) && snat_adopts();
}

/* What becomes of TCP under way to a frontend that no flow is known for, which find_or_open() has made sure of. It
 * never gets a backend: its bytes are of a conversation with one that only the flow knew. Where the node has sockets or
 * a former proxy may have the connection it goes to the stack; else nobody has it, which its sender is to be told. */
inline_always int open_unknown(const struct packet *p)
{
    if (p->kind != KIND_FLOW || p->tcp_flags & TCP_RST || snat_adopts() ||
        address_find(&node_addresses, &p->tuple.destination))
        return OPEN_PASS;
    return TW_DROP_NO_CONNECTION;
}

/* False on a node that Thruway has just come to, until its tables are filled and all its programs are attached: a flow
 * whose packets we saw in one direction only would be broken by the conntrack of whoever sees the others. Then there
 * are no rows, and everything is left to the host's stack. */
inline_always bool open_carries(void)
{
    struct tw_layout *now = bpf_map_lookup_elem(&layout, &(u32){0});

    return now && READ_ONCE(now->carries);
}

/* Loads and parses the packet, pulling headers that lie outside of the linear part. */
inline_always enum tw_drop packet_load(struct __sk_buff *skb, struct packet *p, const bool v6)
{
    void *data = (void *)(long)skb->data, *end = (void *)(long)skb->data_end;
    enum tw_drop reason = parse(data, end, skb->len, p, v6);

    if (likely(reason != TW_DROP_MALFORMED) || end - data >= skb->len)
        return reason;
    if (bpf_skb_pull_data(skb, skb->len < 256 ? skb->len : 256))
        return reason;
    __builtin_memset(p, 0, sizeof(*p));
    return parse((void *)(long)skb->data, (void *)(long)skb->data_end, skb->len, p, v6);
}

/* Goes on with a flow that has just been made as if it had been found. A dry run has made none. */
inline_always int open_made(struct flow *f, struct tw_flow **row, const bool v6)
{
    struct tw_flow *made = config.dry ? 0 : flow_row(f->place, v6);

    if (made)
        f->word = READ_ONCE(made->word);
    *row = made;
    return TW_PASS;
}

/* A packet and its answer may open the flow at once on two CPUs, each in its own direction, and each give way to the
 * other: then both look again. */
enum { OPEN_TRIES = 3 };

/* The packet's flow: found, or opened and then found. TW_PASS, what the opener said, or a reason to drop. */
inline_always int find_or_open(struct __sk_buff *skb, const struct packet *p, struct flow *f, struct tw_flow **row,
                               opener open, const bool v6)
{
    int outcome;

#pragma clang loop unroll(disable)
    for (int tries = 0; tries <= OPEN_TRIES; tries++) {
        enum flow_result result = flow_find(&p->tuple, f, row, f->now, v6);

        if (likely(result == FLOW_FOUND && !flow_reopens(f, p)))
            return TW_PASS;
        if (tries == OPEN_TRIES)
            break;
        if (unlikely(!open_carries()))
            return OPEN_PASS;
        if (unlikely(result == FLOW_MISSING && !packet_opens(p) && flow_stands(&p->tuple, f->now, v6)))
            continue;
        if (unlikely(p->kind == KIND_FRAGMENT && result == FLOW_MISSING)) /* a flow begins with a whole packet */
            return TW_DROP_FRAGMENT;
        outcome = open(skb, p, f, result == FLOW_STALE);
        if (outcome == OPEN_MADE)
            return open_made(f, row, v6);
        if (outcome == OPEN_PASS)
            step(TW_STEP_DELIVER, TW_STEP_STACK);
        if (outcome || config.dry)
            return outcome;
    }
    return TW_DROP_FLOW_BUSY;
}

inline_always u32 segments_of(const struct __sk_buff *skb)
{
    return skb->gso_segs ? skb->gso_segs : 1;
}

/* Sends the flow to a backend of the service that its client (`from`) may dial. */
inline_always enum tw_drop open_service(struct flow *f, struct chosen *chosen, const struct tw_address *from,
                                        bool outside)
{
    const struct tw_backend *backend;
    enum tw_drop reason;
    u32 index;

    if (!service_admits(chosen, from))
        return TW_DROP_SOURCE_RANGE;
    reason = service_pick(chosen, from, outside, &index);
    if (reason)
        return reason;
    backend = bpf_map_lookup_elem(&backends, &index);
    if (!backend)
        return TW_DROP_NO_BACKEND;
    f->service = chosen->service;
    f->flags |= TW_FLOW_TRANSLATED;
    f->to.destination = backend->address;
    f->to.destination_port = backend->port;
    return TW_PASS;
}

/* Makes the rows. The source port changes if the source address does, or if the answers would be another flow's (one
 * client port talking to two services with the same backend) or, for what the host itself sends (`own`), another
 * socket's. `skb` is the context of a tc program for which conntrack is to be asked, or null. OPEN_MADE, TW_PASS if
 * another CPU was quicker, or a reason to drop. */
inline_always int open_flow(void *ctx, struct __sk_buff *skb, const struct packet *p, struct flow *f, const bool own,
                            const bool v6)
{
    int result = FLOW_TAKEN;

    f->state = p->tuple.protocol != IPPROTO_TCP ? TW_FLOW_ONE_WAY
               : packet_opens(p)                ? TW_FLOW_HALF_OPEN
                                                : TW_FLOW_ESTABLISHED;
    if (!(f->flags & TW_FLOW_SNAT) && !(own && snat_meets_socket(ctx, &f->to, v6)))
        result = flow_create(&p->tuple, f, v6);
    if (result == FLOW_TAKEN)
        result = snat_create(ctx, skb, p, f, v6);
    if (result == FLOW_CREATED) {
        if (f->flags & TW_FLOW_SNAT || f->to.source_port != p->tuple.source_port)
            step_tuple(TW_STEP_SNAT, &f->to);
        step_flow(TW_STEP_CREATE, 0, f, f->state);
    }
    switch (result) {
    case FLOW_CREATED:
        if (f->service)
            service_count_connection(f->service);
        return OPEN_MADE;
    case FLOW_EXISTS:
        return TW_PASS;
    case FLOW_TAKEN:
        return TW_DROP_PORTS_EXHAUSTED;
    case FLOW_FULL:
        return TW_DROP_FLOWS_FULL;
    default:
        return TW_DROP_FLOW_BUSY;
    }
}

/* What every hook does with a packet whose flow stands: count it, move the flow's state on. A dry run has no row. */
inline_always void established(const struct packet *p, const struct flow *f, struct tw_flow *row, u32 segments,
                               u32 length, const bool v6)
{
    if (!row)
        return;
    if (unlikely(p->kind == KIND_FIRST_FRAGMENT))
        fragment_learn(p, f->now, v6);
    flow_touch(row, segments, length, f->now);
    if (unlikely(flow_moves(f, p)))
        flow_advance(f->place, f->word, p->tcp_flags, v6);
}
