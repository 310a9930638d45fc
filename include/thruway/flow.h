/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
#pragma once

#include <thruway/types.h>

/* A flow is a pair of rows, one for each direction, so that the two directions, often on two CPUs, never write to
 * the same cache line. A row holds all that an established packet needs: what to match, what to write, where to go. */

/* Row state, low bits of `word`. */
enum tw_flow_state {
    TW_FLOW_FREE = 0,
    TW_FLOW_CLAIMED,     /* some CPU is changing the row; nobody else may read more than its key */
    TW_FLOW_HALF_OPEN,   /* TCP: SYN seen */
    TW_FLOW_ANSWERED,    /* TCP: and an answer to it */
    TW_FLOW_ONE_WAY,     /* UDP, ICMP, SCTP: nothing came back yet */
    TW_FLOW_ESTABLISHED, /* both directions seen; TCP: handshake complete */
    TW_FLOW_CLOSING,     /* TCP: both FINs or a RST seen */
};

/* Layout of `word`: everything about a row that needs compare-exchange. */
#define TW_FLOW_STATE 0x07U        /* enum tw_flow_state */
#define TW_FLOW_LOCK 0x08U         /* only in the first row of a bucket: inserts into the bucket are under way */
#define TW_FLOW_FIN_ORIGINAL 0x10U /* FIN seen from the side that opened the flow */
#define TW_FLOW_FIN_REPLY 0x20U
#define TW_FLOW_VERSION_STEP 0x100U /* the version above moves whenever a claimed row is published or freed */
#define TW_FLOW_VERSION 0xffffff00U

enum tw_flow_flag {
    TW_FLOW_REPLY = 1U << 0,      /* row of the answering direction */
    TW_FLOW_TRANSLATED = 1U << 1, /* new_* differ from the key */
    TW_FLOW_SNAT = 1U << 2,       /* the source is translated in the original direction */
};

/* What rows of both families begin with. Ports are in network byte order.
 * For ICMP echo the identifier is the port of the side that asks, and the port of the other side is 0. */
struct tw_flow {
    __u32 word;
    __u32 pair;    /* place (bucket * TW_FLOW_WAYS + way) of the flow's other row */
    __u32 next;    /* next hop index: where packets of this direction go */
    __u32 back;    /* next hop index: where they come from */
    __u32 judged;  /* sum of the generations of `next` and `back` when the flow was last judged */
    __u32 service; /* service id, 0 for none */
    __u16 source_port;
    __u16 destination_port;
    __u16 new_source_port;
    __u16 new_destination_port;
    __u8 protocol;
    __u8 flags;      /* enum tw_flow_flag */
    __u16 last_seen; /* tick of tw_clock */
    __u32 packets;   /* segments, where the kernel joined several; carries into the high bits of `bytes` */
    __u64 bytes;     /* with all headers, as the hook sees them: TW_FLOW_BYTES of it */
};
TW_LAYOUT(struct tw_flow, 48);
TW_OFFSET(struct tw_flow, source_port, 24);
TW_OFFSET(struct tw_flow, protocol, 32);
TW_OFFSET(struct tw_flow, bytes, 40);

#define TW_FLOW_BYTES_BITS 52
#define TW_FLOW_BYTES ((1ULL << TW_FLOW_BYTES_BITS) - 1)
#define TW_FLOW_ALONE 0xffffffffU /* `pair` of a row whose other half does not stand yet */

struct tw_flow4 {
    struct tw_flow head;
    __u32 source;
    __u32 destination;
    __u32 new_source;
    __u32 new_destination;
};
TW_LAYOUT(struct tw_flow4, 64);

struct tw_flow6 {
    struct tw_flow head;
    struct tw_address source;
    struct tw_address destination;
    struct tw_address new_source;
    struct tw_address new_destination;
    __u8 unused[16];
};
TW_LAYOUT(struct tw_flow6, 128);

/* `flows4` and `flows6` are arrays of buckets; a key has one candidate bucket and prefers one of its ways. */
#define TW_FLOW_WAYS 4U

struct tw_bucket4 {
    struct tw_flow4 row[TW_FLOW_WAYS];
};
TW_LAYOUT(struct tw_bucket4, 256);

struct tw_bucket6 {
    struct tw_flow6 row[TW_FLOW_WAYS];
};
TW_LAYOUT(struct tw_bucket6, 512);

/* tw_clock: CLOCK_MONOTONIC in ticks of 2^32 ns (4.3 s), 16 bits of it, which go round in 78 hours. */
#define TW_CLOCK_SHIFT 32
