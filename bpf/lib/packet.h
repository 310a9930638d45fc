/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
#pragma once

/* What the programs know of a packet. It is parsed once; everything after that works on `struct packet`. */

#include "kernel.h"

#include <thruway/drop.h>
#include <thruway/types.h>

/* One direction of a conversation. Ports are in network byte order; see tw_flow for ICMP. */
struct tuple {
    struct tw_address source;
    struct tw_address destination;
    u16 source_port;
    u16 destination_port;
    u8 protocol;
};

enum packet_kind {
    KIND_FLOW,           /* whole, and belongs to a flow by its own headers */
    KIND_FIRST_FRAGMENT, /* belongs to a flow by its own headers, and so do the fragments that follow it */
    KIND_FRAGMENT,       /* a later one: no transport header */
    KIND_ICMP_ERROR,     /* belongs to the flow of the packet that it quotes */
    KIND_ICMP_OTHER,     /* neighbour discovery, multicast listeners, ... */
};

enum { TCP_FIN = 0x01, TCP_SYN = 0x02, TCP_RST = 0x04, TCP_ACK = 0x10 };

struct packet {
    struct tuple tuple;
    u16 transport; /* offset of the transport header from the start of the frame */
    u8 kind;       /* enum packet_kind */
    u8 hops;       /* TTL or hop limit */
    u8 tcp_flags;  /* of SCTP: see sctp_flags() */
    u8 icmp_type;
    u16 fragment_at;     /* of fragments: where what was cut into fragments begins, from the start of the frame */
    u16 fragment_offset; /* and from which byte of the whole on this one has it */
    u32 identification;
};

enum {
    IPV4_DONT_FRAGMENT = 0x4000,
    IPV4_MORE_FRAGMENTS = 0x2000,
    IPV4_FRAGMENT_OFFSET = 0x1fff,
    IPV6_MORE_FRAGMENTS = 0x0001,
    IPV6_FRAGMENT_OFFSET = 0xfff8,
    IPV6_EXTENSIONS_MAX = 6,
    ICMP4_ECHO_REPLY = 0,
    ICMP4_UNREACHABLE = 3,
    ICMP4_SOURCE_QUENCH = 4,
    ICMP4_ECHO = 8,
    ICMP4_TIME_EXCEEDED = 11,
    ICMP4_PARAMETER_PROBLEM = 12,
    ICMP4_PORT_UNREACHABLE = 3, /* codes of ICMP4_UNREACHABLE */
    ICMP4_FRAGMENTATION_NEEDED = 4,
    ICMP6_UNREACHABLE = 1,
    ICMP6_PORT_UNREACHABLE = 4, /* a code of ICMP6_UNREACHABLE */
    ICMP6_TOO_BIG = 2,
    ICMP6_TIME_EXCEEDED = 3,
    ICMP6_ERRORS_END = 128, /* RFC 4443 2.1: errors have the high bit clear */
    ICMP6_ECHO = 128,
    ICMP6_ECHO_REPLY = 129,
};

struct icmp_header {
    u8 type;
    u8 code;
    u16 checksum;
    u16 identifier;
    u16 sequence;
};

struct port_header {
    u16 source;
    u16 destination;
};

struct sctp_header {
    struct port_header ports;
    u32 tag;
    u32 checksum; /* CRC32c, least significant byte first */
};

struct sctp_chunk {
    u8 type; /* RFC 9260 section 3.2 */
    u8 flags;
    u16 length;
};

enum { SCTP_INIT = 1, SCTP_ABORT = 6, SCTP_SHUTDOWN_COMPLETE = 14 };
enum { SCTP_TAG_REFLECTED = 1 }; /* flag of the last two: the verification tag is the receiver's own */

struct ipv6_extension {
    u8 next;
    u8 length;
    u16 fragment_offset;
    u32 identification;
};

inline_always struct tw_address address_from4(u32 address)
{
    return (struct tw_address){{0, 0, bpf_htonl(0xffff), address}};
}

