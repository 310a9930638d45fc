/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
#pragma once

/* Source translation: an address of this node for whoever's own must not be seen, and a port of it (an identifier, for
 * ICMP echo) that nobody uses towards the same destination. The row in the flow table is the claim on the port, so two
 * CPUs cannot have the same; what the table does not know are the node's own sockets, so they are asked for, and, while
 * there may be connections of a former proxy, what that one has translated. */

#include "deliver.h"
#include "flow.h"
#include "maps.h"

enum { SNAT_TRIES = 32, SOCKET_LISTENS = 10 /* TCP_LISTEN of include/net/tcp_states.h */ };

/* The address that stands for a client whose own must not be seen by whoever is at the flow's next hop. */
inline_always enum tw_drop snat_source(struct flow *f, const bool v6)
{
    u32 next = f->next, index;
    struct tw_nexthop *nexthop = bpf_map_lookup_elem(&nexthops, &next);
    struct tw_address *source;

    if (!nexthop)
        return TW_DROP_NO_SOURCE;
    index = nexthop->source[v6];
    source = bpf_map_lookup_elem(&addresses, &index);
    if (!index || !source)
        return TW_DROP_NO_SOURCE;
    f->to.source = *source;
    f->flags |= TW_FLOW_TRANSLATED | TW_FLOW_SNAT;
    return TW_PASS;
}

/* Writes down the answer to a packet with this tuple as the kernel's lookups want it; returns its size. */
inline_always u32 snat_answer(struct bpf_sock_tuple *answer, const struct tuple *t, bool v6)
{
    if (v6) {
        __builtin_memcpy(answer->ipv6.saddr, &t->destination, sizeof(answer->ipv6.saddr));
        __builtin_memcpy(answer->ipv6.daddr, &t->source, sizeof(answer->ipv6.daddr));
        answer->ipv6.sport = t->destination_port;
        answer->ipv6.dport = t->source_port;
        return sizeof(answer->ipv6);
    }
    answer->ipv4.saddr = t->destination.word[3];
    answer->ipv4.daddr = t->source.word[3];
    answer->ipv4.sport = t->destination_port;
    answer->ipv4.dport = t->source_port;
    return sizeof(answer->ipv4);
}

/* Whether answers to a packet with this tuple would belong to a socket of this node. One that listens for TCP is none:
 * it waits for clients, and who answers is not one. The context may be that of tc or of XDP. Not inlined: the callers'
 * stack is short. */
static __noinline bool snat_meets_socket(void *ctx, const struct tuple *t, bool v6)
{
    struct bpf_sock_tuple answer = {};
    u32 size = snat_answer(&answer, t, v6);
    struct bpf_sock *socket;
    bool meets;

    if (t->protocol == IPPROTO_TCP) {
        socket = bpf_skc_lookup_tcp(ctx, &answer, size, BPF_F_CURRENT_NETNS, 0);
        if (!socket)
            return false;
        meets = socket->state != SOCKET_LISTENS;
        bpf_sk_release(socket);
        return meets;
    }
    if (t->protocol != IPPROTO_UDP)
        return false;
    socket = bpf_sk_lookup_udp(ctx, &answer, size, BPF_F_CURRENT_NETNS, 0);
    if (!socket)
        return false;
    bpf_sk_release(socket);
    return true;
}

/* True in the time after our programs were first attached to this node, in which there may be connections that were
 * there before us. */
inline_always bool snat_adopts(void)
{
    return tick_now() < config.adopt_until;
}

/* Whether conntrack holds answers to a packet with this tuple for those of a connection that it translates: a former
 * proxy's, whose source ports may be any. Kernels that cannot be asked are not. */
static __noinline bool snat_meets_connection(struct __sk_buff *skb, const struct tuple *t, bool v6)
{
    struct bpf_ct_opts options = {.netns_id = BPF_F_CURRENT_NETNS, .l4proto = t->protocol};
    struct bpf_sock_tuple answer = {};
    struct nf_conn *connection;

    if (!conntrack_answers())
        return false;
    snat_answer(&answer, t, v6);
    connection = v6 ? bpf_skb_ct_lookup(skb, &answer, sizeof(answer.ipv6), &options, sizeof(options))
                    : bpf_skb_ct_lookup(skb, &answer, sizeof(answer.ipv4), &options, sizeof(options));
    if (!connection)
        return false;
    bpf_ct_release(connection);
    return true;
}

inline_always void snat_count(u32 collisions, bool found)
{
    struct tw_snat *count = bpf_map_lookup_elem(&snat, &(u32){0});

    if (!count || config.dry)
        return;
    count->collisions += collisions;
    if (found)
        count->ports++;
    else
        count->exhausted++;
}

/* Makes the rows of the flow with the first port, from a random one on, that is free. `skb` is the context of a tc
 * program for which conntrack is to be asked, or null. Returns enum flow_result. */
inline_always int snat_create(void *ctx, struct __sk_buff *skb, const struct packet *p, struct flow *f, const bool v6)
{
    u32 port = bpf_get_prandom_u32();
    int result = FLOW_TAKEN;
    u32 tried;

    f->flags |= TW_FLOW_TRANSLATED;
#pragma clang loop unroll(disable)
    for (tried = 0; tried < SNAT_TRIES; tried++) {
        f->to.source_port = bpf_htons(config.snat_first + ((port + tried) & config.snat_mask));
        if (snat_meets_socket(ctx, &f->to, v6) || (skb && snat_adopts() && snat_meets_connection(skb, &f->to, v6)))
            continue;
        result = flow_create(&p->tuple, f, v6);
        if (result != FLOW_TAKEN)
            break;
    }
    if (result == FLOW_CREATED || result == FLOW_TAKEN)
        snat_count(tried, result == FLOW_CREATED);
    return result;
}
