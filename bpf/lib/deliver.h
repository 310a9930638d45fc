/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
#pragma once

/* Where a packet goes and how it gets there. Next hop 0 is the host stack; an index below config.endpoints_max is a
 * pod of this node; any other leads out by an uplink. */

#include "config.h"
#include "flow.h"
#include "maps.h"
#include "nat.h"
#include "packet.h"

enum { AF_INET = 2, AF_INET6 = 10, NEXTHOP_STACK = 0, LOOPBACK_IFINDEX = 1 };

inline_always bool is_endpoint(u32 nexthop)
{
    return nexthop != NEXTHOP_STACK && nexthop < config.endpoints_max;
}

/* The next hop of whatever the kernel's routing says about `to`, seen from `from` on device `ifindex`; the host stack
 * if it is no uplink of ours. With BPF_FIB_LOOKUP_OUTPUT the way must lead out by that device. The context may be that
 * of tc or of XDP. */
static __noinline u32 route_kernel(void *ctx, const struct tw_address *to, const struct tw_address *from, u32 ifindex,
                                   u32 flags)
{
    bool v6 = !address_is4(to);
    struct bpf_fib_lookup fib = {.family = v6 ? AF_INET6 : AF_INET, .ifindex = ifindex};
    struct tw_gateway gateway = {};
    long result;
    u32 *index;

    if (address_is_group(to)) /* the lookup would give the default route's gateway, where no stack forwards such */
        return NEXTHOP_STACK;
    if (v6) {
        __builtin_memcpy(fib.ipv6_src, from, sizeof(fib.ipv6_src));
        __builtin_memcpy(fib.ipv6_dst, to, sizeof(fib.ipv6_dst));
    } else {
        fib.ipv4_src = from->word[3];
        fib.ipv4_dst = to->word[3];
    }
    result = bpf_fib_lookup(ctx, &fib, sizeof(fib), flags);
    /* A packet that is larger than the device's MTU has a way all the same: deliver() tells its sender. */
    if (result != BPF_FIB_LKUP_RET_SUCCESS && result != BPF_FIB_LKUP_RET_NO_NEIGH &&
        result != BPF_FIB_LKUP_RET_FRAG_NEEDED)
        return NEXTHOP_STACK;
    /* The kernel leaves the neighbour to ask for in the place of the destination. */
    if (v6)
        __builtin_memcpy(&gateway.address, fib.ipv6_dst, sizeof(gateway.address));
    else
        gateway.address = address_from4(fib.ipv4_dst);
    gateway.ifindex = fib.ifindex;
    index = bpf_map_lookup_elem(&gateways, &gateway);
    if (!index)
        index = bpf_map_lookup_elem(&ifindexes, &gateway.ifindex);
    return index ? *index : NEXTHOP_STACK;
}

/* The next hop towards an address, for a packet that came in by device `ifindex`, or after DNAT. */
inline_always enum tw_drop route(void *ctx, u32 ifindex, const struct tw_address *to, const struct tw_address *from,
                                 u32 *next)
{
    struct tw_cidr cidr = {.bits = 128, .word = {to->word[0], to->word[1], to->word[2], to->word[3]}};
    u32 *index = address_find(&endpoints, to);

    *next = NEXTHOP_STACK;
    if (index) {
        *next = *index;
        step_number(TW_STEP_ROUTE, TW_STEP_ROUTE_ENDPOINT, *next);
        return TW_PASS;
    }
    if (address_find(&node_addresses, to)) {
        step_number(TW_STEP_ROUTE, TW_STEP_ROUTE_NODE, *next);
        return TW_PASS;
    }
    index = bpf_map_lookup_elem(&nodes, &cidr);
    if (index) {
        *next = *index;
        step_number(TW_STEP_ROUTE, TW_STEP_ROUTE_CIDR, *next);
        return *next == NEXTHOP_STACK ? TW_DROP_NO_ENDPOINT : TW_PASS;
    }
    *next = route_kernel(ctx, to, from, ifindex, 0);
    step_number(TW_STEP_ROUTE, TW_STEP_ROUTE_KERNEL, *next);
    return TW_PASS;
}

/* Where a next hop's neighbour is. Read as one word, so that its move is seen whole. */
union neighbour {
    u64 word;
    struct {
        u8 mac[ETH_ALEN];
        u16 flags; /* enum tw_nexthop_flag */
    };
};

inline_always void deliver_macs(struct ethhdr *ethernet, const struct tw_nexthop *nexthop, const union neighbour *to)
{
    __builtin_memcpy(ethernet->h_dest, to->mac, ETH_ALEN);
    __builtin_memcpy(ethernet->h_source, nexthop->from.mac, ETH_ALEN);
}