inline_always bool address_is4(const struct tw_address *a)
{
    return a->word[2] == bpf_htonl(0xffff) && !a->word[0] && !a->word[1];
}

/* True for multicast and, in IPv4, for what is reserved above it, the limited broadcast address among that. */
inline_always bool address_is_group(const struct tw_address *a)
{
    u32 first = bpf_ntohl(address_is4(a) ? a->word[3] : a->word[0]);

    return first >= (address_is4(a) ? 0xe0000000 : 0xff000000);
}

/* True for an IPv6 address that holds on one link only, and for the unspecified one, which is nobody's yet. */
inline_always bool address_is_link(const struct tw_address *a)
{
    return (a->word[0] & bpf_htonl(0xffc00000)) == bpf_htonl(0xfe800000) ||
           !(a->word[0] | a->word[1] | a->word[2] | a->word[3]);
}

/* One of the two 8-byte halves of an address. */
inline_always u64 address_half(const struct tw_address *a, int which)
{
    return READ_ONCE(((const u64 *)a)[which]);
}

inline_always bool address_equal(const struct tw_address *a, const struct tw_address *b)
{
    return address_half(a, 1) == address_half(b, 1) && address_half(a, 0) == address_half(b, 0);
}

inline_always void tuple_reverse(const struct tuple *t, struct tuple *reversed)
{
    reversed->source = t->destination;
    reversed->destination = t->source;
    reversed->source_port = t->destination_port;
    reversed->destination_port = t->source_port;
    reversed->protocol = t->protocol;
}

/* Headers lie within so much of a frame: who computes an offset keeps it there. */
enum { HEADERS_MAX = 0x7ff };

/* What lies at this offset of the frame. The mask tells the verifier what it forgets of numbers that lay in memory. */
inline_always void *packet_at(void *data, u64 offset)
{
    return data + masked(offset, HEADERS_MAX);
}

inline_always void *packet_transport(void *data, const struct packet *p)
{
    return packet_at(data, p->transport);
}

/* True for a packet that may open a flow: all but TCP without a bare SYN. */
inline_always bool packet_opens(const struct packet *p)
{
    return p->tuple.protocol != IPPROTO_TCP || (p->tcp_flags & (TCP_SYN | TCP_ACK | TCP_RST | TCP_FIN)) == TCP_SYN;
}

inline_always bool icmp_is_error(u8 type, const bool v6)
{
    if (v6)
        return type < ICMP6_ERRORS_END;
    return type == ICMP4_UNREACHABLE || type == ICMP4_SOURCE_QUENCH || type == ICMP4_TIME_EXCEEDED ||
           type == ICMP4_PARAMETER_PROBLEM;
}

/* The least length of a transport header. */
inline_always u32 transport_minimum(u8 protocol)
{
    switch (protocol) {
    case IPPROTO_TCP:
        return sizeof(struct tcphdr);
    case IPPROTO_SCTP:
        return sizeof(struct sctp_header);
    default:
        return sizeof(struct udphdr); /* that of ICMP is as long */
    }
}

/* What an SCTP packet means for the life of its flow, in TCP's words: INIT begins an association, ABORT and SHUTDOWN
 * COMPLETE end it. INIT and SHUTDOWN COMPLETE have a packet to themselves (RFC 9260 section 6.10). An ABORT behind
 * other chunks is not seen; then the association's flow is forgotten as one that is idle. */
inline_always u8 sctp_flags(const struct sctp_header *sctp, void *end)
{
    const struct sctp_chunk *first = (void *)(sctp + 1);

    if ((void *)(first + 1) > end)
        return 0;
    switch (first->type) {
    case SCTP_INIT:
        return TCP_SYN;
    case SCTP_ABORT:
    case SCTP_SHUTDOWN_COMPLETE:
        return TCP_RST;
    default:
        return 0;
    }
}

