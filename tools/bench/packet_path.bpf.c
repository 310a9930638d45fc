// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
/* Drives a program over many flows in one test run: see packet_path.h. */

#include "bpf/lib/flow.h"
#include "tools/bench/packet_path_list.h"

struct tw_bench_walk walk;

struct {
    __uint(type, BPF_MAP_TYPE_ARRAY);
    __uint(map_flags, BPF_F_MMAPABLE);
    __uint(max_entries, 1);
    __type(key, u32);
    __type(value, struct tw_bench_packet);
} list SEC(".maps");

/* What is to be measured. */
struct {
    __uint(type, BPF_MAP_TYPE_PROG_ARRAY);
    __uint(max_entries, 1);
    __type(key, u32);
    __type(value, u32);
} target SEC(".maps");

/* The same for XDP. */
struct {
    __uint(type, BPF_MAP_TYPE_PROG_ARRAY);
    __uint(max_entries, 1);
    __type(key, u32);
    __type(value, u32);
} xdp_target SEC(".maps");

struct {
    __uint(type, BPF_MAP_TYPE_HASH);
    __uint(max_entries, 1);
    __type(key, struct tw_bench_packet);
    __type(value, u64);
} hash SEC(".maps");

struct {
    __uint(type, BPF_MAP_TYPE_LRU_HASH);
    __uint(max_entries, 1);
    __type(key, struct tw_bench_packet);
    __type(value, u64);
} lru SEC(".maps");

/* Makes the packet the next one of the list, and all that programs change in it what it was. Checksums need not be
 * right: the programs only mend them. */
inline_always bool next_packet(void *data, void *end)
{
    struct ethhdr *ethernet = data;
    struct iphdr *ip = data + ETH_HLEN;
    struct tcphdr *tcp = (void *)(ip + 1);
    struct tw_bench_packet *packet;
    u32 at = walk.at;

    packet = bpf_map_lookup_elem(&list, &at);
    if (!packet || (void *)(tcp + 1) > end)
        return false;
    walk.at = at + 1 < walk.count ? at + 1 : 0;
    __builtin_memset(ethernet->h_dest, 0, ETH_ALEN);
    ip->ttl = 64;
    ip->saddr = packet->source;
    ip->daddr = packet->destination;
    tcp->source = packet->source_port;
    tcp->dest = packet->destination_port;
    tcp->check = 0; /* which is no sum of a pseudo-header: those XDP leaves to tc */
    ((u8 *)tcp)[13] = walk.tcp_flags;
    return true;
}

SEC("tc")
int drive(struct __sk_buff *skb)
{
    skb->mark = 0;
    if (next_packet((void *)(long)skb->data, (void *)(long)skb->data_end))
        bpf_tail_call_static(skb, &target, 0);
    return VERDICT_DROP;
}

SEC("xdp.frags")
int drive_xdp(struct xdp_md *ctx)
{
    if (next_packet((void *)(long)ctx->data, (void *)(long)ctx->data_end))
        bpf_tail_call_static(ctx, &xdp_target, 0);
    return XDP_DROP;
}

SEC("xdp.frags")
int empty_xdp(struct xdp_md *ctx)
{
    (void)ctx;
    return XDP_PASS;
}

SEC("tc")
int empty(struct __sk_buff *skb)
{
    (void)skb;
    return VERDICT_NEXT;
}

inline_always bool key_of(const struct __sk_buff *skb, struct tw_bench_packet *key)
{
    struct iphdr *ip = (void *)(long)skb->data + ETH_HLEN;
    struct tcphdr *tcp = (void *)(ip + 1);

    if ((void *)(tcp + 1) > (void *)(long)skb->data_end)
        return false;
    key->source = ip->saddr;
    key->destination = ip->daddr;
    key->source_port = tcp->source;
    key->destination_port = tcp->dest;
    return true;
}

inline_always bool tuple_of(const struct __sk_buff *skb, struct tuple *tuple)
{
    struct tw_bench_packet key = {};

    if (!key_of(skb, &key))
        return false;
    tuple->source = address_from4(key.source);
    tuple->destination = address_from4(key.destination);
    tuple->source_port = key.source_port;
    tuple->destination_port = key.destination_port;
    tuple->protocol = IPPROTO_TCP;
    return true;
}

/* What no lookup in a table of this size can do without: one cache line of it, whatever is there. */
SEC("tc")
int touch_row(struct __sk_buff *skb)
{
    struct tuple tuple = {};
    struct tw_flow *row;

    if (!tuple_of(skb, &tuple))
        return VERDICT_DROP;
    row = flow_row(flow_place(flow_hash(&tuple, false), 0, 0), false);
    return row && READ_ONCE(row->word) != ~0U ? VERDICT_NEXT : VERDICT_DROP;
}

/* Lookups alone: they return VERDICT_NEXT for a hit. */
SEC("tc")
int find_flow(struct __sk_buff *skb)
{
    struct tw_flow *row = 0;
    struct tuple tuple = {};
    struct flow flow = {};

    if (!tuple_of(skb, &tuple))
        return VERDICT_DROP;
    return flow_find(&tuple, &flow, &row, flow_now(), false) == FLOW_FOUND ? VERDICT_NEXT : VERDICT_DROP;
}

SEC("tc")
int find_hash(struct __sk_buff *skb)
{
    struct tw_bench_packet key = {};

    return key_of(skb, &key) && bpf_map_lookup_elem(&hash, &key) ? VERDICT_NEXT : VERDICT_DROP;
}

SEC("tc")
int find_lru(struct __sk_buff *skb)
{
    struct tw_bench_packet key = {};

    return key_of(skb, &key) && bpf_map_lookup_elem(&lru, &key) ? VERDICT_NEXT : VERDICT_DROP;
}

const char LICENSE[] __attribute__((weak)) SEC("license") = "Dual BSD/GPL";
