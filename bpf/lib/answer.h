/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
#pragma once

/* What the datapath itself says to the sender of a packet: an ICMP error in the place of one that cannot go on, a reset
 * or ABORT in that of one to a connection that is none, and the answer to a ping. It leaves by the device that the
 * packet came in by, to the MAC that it came from. */

#include "drop.h"
#include "flow.h"
#include "maps.h"
#include "nat.h"
#include "open.h"
#include "packet.h"

enum {
    ANSWER_HOPS = 64,
    ANSWER_SERVICE = 0xc0, /* internetwork control, RFC 1812 section 4.3.2.5 */
    ERROR4_MAX = 576,      /* RFC 1812 section 4.3.2.3 */
    ERROR6_MAX = 1280,     /* RFC 4443 section 2.4 */
    ERROR_WINDOW_SHIFT = 26,
    ERROR_WINDOW_MAX = 64,
};

/* Headers of an error as they lie in a frame, with the IP header 4-byte aligned in memory. */
struct error_frame4 {
    u16 unused;
    struct ethhdr ethernet;
    struct iphdr ip;
    struct icmp_header icmp;
} __attribute__((packed, aligned(4)));

struct error_frame6 {
    u16 unused;
    struct ethhdr ethernet;
    struct ipv6hdr ip;
    struct icmp_header icmp;
} __attribute__((packed, aligned(4)));

/* The same of a reset. */
struct reset_frame4 {
    u16 unused;
    struct ethhdr ethernet;
    struct iphdr ip;
    struct tcphdr tcp;
} __attribute__((packed, aligned(4)));

struct reset_frame6 {
    u16 unused;
    struct ethhdr ethernet;
    struct ipv6hdr ip;
    struct tcphdr tcp;
} __attribute__((packed, aligned(4)));

/* And of an ABORT. */
struct sctp_abort {
    struct sctp_header sctp;
    struct sctp_chunk chunk;
};

struct abort_frame4 {
    u16 unused;
    struct ethhdr ethernet;
    struct iphdr ip;
    struct sctp_abort abort;
} __attribute__((packed, aligned(4)));

struct abort_frame6 {
    u16 unused;
    struct ethhdr ethernet;
    struct ipv6hdr ip;
    struct sctp_abort abort;
} __attribute__((packed, aligned(4)));

enum {
    ANSWER_FRAME_IP = 2 + ETH_HLEN,
    ERROR_FRAME_MAX = ANSWER_FRAME_IP + ERROR6_MAX,
};

/* Where one of these is put together, and how many this CPU has sent of late. */
struct answer_room {
    u32 window;
    u32 sent;
    union {
        u8 bytes[ERROR_FRAME_MAX];
        u32 words[ERROR_FRAME_MAX / 4];
        struct error_frame4 v4;
        struct error_frame6 v6;
        struct reset_frame4 reset4;
        struct reset_frame6 reset6;
        struct abort_frame4 abort4;
        struct abort_frame6 abort6;
    } frame;
};

struct {
    __uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
    __uint(max_entries, 1);
    __type(key, u32);
    __type(value, struct answer_room);
} MAP(answer_room);

/* RFC 4443 section 2.4 (f): errors have a limit, about a thousand a second and CPU here. A flood of packets that cannot
 * go on costs no more than that, and does not become one of errors to whom they claim to come from. */
inline_always bool answer_allowed(struct answer_room *room)
{
    u32 window = bpf_ktime_get_coarse_ns() >> ERROR_WINDOW_SHIFT; /* 67 ms */

    if (room->window != window) {
        room->window = window;
        room->sent = 0;
    }
    return ++room->sent <= ERROR_WINDOW_MAX;
}

/* The frame is cleared before it is filled and summed up as a whole, however long the quote is, and before it has an IP
 * header. A loop that ends where the quote does would be a world of its own for the verifier at each end. */
__weak int error_clear(void)
{
    struct answer_room *room = bpf_map_lookup_elem(&answer_room, &(u32){0});

    if (!room)
        return 0;
#pragma clang loop unroll(disable)
    for (u32 i = 0; i < ERROR_FRAME_MAX / 4; i++)
        WRITE_ONCE(room->frame.words[i], 0);
    return 0;
}