/* Reads ports, TCP flags and the like; `room` is how many bytes of transport the IP header promises. */
inline_always enum tw_drop parse_transport(void *data, void *end, struct packet *p, u32 room, const bool v6)
{
    void *at = packet_transport(data, p);
    struct port_header *ports = at;
    struct tcphdr *tcp = at;
    struct icmp_header *icmp = at;

    switch (p->tuple.protocol) {
    case IPPROTO_TCP:
        if (room < sizeof(*tcp) || (void *)(tcp + 1) > end || tcp->doff < sizeof(*tcp) / 4)
            return TW_DROP_MALFORMED;
        p->tcp_flags = ((u8 *)tcp)[13];
        break;
    case IPPROTO_UDP:
        if (room < sizeof(struct udphdr) || at + sizeof(struct udphdr) > end)
            return TW_DROP_MALFORMED;
        break;
    case IPPROTO_SCTP:
        if (room < sizeof(struct sctp_header) || at + sizeof(struct sctp_header) > end)
            return TW_DROP_MALFORMED;
        p->tcp_flags = sctp_flags(at, end);
        break;
    case IPPROTO_ICMP:
    case IPPROTO_ICMPV6:
        if ((p->tuple.protocol == IPPROTO_ICMPV6) != v6)
            return TW_DROP_UNKNOWN_PROTOCOL;
        if (room < sizeof(*icmp) || (void *)(icmp + 1) > end)
            return TW_DROP_MALFORMED;
        p->icmp_type = icmp->type;
        if (icmp->type == (v6 ? ICMP6_ECHO : ICMP4_ECHO))
            p->tuple.source_port = icmp->identifier;
        else if (icmp->type == (v6 ? ICMP6_ECHO_REPLY : ICMP4_ECHO_REPLY))
            p->tuple.destination_port = icmp->identifier;
        else
            p->kind = icmp_is_error(icmp->type, v6) ? KIND_ICMP_ERROR : KIND_ICMP_OTHER;
        return TW_PASS;
    default:
        return TW_DROP_UNKNOWN_PROTOCOL;
    }
    p->tuple.source_port = ports->source;
    p->tuple.destination_port = ports->destination;
    return TW_PASS;
}

/* Notes what a fragment header says of its packet. One that is all of a packet (RFC 6946) is none. */
inline_always void parse_fragment(struct packet *p, u32 identification, u32 offset, bool more)
{
    if (!offset && !more)
        return;
    p->kind = offset ? KIND_FRAGMENT : KIND_FIRST_FRAGMENT;
    p->identification = identification;
    p->fragment_offset = offset;
    p->fragment_at = p->transport;
}

/* Walks IPv6 extension headers to the transport header (RFC 8200 section 4). `room` shrinks as it goes. A packet that
 * is yet to be routed from station to station (segments left, RFC 8200 section 4.4) has a checksum over an address that
 * we do not see: it counts as a protocol that is not spoken here, and so does what is under an authentication header
 * (RFC 4302), which no address under it may change. */
inline_always enum tw_drop parse_extensions(void *data, void *end, struct packet *p, u32 *room)
{
    for (int i = 0; i < IPV6_EXTENSIONS_MAX; i++) {
        struct ipv6_extension *extension = packet_transport(data, p);
        u32 length, offset;

        switch (p->tuple.protocol) {
        case IPPROTO_HOPOPTS:
        case IPPROTO_ROUTING:
        case IPPROTO_DSTOPTS:
        case IPPROTO_FRAGMENT:
            break;
        default:
            return TW_PASS;
        }
        if ((void *)(extension + 1) > end)
            return TW_DROP_MALFORMED;
        if (p->tuple.protocol == IPPROTO_ROUTING && ((u8 *)extension)[3])
            return TW_DROP_UNKNOWN_PROTOCOL;
        length = p->tuple.protocol == IPPROTO_FRAGMENT ? 8 : (extension->length + 1) * 8;
        if (length > *room || p->transport + length > HEADERS_MAX)
            return TW_DROP_MALFORMED;
        *room -= length;
        p->transport += length;
        if (p->tuple.protocol == IPPROTO_FRAGMENT) {
            offset = bpf_ntohs(extension->fragment_offset);
            parse_fragment(p, extension->identification, offset & IPV6_FRAGMENT_OFFSET, offset & IPV6_MORE_FRAGMENTS);
        }
        p->tuple.protocol = extension->next;
        if (p->kind == KIND_FRAGMENT)
            return TW_PASS;
    }
    return TW_DROP_MALFORMED;
}

