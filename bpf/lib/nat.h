/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
#pragma once

/* Writes a new tuple into a packet, with all its checksums. */

#include "packet.h"
#include "sctp.h"

/* One's complement sum of what a change from `from` to `to` adds, over words that stand 2-byte aligned in a packet. */
inline_always u64 sum_change(u64 sum, u32 from, u32 to)
{
    return sum + (u32)~from + to;
}

inline_always u32 sum_fold32(u64 sum)
{
    sum = (sum & 0xffffffff) + (sum >> 32);
    return (sum & 0xffffffff) + (sum >> 32);
}

/* RFC 1624 (eqn. 3): the checksum field after such a change. */
inline_always u16 checksum_after(u16 checksum, u64 sum)
{
    u32 folded;

    sum += (u16)~checksum;
    folded = sum_fold32(sum);
    folded = (folded & 0xffff) + (folded >> 16);
    folded = (folded & 0xffff) + (folded >> 16);
    return ~folded;
}

/* Not inlined: it would hold sixteen words at once, for which the callers' stack is short. */
static __noinline u64 sum_addresses6(const struct tuple *from, const struct tuple *to)
{
    u64 sum = 0;

    for (int i = 0; i < 4; i++) {
        sum = sum_change(sum, from->source.word[i], to->source.word[i]);
        sum = sum_change(sum, from->destination.word[i], to->destination.word[i]);
    }
    return sum;
}

inline_always u64 sum_addresses(const struct tuple *from, const struct tuple *to, const bool v6)
{
    if (v6)
        return sum_addresses6(from, to);
    return sum_change(sum_change(0, from->source.word[3], to->source.word[3]), from->destination.word[3],
                      to->destination.word[3]);
}

inline_always u64 sum_ports(const struct tuple *from, const struct tuple *to)
{
    u64 sum = sum_change(0, from->source_port, to->source_port);

    return sum_change(sum, from->destination_port, to->destination_port);
}

/* Offset of the checksum in the transport header; 0 where there is none that covers what we change. */
inline_always u32 checksum_offset(u8 protocol)
{
    switch (protocol) {
    case IPPROTO_TCP:
        return __builtin_offsetof(struct tcphdr, check);
    case IPPROTO_UDP:
        return __builtin_offsetof(struct udphdr, check);
    case IPPROTO_ICMP:
    case IPPROTO_ICMPV6:
        return __builtin_offsetof(struct icmp_header, checksum);
    default:
        return 0;
    }
}

/* Corrects the transport checksum for the new tuple, by plain arithmetic in its bytes: one that is complete, or one
 * that the device is to complete (`partial`), which so far is the sum of the pseudo-header, not inverted. In that a
 * change of addresses counts and one of ports does not. */
inline_always bool nat_checksum_write(void *data, void *end, const struct packet *p, const struct tuple *to,
                                      bool partial, const bool v6)
{
    u16 *checksum = packet_transport(data, p) + checksum_offset(p->tuple.protocol);
    u16 inverted = partial ? 0xffff : 0;
    bool udp = p->tuple.protocol == IPPROTO_UDP;
    u64 sum = partial ? 0 : sum_ports(&p->tuple, to);

    if ((void *)(checksum + 1) > end)
        return false;
    if (udp && !*checksum) /* RFC 768: there is none */
        return true;
    if (p->tuple.protocol != IPPROTO_ICMP) /* ICMP for IPv4 has no pseudo-header */
        sum += sum_addresses(&p->tuple, to, v6);
    *checksum = checksum_after(*checksum ^ inverted, sum) ^ inverted;
    if (udp && !*checksum)
        *checksum = 0xffff;
    return true;
}

/* What the kernel says of the packet's checksum: CHECKSUM_COMPLETE, which takes most care, where it says nothing. */
inline_always u8 checksum_kind(struct __sk_buff *skb)
{
    struct sk_buff *kernel;

    if (!bpf_cast_to_kern_ctx)
        return CHECKSUM_COMPLETE;
    kernel = bpf_cast_to_kern_ctx(skb);
    return BPF_CORE_READ_BITFIELD(kernel, ip_summed);
}