__weak u32 error_sum(void)
{
    struct answer_room *room = bpf_map_lookup_elem(&answer_room, &(u32){0});
    u64 sum = 0;

    if (!room)
        return 0;
#pragma clang loop unroll(disable)
    for (u32 i = 0; i < ERROR_FRAME_MAX / 4; i++)
        sum += room->frame.words[i];
    return sum_fold32(sum);
}

inline_always void answer_head4(struct answer_room *room, const struct tw_address *source, const struct packet *p,
                                u8 protocol, u8 service, u32 size)
{
    struct iphdr *ip = &room->frame.v4.ip;
    u64 sum = 0;

    *ip = (struct iphdr){
        .version = 4,
        .ihl = sizeof(*ip) / 4,
        .tos = service,
        .tot_len = bpf_htons(size),
        .frag_off = bpf_htons(IPV4_DONT_FRAGMENT),
        .ttl = ANSWER_HOPS,
        .protocol = protocol,
        .saddr = source->word[3],
        .daddr = p->tuple.source.word[3],
    };
    for (u32 i = 0; i < sizeof(*ip) / 4; i++)
        sum += room->frame.words[ANSWER_FRAME_IP / 4 + i];
    ip->check = checksum_after(0xffff, sum);
}

inline_always void answer_head6(struct answer_room *room, const struct tw_address *source, const struct packet *p,
                                u8 protocol, u32 size)
{
    struct ipv6hdr *ip = &room->frame.v6.ip;

    *ip = (struct ipv6hdr){
        .version = 6,
        .payload_len = bpf_htons(size - sizeof(*ip)),
        .nexthdr = protocol,
        .hop_limit = ANSWER_HOPS,
    };
    __builtin_memcpy(&ip->saddr, source, sizeof(ip->saddr));
    __builtin_memcpy(&ip->daddr, &p->tuple.source, sizeof(ip->daddr));
}

/* What of the addresses and the like a transport checksum covers (RFC 9293 section 3.1, RFC 8200 section 8.1). */
inline_always u64 answer_pseudo_header(const struct answer_room *room, u8 protocol, u32 size, const bool v6)
{
    u32 at =
        ANSWER_FRAME_IP + (v6 ? __builtin_offsetof(struct ipv6hdr, saddr) : __builtin_offsetof(struct iphdr, saddr));
    const u32 *address = &room->frame.words[at / 4];
    u64 sum = bpf_htonl(size) + (u64)bpf_htonl(protocol);

    for (int i = 0; i < (v6 ? 8 : 2); i++)
        sum += address[i];
    return sum;
}

/* Turns the frame's way round: to the MAC that the packet came from. */
inline_always bool answer_ethernet(struct __sk_buff *skb, struct answer_room *room, const bool v6)
{
    struct ethhdr *ethernet = &room->frame.v4.ethernet;

    ethernet->h_proto = v6 ? bpf_htons(ETH_P_IPV6) : bpf_htons(ETH_P_IP);
    return !bpf_skb_load_bytes(skb, 0, ethernet->h_source, ETH_ALEN) &&
           !bpf_skb_load_bytes(skb, ETH_ALEN, ethernet->h_dest, ETH_ALEN);
}

/* Puts the frame in `room` in the place of the packet. What the kernel knows of the packet's checksum and segments must
 * not stay: a sender's device would still write a transport checksum into what is no transport header any more. The
 * kernel forgets that when the place where it begins is cut off. */
inline_always long answer_replace(struct __sk_buff *skb, struct answer_room *room, const struct packet *p, u32 length)
{
    u32 cut = p->transport + 1;
    long error = bpf_skb_change_tail(skb, length + cut, 0);

    if (!error)
        error = bpf_skb_adjust_room(skb, -(s32)cut, BPF_ADJ_ROOM_MAC, 0);
    asm volatile("" : "+r"(length));
    if (error || length > sizeof(room->frame.bytes) - 2)
        return -1;
    return bpf_skb_store_bytes(skb, 0, &room->frame.bytes[2], length, BPF_F_RECOMPUTE_CSUM);
}

/* Sends the frame in `room`, with an IP packet of this size, to where the packet came from; `flags` as of
 * bpf_redirect. */