/* One hop less; for IPv4 with its checksum: the header's sum is less by it, so that, inverted, is more (RFC 1624). A
 * sum of 0 does not occur, and stands for what its other representation does. */
inline_always bool deliver_hop(void *data, void *end, const bool v6)
{
    if (v6) {
        struct ipv6hdr *ip = data + ETH_HLEN;

        if ((void *)(ip + 1) > end)
            return false;
        ip->hop_limit--;
    } else {
        struct iphdr *ip = data + ETH_HLEN;
        u32 sum;

        if ((void *)(ip + 1) > end)
            return false;
        sum = ip->check + bpf_htons(0x0100);
        ip->check = sum + (sum >= 0xffff);
        ip->ttl--;
    }
    return true;
}

/* Writes what the flow says into a later fragment: there are no ports, and the checksum is in the first one. */
inline_always enum tw_drop translate_fragment(struct __sk_buff *skb, const struct packet *p, const struct flow *f,
                                              const bool v6)
{
    void *data = (void *)(long)skb->data, *end = (void *)(long)skb->data_end;

    if (!nat_write_addresses(data + ETH_HLEN, end, &p->tuple, &f->to, v6))
        return TW_DROP_REWRITE_FAILED;
    if (v6) /* nothing in this packet makes up for the change, so a sum that the device computed has to follow it */
        checksum_follow(skb, sum_addresses(&p->tuple, &f->to, true));
    return TW_PASS;
}

/* Writes what the flow says into the packet. */
inline_always enum tw_drop translate(struct __sk_buff *skb, const struct packet *p, const struct flow *f, const bool v6)
{
    if (!(f->flags & TW_FLOW_TRANSLATED))
        return TW_PASS;
    if (unlikely(p->kind == KIND_FRAGMENT))
        return translate_fragment(skb, p, f, v6);
    if (!nat_checksum(skb, p, &f->to, v6))
        return TW_DROP_REWRITE_FAILED;
    if (!nat_write((void *)(long)skb->data, (void *)(long)skb->data_end, p, &f->to, v6))
        return TW_DROP_REWRITE_FAILED;
    return TW_PASS;
}

/* Lets the kernel find the MAC of the next hop: the way for neighbours that nobody follows. Not inlined: the callers'
 * stack is short. */
static __noinline int deliver_resolve(const struct tw_nexthop *nexthop, bool v6)
{
    struct bpf_redir_neigh neighbour = {.nh_family = v6 ? AF_INET6 : AF_INET};
    u32 index = READ_ONCE(nexthop->gateway);
    const struct tw_address *gateway = bpf_map_lookup_elem(&addresses, &index);

    if (!index || !gateway)
        return bpf_redirect_neigh(nexthop->link.ifindex, 0, 0, 0);
    if (v6)
        __builtin_memcpy(neighbour.ipv6_nh, gateway, sizeof(neighbour.ipv6_nh));
    else
        neighbour.ipv4_nh = gateway->word[3];
    return bpf_redirect_neigh(nexthop->link.ifindex, &neighbour, sizeof(neighbour), 0);
}

/* The device of our own by which the host's stack takes packets from itself; null if there is none (see limits of
 * `sock` in docs/configuration.md). */
inline_always struct tw_nexthop *host_device(void)
{
    struct tw_nexthop *host = bpf_map_lookup_elem(&nexthops, &(u32){NEXTHOP_STACK});

    return host && host->link.ifindex ? host : 0;
}

/* Gives a packet between the host and itself to the host's stack anew, by that device. There the kernel takes packets
 * from its own addresses, and conntrack judges the translated packet, which it would not do on `lo`: what comes from
 * there it holds for seen. Without the device the packet just goes on. */
inline_always int deliver_host(struct __sk_buff *skb)
{
    struct tw_nexthop *host = host_device();
    struct ethhdr *ethernet = (void *)(long)skb->data;

    if (!host || (void *)(ethernet + 1) > (void *)(long)skb->data_end)
        return VERDICT_NEXT;
    __builtin_memcpy(ethernet->h_dest, host->to.mac, ETH_ALEN);
    return bpf_redirect(host->link.ifindex, BPF_F_INGRESS);
}

/* An answer to what the host has dialled: its source may be an address of the host itself. */
inline_always bool answers_host(const struct flow *f)
{
    return (f->flags & (TW_FLOW_REPLY | TW_FLOW_TRANSLATED)) == (TW_FLOW_REPLY | TW_FLOW_TRANSLATED);
}

/* Leaves the packet to the host stack, rewritten. */
inline_always int deliver_stack(struct __sk_buff *skb, const struct packet *p, const struct flow *f, int *reason,
                                const bool v6)
{
    step(TW_STEP_DELIVER, TW_STEP_STACK);
    *reason = translate(skb, p, f, v6);
    return *reason ? VERDICT_DROP : VERDICT_NEXT;
}