inline_always enum tw_drop parse4(void *data, void *end, u32 length, struct packet *p)
{
    struct iphdr *ip = data + ETH_HLEN;
    u32 header, total, fragment;

    if ((void *)(ip + 1) > end || ip->version != 4 || ip->ihl < 5)
        return TW_DROP_MALFORMED;
    header = ip->ihl * 4;
    total = bpf_ntohs(ip->tot_len);
    if (!total && length > 0xffff) /* joined by the kernel beyond what the field can say */
        total = length - ETH_HLEN;
    if (total < header || total + ETH_HLEN > length)
        return TW_DROP_MALFORMED;
    p->tuple.source = address_from4(ip->saddr);
    p->tuple.destination = address_from4(ip->daddr);
    p->tuple.protocol = ip->protocol;
    p->hops = ip->ttl;
    p->transport = ETH_HLEN + header;
    fragment = bpf_ntohs(ip->frag_off);
    if (unlikely(fragment & (IPV4_FRAGMENT_OFFSET | IPV4_MORE_FRAGMENTS))) {
        parse_fragment(p, ip->id, (fragment & IPV4_FRAGMENT_OFFSET) * 8, fragment & IPV4_MORE_FRAGMENTS);
        if (p->kind == KIND_FRAGMENT)
            return TW_PASS;
    }
    return parse_transport(data, end, p, total - header, false);
}

inline_always enum tw_drop parse6(void *data, void *end, u32 length, struct packet *p)
{
    struct ipv6hdr *ip = data + ETH_HLEN;
    enum tw_drop drop;
    u32 room;

    if ((void *)(ip + 1) > end || ip->version != 6)
        return TW_DROP_MALFORMED;
    room = bpf_ntohs(ip->payload_len);
    if (!room && length > 0xffff)
        room = length - ETH_HLEN - sizeof(*ip);
    if (room + sizeof(*ip) + ETH_HLEN > length)
        return TW_DROP_MALFORMED;
    __builtin_memcpy(&p->tuple.source, &ip->saddr, sizeof(ip->saddr));
    __builtin_memcpy(&p->tuple.destination, &ip->daddr, sizeof(ip->daddr));
    /* IPv4-mapped addresses have no place on a wire (RFC 6890), and would meet those that we keep of IPv4 packets. */
    if (address_is4(&p->tuple.source) || address_is4(&p->tuple.destination))
        return TW_DROP_MALFORMED;
    p->tuple.protocol = ip->nexthdr;
    p->hops = ip->hop_limit;
    p->transport = ETH_HLEN + sizeof(*ip);
    drop = parse_extensions(data, end, p, &room);
    if (drop || p->kind == KIND_FRAGMENT)
        return drop;
    return parse_transport(data, end, p, room, true);
}

/* Reads the headers in [data, end) of a frame that is `length` bytes long in all. The packet must be zeroed before. */
inline_always enum tw_drop parse(void *data, void *end, u32 length, struct packet *p, const bool v6)
{
    return v6 ? parse6(data, end, length, p) : parse4(data, end, length, p);
}

/* Where the packet ends in its frame, which may be longer. */
inline_always u32 packet_end(void *data, void *end, const bool v6)
{
    struct ipv6hdr *ip6 = data + ETH_HLEN;
    struct iphdr *ip4 = data + ETH_HLEN;

    if (v6)
        return (void *)(ip6 + 1) > end ? 0 : ETH_HLEN + sizeof(*ip6) + bpf_ntohs(ip6->payload_len);
    return (void *)(ip4 + 1) > end ? 0 : ETH_HLEN + bpf_ntohs(ip4->tot_len);
}