inline_always int answer_send(struct __sk_buff *skb, struct answer_room *room, const struct packet *p, u32 size,
                              u64 flags, const bool v6)
{
    if (!answer_ethernet(skb, room, v6) || answer_replace(skb, room, p, ETH_HLEN + size))
        return VERDICT_DROP;
    skb->mark |= TW_MARK_HANDLED;
    return bpf_redirect(skb->ifindex, flags);
}

/* Copies the beginning of the packet behind the error's headers, as it came. Returns how much of it, 0 on failure. */
inline_always u32 error_quote(struct __sk_buff *skb, struct answer_room *room, u32 head, const bool v6)
{
    const u32 max = (v6 ? ERROR6_MAX : ERROR4_MAX) - head;
    u32 size = skb->len - ETH_HLEN, rest;

    if (size > max)
        size = max;
    rest = size - 1;
    asm volatile("" : "+r"(rest)); /* Linux 6.1 takes "not 0" for no lower bound, but an addition for one */
    if (rest >= max)
        return 0;
    size = rest + 1;
    if (bpf_skb_load_bytes(skb, ETH_HLEN, &room->frame.bytes[ANSWER_FRAME_IP + head], size))
        return 0;
    return size;
}

inline_always void error_kind(struct icmp_header *icmp, enum tw_drop reason, u32 mtu, const bool v6)
{
    bool too_big = reason == TW_DROP_TOO_BIG;

    if (refuses(reason)) {
        *icmp = (struct icmp_header){
            .type = v6 ? ICMP6_UNREACHABLE : ICMP4_UNREACHABLE,
            .code = v6 ? ICMP6_PORT_UNREACHABLE : ICMP4_PORT_UNREACHABLE,
        };
        return;
    }
    *icmp = (struct icmp_header){
        .type = too_big ? (v6 ? ICMP6_TOO_BIG : ICMP4_UNREACHABLE) : (v6 ? ICMP6_TIME_EXCEEDED : ICMP4_TIME_EXCEEDED),
        .code = too_big && !v6 ? ICMP4_FRAGMENTATION_NEEDED : 0,
        .sequence = too_big ? bpf_htons(mtu) : 0, /* in IPv6 the low half of a word */
    };
}

/* Where an error goes, and what it says. */
struct error_way {
    u32 back;  /* next hop that the packet came by: it has our address on that side */
    u32 mtu;   /* for TW_DROP_TOO_BIG */
    u64 flags; /* of bpf_redirect */
};

/* Makes of a packet that cannot go on the error that says why, and sends it back. A service that refuses answers from
 * its own address. No error is about an error (RFC 1122 section 3.2.2), nor about a later fragment, since the first one
 * has its own. */
inline_always int error_answer(struct __sk_buff *skb, const struct packet *p, enum tw_drop reason,
                               const struct error_way *way, const bool v6)
{
    u32 back = way->back;
    struct answer_room *room = bpf_map_lookup_elem(&answer_room, &(u32){0});
    struct tw_nexthop *nexthop = bpf_map_lookup_elem(&nexthops, &back);
    const u32 head = (v6 ? sizeof(struct ipv6hdr) : sizeof(struct iphdr)) + sizeof(struct icmp_header);
    const struct tw_address *source;
    struct icmp_header *icmp;
    u32 size, index;
    u64 sum;

    if (!room || !nexthop || p->kind == KIND_ICMP_ERROR || p->kind == KIND_FRAGMENT || !answer_allowed(room))
        return VERDICT_DROP;
    index = nexthop->source[v6];
    source = index ? bpf_map_lookup_elem(&addresses, &index) : 0;
    if (refuses(reason))
        source = &p->tuple.destination;
    error_clear();
    size = error_quote(skb, room, head, v6);
    if (!source || !size)
        return VERDICT_DROP;
    icmp = v6 ? &room->frame.v6.icmp : &room->frame.v4.icmp;
    error_kind(icmp, reason, way->mtu, v6);
    sum = error_sum();
    if (v6) {
        answer_head6(room, source, p, IPPROTO_ICMPV6, head + size);
        sum += answer_pseudo_header(room, IPPROTO_ICMPV6, sizeof(*icmp) + size, true);
    } else {
        answer_head4(room, source, p, IPPROTO_ICMP, ANSWER_SERVICE, head + size);
    }
    icmp->checksum = checksum_after(0xffff, sum);
    return answer_send(skb, room, p, head + size, way->flags, v6);
}

