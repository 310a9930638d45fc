/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
#pragma once

/* SCTP's checksum is a CRC32c over all of the packet but the addresses (RFC 9260 section 6.8). A CRC is linear: a
 * change of the first four bytes, which are the ports, changes it by the remainder of that change times x^(8 * length),
 * whatever the other bytes are. Polynomials are reflected: the highest bit is x^0. */

#include "packet.h"

enum { SCTP_POLYNOMIAL = 0x82f63b78 };

/* x^(8 * 2^n) */
static const u32 sctp_powers[16] = {0x00800000, 0x00008000, 0x82f63b78, 0x6ea2d55c, 0x18b8ea18, 0x510ac59a,
                                    0xb82be955, 0xb8fdb1e7, 0x88e56f72, 0x74c360a4, 0xe4172b16, 0x0d65762a,
                                    0x35d73a62, 0x28461564, 0xbf455269, 0xe2ea32dc};

/* Without a branch, so that the verifier has one way to walk. */
inline_always u32 sctp_multiply(u32 a, u32 b)
{
    u32 product = 0;

#pragma clang loop unroll(disable)
    for (int i = 0; i < 32; i++) {
        product ^= b & -(a >> 31);
        a <<= 1;
        b = (b >> 1) ^ (SCTP_POLYNOMIAL & -(b & 1));
    }
    return product;
}

/* What becomes of the CRC of `length` bytes if the first four change by `change`. */
__weak u32 sctp_crc_change(u32 change, u32 length)
{
#pragma clang loop unroll(disable)
    for (u32 n = 0; n < 16; n++)
        if (length >> n & 1)
            change = sctp_multiply(change, sctp_powers[n]);
    return change;
}

enum { SCTP_CRC_ZEROS = 0x42709aea }; /* of 16 bytes that are all 0 */

/* The CRC of 16 bytes: of zeros that change, word by word. */
inline_always u32 sctp_crc16(const u32 *words)
{
    u32 crc = SCTP_CRC_ZEROS;

    for (u32 i = 0; i < 4; i++)
        crc ^= sctp_crc_change(words[i], 16 - 4 * i);
    return crc;
}

inline_always u32 sctp_ports(const struct tuple *t)
{
    return (u32)t->destination_port << 16 | t->source_port;
}

/* Corrects the checksum for new ports. One of 0 is none: the device or the last kernel that has the packet is to
 * compute it (sctp_packet_pack() in net/sctp/output.c leaves 0 there and says so in the socket buffer, where we cannot
 * see it), or there is to be none (RFC 9653). The checksum of a fragmented packet cannot be corrected in its first
 * fragment, which does not say how long the whole is: false. SCTP does not fragment of its own accord. */
inline_always bool sctp_checksum(void *data, void *end, const struct packet *p, const struct tuple *to, const bool v6)
{
    struct sctp_header *sctp = packet_transport(data, p);
    u32 change = sctp_ports(&p->tuple) ^ sctp_ports(to), length;

    if ((void *)(sctp + 1) > end)
        return false;
    if (!change || !sctp->checksum)
        return true;
    if (v6) {
        struct ipv6hdr *ip = data + ETH_HLEN;

        if ((void *)(ip + 1) > end)
            return false;
        length = bpf_ntohs(ip->payload_len) + sizeof(*ip);
    } else {
        struct iphdr *ip = data + ETH_HLEN;

        if ((void *)(ip + 1) > end)
            return false;
        length = bpf_ntohs(ip->tot_len);
    }
    if (p->kind == KIND_FIRST_FRAGMENT)
        return false;
    sctp->checksum ^= sctp_crc_change(change, length - (p->transport - ETH_HLEN));
    return true;
}