/* Has the sum that the device computed of the whole packet, if it did, follow a change that no checksum in the packet
 * makes up for. */
inline_always void checksum_follow(struct __sk_buff *skb, u64 sum)
{
    if (unlikely(checksum_kind(skb) == CHECKSUM_COMPLETE))
        bpf_csum_update(skb, sum_fold32(sum));
}

/* Corrects the transport checksum by the kernel's helpers, which know what a program may not be able to see. */
static __noinline bool nat_checksum_ask(struct __sk_buff *skb, const struct packet *p, const struct tuple *to, bool v6)
{
    u8 protocol = p->tuple.protocol;
    u32 at = p->transport + checksum_offset(protocol);
    u64 flags = protocol == IPPROTO_UDP ? BPF_F_MARK_MANGLED_0 : 0;
    u32 ports = sum_fold32(sum_ports(&p->tuple, to));
    u32 addresses = sum_fold32(sum_addresses(&p->tuple, to, v6));
    long error = 0;

    if (protocol != IPPROTO_ICMP) {
        error = bpf_l4_csum_replace(skb, at, 0, addresses, flags | BPF_F_PSEUDO_HDR);
        /* For a checksum computed by the device (CHECKSUM_COMPLETE) the helper assumes that a header checksum makes
         * up for the address, as in IPv4. IPv6 has none: undo that part. No effect on any other packet. */
        if (v6)
            bpf_csum_update(skb, addresses);
    }
    if (!error && ports)
        error = bpf_l4_csum_replace(skb, at, 0, ports, flags);
    return !error;
}

/* Corrects the transport checksum for the new tuple, whatever the state is that the packet's sender or device left it
 * in. Helpers take longer than all of the rest: only where the sum of the whole packet has to follow, and on Linux 6.1,
 * which does not say. */
inline_always bool nat_checksum(struct __sk_buff *skb, const struct packet *p, const struct tuple *to, const bool v6)
{
    void *data = (void *)(long)skb->data, *end = (void *)(long)skb->data_end;
    u8 kind;

    if (p->tuple.protocol == IPPROTO_SCTP)
        return sctp_checksum(data, end, p, to, v6);
    kind = checksum_kind(skb);
    if (unlikely(kind == CHECKSUM_COMPLETE))
        return nat_checksum_ask(skb, p, to, v6);
    return nat_checksum_write(data, end, p, to, kind == CHECKSUM_PARTIAL, v6);
}

/* Writes the tuple's addresses into the IP header at `header`. */
inline_always bool nat_write_addresses(void *header, void *end, const struct tuple *from, const struct tuple *to,
                                       const bool v6)
{
    if (v6) {
        struct ipv6hdr *ip = header;

        if ((void *)(ip + 1) > end)
            return false;
        __builtin_memcpy(&ip->saddr, &to->source, sizeof(ip->saddr));
        __builtin_memcpy(&ip->daddr, &to->destination, sizeof(ip->daddr));
    } else {
        struct iphdr *ip = header;

        if ((void *)(ip + 1) > end)
            return false;
        ip->check = checksum_after(ip->check, sum_addresses(from, to, false));
        ip->saddr = to->source.word[3];
        ip->daddr = to->destination.word[3];
    }
    return true;
}

/* Writes the tuple's ports, or ICMP identifier, into the transport header at `header`. */
inline_always bool nat_write_ports(void *header, void *end, const struct tuple *to)
{
    if (to->protocol == IPPROTO_ICMP || to->protocol == IPPROTO_ICMPV6) {
        struct icmp_header *icmp = header;

        if ((void *)(icmp + 1) > end)
            return false;
        icmp->identifier = to->source_port | to->destination_port;
    } else {
        struct port_header *ports = header;

        if ((void *)(ports + 1) > end)
            return false;
        ports->source = to->source_port;
        ports->destination = to->destination_port;
    }
    return true;
}

/* Writes all of the tuple. The caller has made sure that the headers are in reach of `end`. */
inline_always bool nat_write(void *data, void *end, const struct packet *p, const struct tuple *to, const bool v6)
{
    return nat_write_ports(packet_transport(data, p), end, to) &&
           nat_write_addresses(data + ETH_HLEN, end, &p->tuple, to, v6);
}