__weak int error_answer4(struct __sk_buff *skb, const struct packet *p, u32 reason, const struct error_way *way)
{
    return p && way ? error_answer(skb, p, reason, way, false) : VERDICT_DROP;
}

__weak int error_answer6(struct __sk_buff *skb, const struct packet *p, u32 reason, const struct error_way *way)
{
    return p && way ? error_answer(skb, p, reason, way, true) : VERDICT_DROP;
}

/* Ends a packet that deliver() refuses: counted, and with an error to its sender where there is one for the reason.
 * Whether there is one is asked once and not kept: Linux 6.1 does not follow what is kept over calls, and takes the way
 * that it has not walked for one that no packet goes. */
inline_always int refuse(struct __sk_buff *skb, const struct packet *p, const struct flow *f, enum tw_drop reason,
                         enum tw_hook hook, const bool v6)
{
    u32 next = f->next;
    struct tw_nexthop *nexthop = bpf_map_lookup_elem(&nexthops, &next);
    struct error_way way = {.back = f->back};
    int verdict;

    if (!nexthop || (reason != TW_DROP_HOPS && reason != TW_DROP_TOO_BIG))
        return drop(reason, hook, skb->len);
    way.mtu = nexthop->link.mtu;
    step(TW_STEP_ANSWER, reason);
    verdict = drop(reason, hook, skb->len);
    if (config.dry)
        return verdict;
    return v6 ? error_answer6(skb, p, reason, &way) : error_answer4(skb, p, reason, &way);
}

/* --- resets --- */

/* How much of the connection's sequence the segment takes (RFC 9293 section 3.4). */
inline_always u32 segment_length(struct __sk_buff *skb, const struct packet *p, const struct tcphdr *tcp, const bool v6)
{
    void *data = (void *)(long)skb->data, *end = (void *)(long)skb->data_end;
    u32 whole = packet_end(data, end, v6);

    return whole ? whole - p->transport - tcp->doff * 4 + tcp->syn + tcp->fin : 0;
}

/* What a TCP says to a segment of a connection that it does not have (RFC 9293 section 3.10.7.1). */
inline_always bool reset_fill(struct __sk_buff *skb, const struct packet *p, struct tcphdr *reset, const bool v6)
{
    void *data = (void *)(long)skb->data, *end = (void *)(long)skb->data_end;
    struct tcphdr *tcp = packet_transport(data, p);

    if ((void *)(tcp + 1) > end)
        return false;
    *reset = (struct tcphdr){
        .source = tcp->dest,
        .dest = tcp->source,
        .doff = sizeof(*reset) / 4,
        .rst = 1,
    };
    if (p->tcp_flags & TCP_ACK) {
        reset->seq = tcp->ack_seq;
    } else {
        reset->ack = 1;
        reset->ack_seq = bpf_htonl(bpf_ntohl(tcp->seq) + segment_length(skb, p, tcp, v6));
    }
    return true;
}

/* Makes of a TCP packet the reset that ends its sender's connection, as if by whom it was sent to, and sends it back;
 * `flags` as of bpf_redirect. Of a segment in fragments the length is not known. */
inline_always int answer_reset(struct __sk_buff *skb, const struct packet *p, u64 flags, const bool v6)
{
    struct answer_room *room = bpf_map_lookup_elem(&answer_room, &(u32){0});
    const u32 head = v6 ? sizeof(struct ipv6hdr) : sizeof(struct iphdr), size = head + sizeof(struct tcphdr);
    struct tcphdr *tcp;
    u64 sum;

    if (!room || p->kind != KIND_FLOW || p->tcp_flags & TCP_RST || !answer_allowed(room))
        return VERDICT_DROP;
    tcp = v6 ? &room->frame.reset6.tcp : &room->frame.reset4.tcp;
    if (!reset_fill(skb, p, tcp, v6))
        return VERDICT_DROP;
    if (v6)
        answer_head6(room, &p->tuple.destination, p, IPPROTO_TCP, size);
    else
        answer_head4(room, &p->tuple.destination, p, IPPROTO_TCP, 0, size);
    sum = answer_pseudo_header(room, IPPROTO_TCP, sizeof(*tcp), v6);
    for (u32 i = 0; i < sizeof(*tcp) / 4; i++)
        sum += room->frame.words[(ANSWER_FRAME_IP + head) / 4 + i];
    tcp->check = checksum_after(0xffff, sum);
    return answer_send(skb, room, p, size, flags, v6);
}