/* True if the packet, or a segment of one that the kernel has joined, is too large for this MTU. How long the segments
 * of joined SCTP packets are cannot be seen: their sender knows its MTU. */
inline_always bool exceeds(struct __sk_buff *skb, const struct packet *p, u32 mtu)
{
    void *transport = packet_transport((void *)(long)skb->data, p), *end = (void *)(long)skb->data_end;
    u32 segment = skb->gso_size, header = sizeof(struct udphdr);
    struct tcphdr *tcp = transport;

    if (!segment)
        return true;
    if (p->tuple.protocol == IPPROTO_SCTP)
        return false;
    if (p->tuple.protocol == IPPROTO_TCP) {
        if ((void *)(tcp + 1) > end)
            return true;
        header = tcp->doff * 4;
    }
    return p->transport - ETH_HLEN + header + segment > mtu;
}

/* True if a packet that is too large may be cut into fragments by the host stack, after it has been translated: routers
 * do that in IPv4 only. It then finds its way by the kernel's routes, which the stack does not let it do with a source
 * that is this node's own. */
inline_always bool fragmentable(struct __sk_buff *skb, const struct flow *f, const bool v6)
{
    struct iphdr *ip = (void *)(long)skb->data + ETH_HLEN;

    if (v6 || (void *)(ip + 1) > (void *)(long)skb->data_end || ip->frag_off & bpf_htons(IPV4_DONT_FRAGMENT))
        return false;
    return !address_find(&node_addresses, &f->to.source);
}

/* Rewrites the packet for its flow and sends it to the flow's next hop. Says in `reason` why, if it is dropped. What
 * the host's own stack sends (`own`) has made no hop yet, and cannot be put into a pod but by its device's queue. */
inline_always int deliver(struct __sk_buff *skb, const struct packet *p, const struct flow *f, int *reason,
                          const bool own, const bool v6)
{
    struct tw_nexthop *nexthop;
    struct ethhdr *ethernet;
    void *data, *end;
    u32 next = f->next;
    union neighbour to;
    int verdict;
    union {
        u64 word;
        struct {
            u32 ifindex;
            u16 mtu;
        };
    } link;

    if (next == NEXTHOP_STACK) {
        verdict = deliver_stack(skb, p, f, reason, v6);
        return verdict == VERDICT_NEXT && (own || answers_host(f)) ? deliver_host(skb) : verdict;
    }
    nexthop = bpf_map_lookup_elem(&nexthops, &next);
    link.word = nexthop ? READ_ONCE(*(u64 *)&nexthop->link) : 0;
    if (!nexthop || !link.ifindex) {
        *reason = TW_DROP_NO_ENDPOINT;
        return VERDICT_DROP;
    }
    if (unlikely(!own && p->hops <= 1)) {
        *reason = TW_DROP_HOPS;
        return VERDICT_DROP;
    }
    if (unlikely(skb->len > link.mtu + ETH_HLEN) && exceeds(skb, p, link.mtu)) {
        *reason = TW_DROP_TOO_BIG;
        if (own || !fragmentable(skb, f, v6))
            return VERDICT_DROP;
        skb->mark |= TW_MARK_HANDLED; /* to_pod and to_net have nothing to do with its fragments */
        return deliver_stack(skb, p, f, reason, v6);
    }
    *reason = translate(skb, p, f, v6);
    if (*reason)
        return VERDICT_DROP;
    data = ethernet = (void *)(long)skb->data;
    end = (void *)(long)skb->data_end;
    if ((void *)(ethernet + 1) > end || (!own && !deliver_hop(data, end, v6))) {
        *reason = TW_DROP_REWRITE_FAILED;
        return VERDICT_DROP;
    }
    to.word = READ_ONCE(*(u64 *)&nexthop->to);
    deliver_macs(ethernet, nexthop, &to);
    if (v6 && !own) /* the hop limit is under no header checksum, so a sum that the device computed has to follow it */
        checksum_follow(skb, sum_change(0, bpf_htons(0x0001), 0));
    if (is_endpoint(next) && !own) {
        step_deliver(TW_STEP_PEER, next, nexthop);
        return bpf_redirect_peer(link.ifindex, 0);
    }
    skb->mark |= TW_MARK_HANDLED;
    if (likely(to.flags & TW_NEXTHOP_RESOLVED)) {
        step_deliver(TW_STEP_REDIRECT, next, nexthop);
        return bpf_redirect(link.ifindex, 0);
    }
    step_deliver(TW_STEP_NEIGHBOUR, next, nexthop);
    return deliver_resolve(nexthop, v6);
}