__weak int answer_reset4(struct __sk_buff *skb, const struct packet *p, u64 flags)
{
    return p ? answer_reset(skb, p, flags, false) : VERDICT_DROP;
}

__weak int answer_reset6(struct __sk_buff *skb, const struct packet *p, u64 flags)
{
    return p ? answer_reset(skb, p, flags, true) : VERDICT_DROP;
}

/* What an SCTP says to a packet of an association that it does not have, or to an INIT that it cannot serve (RFC 9260
 * section 8.4): with the tag that the INIT asks for, or else the packet's own, and then it says so. */
inline_always bool abort_fill(struct __sk_buff *skb, const struct packet *p, struct sctp_abort *abort)
{
    void *data = (void *)(long)skb->data, *end = (void *)(long)skb->data_end;
    struct sctp_header *sctp = packet_transport(data, p);

    if ((void *)(sctp + 1) > end)
        return false;
    *abort = (struct sctp_abort){
        .sctp = {.ports = {sctp->ports.destination, sctp->ports.source}, .tag = sctp->tag},
        .chunk = {.type = SCTP_ABORT, .flags = SCTP_TAG_REFLECTED, .length = bpf_htons(sizeof(abort->chunk))},
    };
    if (!(p->tcp_flags & TCP_SYN))
        return true;
    abort->chunk.flags = 0;
    return !bpf_skb_load_bytes(skb, p->transport + sizeof(*abort), &abort->sctp.tag, sizeof(abort->sctp.tag));
}

/* The same for SCTP. Linux takes port unreachable for trouble that may pass, and goes on dialling
 * (sctp_v4_err_handle() in net/sctp/input.c). */
inline_always int answer_abort(struct __sk_buff *skb, const struct packet *p, u64 flags, const bool v6)
{
    struct answer_room *room = bpf_map_lookup_elem(&answer_room, &(u32){0});
    const u32 head = v6 ? sizeof(struct ipv6hdr) : sizeof(struct iphdr), size = head + sizeof(struct sctp_abort);
    struct sctp_abort *abort;

    if (!room || p->kind != KIND_FLOW || p->tcp_flags & TCP_RST || !answer_allowed(room))
        return VERDICT_DROP;
    abort = v6 ? &room->frame.abort6.abort : &room->frame.abort4.abort;
    if (!abort_fill(skb, p, abort))
        return VERDICT_DROP;
    if (v6)
        answer_head6(room, &p->tuple.destination, p, IPPROTO_SCTP, size);
    else
        answer_head4(room, &p->tuple.destination, p, IPPROTO_SCTP, 0, size);
    abort->sctp.checksum = sctp_crc16(&room->frame.words[(ANSWER_FRAME_IP + head) / 4]);
    return answer_send(skb, room, p, size, flags, v6);
}

__weak int answer_abort4(struct __sk_buff *skb, const struct packet *p, u64 flags)
{
    return p ? answer_abort(skb, p, flags, false) : VERDICT_DROP;
}

__weak int answer_abort6(struct __sk_buff *skb, const struct packet *p, u64 flags)
{
    return p ? answer_abort(skb, p, flags, true) : VERDICT_DROP;
}

/* --- pings --- */

/* Makes an echo request its reply (RFC 792, RFC 4443 section 4.2). */
inline_always bool ping_turn(void *data, void *end, const struct packet *p, const bool v6)
{
    struct icmp_header *icmp = packet_transport(data, p);
    struct ethhdr *ethernet = data;
    struct tuple turned;
    u8 mac[ETH_ALEN];

    tuple_reverse(&p->tuple, &turned);
    if ((void *)(icmp + 1) > end)
        return false;
    icmp->checksum =
        checksum_after(icmp->checksum, v6 ? sum_change(0, bpf_htons(ICMP6_ECHO << 8), bpf_htons(ICMP6_ECHO_REPLY << 8))
                                          : sum_change(0, bpf_htons(ICMP4_ECHO << 8), 0));
    if (!icmp->checksum) /* of nothing but zeros: there 0 is wrong, elsewhere it is the same as this */
        icmp->checksum = 0xffff;
    icmp->type = v6 ? ICMP6_ECHO_REPLY : ICMP4_ECHO_REPLY;
    if ((void *)(ethernet + 1) > end || !nat_write_addresses(ethernet + 1, end, &p->tuple, &turned, v6))
        return false;
    __builtin_memcpy(mac, ethernet->h_dest, ETH_ALEN);
    __builtin_memcpy(ethernet->h_dest, ethernet->h_source, ETH_ALEN);
    __builtin_memcpy(ethernet->h_source, mac, ETH_ALEN);
    if (v6) {
        struct ipv6hdr *ip = data + ETH_HLEN;

        if ((void *)(ip + 1) > end)
            return false;
        ip->hop_limit = ANSWER_HOPS;
    } else {
        struct iphdr *ip = data + ETH_HLEN;

        if ((void *)(ip + 1) > end)
            return false;
        ip->check = checksum_after(ip->check, sum_change(0, bpf_htons(ip->ttl << 8), bpf_htons(ANSWER_HOPS << 8)));
        ip->ttl = ANSWER_HOPS;
    }
    return true;
}

/* Answers a ping on behalf of a frontend's address; `flags` as of bpf_redirect. One in fragments is not worth a row. */
inline_always int ping_answer(struct __sk_buff *skb, const struct packet *p, enum tw_hook hook, u64 flags,
                              const bool v6)
{
    if (p->kind != KIND_FLOW)
        return drop(TW_DROP_FRAGMENT, hook, skb->len);
    if (!ping_turn((void *)(long)skb->data, (void *)(long)skb->data_end, p, v6))
        return drop(TW_DROP_REWRITE_FAILED, hook, skb->len);
    skb->mark |= TW_MARK_HANDLED;
    step(TW_STEP_ANSWER, TW_PASS);
    return bpf_redirect(skb->ifindex, flags);
}

__weak int ping_answer4(struct __sk_buff *skb, const struct packet *p, u32 hook, u64 flags)
{
    return p ? ping_answer(skb, p, hook, flags, false) : VERDICT_DROP;
}

__weak int ping_answer6(struct __sk_buff *skb, const struct packet *p, u32 hook, u64 flags)
{
    return p ? ping_answer(skb, p, hook, flags, true) : VERDICT_DROP;
}

/* What becomes of a packet for which no flow was made. Its sender is told who dials what nobody serves, or goes on with
 * a connection that nobody has. `flags` as of bpf_redirect, for the answer. */
inline_always int unopened(struct __sk_buff *skb, const struct packet *p, int reason, enum tw_hook hook, u64 flags,
                           const bool v6)
{
    struct error_way way = {.back = NEXTHOP_STACK, .flags = flags};
    int verdict;

    if (reason == OPEN_PASS)
        return VERDICT_NEXT;
    if (reason == OPEN_PING)
        return v6 ? ping_answer6(skb, p, hook, flags) : ping_answer4(skb, p, hook, flags);
    if (!refuses(reason) && reason != TW_DROP_NO_CONNECTION)
        return drop(reason, hook, skb->len);
    step(TW_STEP_ANSWER, reason);
    verdict = drop(reason, hook, skb->len);
    if (config.dry)
        return verdict;
    switch (p->tuple.protocol) {
    case IPPROTO_TCP:
        return v6 ? answer_reset6(skb, p, flags) : answer_reset4(skb, p, flags);
    case IPPROTO_SCTP:
        return v6 ? answer_abort6(skb, p, flags) : answer_abort4(skb, p, flags);
    default:
        return v6 ? error_answer6(skb, p, reason, &way) : error_answer4(skb, p, reason, &way);
    }
}
