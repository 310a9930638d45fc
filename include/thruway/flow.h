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
    TW_FLOW_CLOSING,     /* TCP: both FINs or a RST seen; SCTP: ABORT or SHUTDOWN COMPLETE seen */
};

/* Layout of `word`: everything about a row that needs compare-exchange. */
#define TW_FLOW_STATE 0x07U        /* enum tw_flow_state */
#define TW_FLOW_LOCK 0x08U         /* only in the first row of a bucket: inserts into the bucket are under way */
#define TW_FLOW_FIN_ORIGINAL 0x10U /* FIN seen from the side that opened the flow */
#define TW_FLOW_FIN_REPLY 0x20U
#define TW_FLOW_SPILLED 0x40U       /* only in the first row of a bucket: some of its flows lie in the spill area */
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
    __u32 pair;    /* place (bucket * TW_FLOW_WAYS + way) of the flow's other row, in the same table */
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

/* `flows4` and `flows6` are arrays of buckets; a key has one candidate bucket and prefers one of its ways. Behind N
 * buckets (a power of two) lies the spill area: N rows in N / 4 buckets. The flows that bucket number n has no room for
 * lie in the TW_FLOW_WINDOW spill rows from number n on. Tables of layout version 1 have no spill area.
 * `previous4` and `previous6` hold the table before, as long as a change of its size or layout is under way. */
#define TW_FLOW_WAYS 4U
#define TW_FLOW_WINDOW 16U
#define TW_FLOW_PREVIOUS 0x80000000U /* in a place, never in `pair`: the row lies in the previous table */

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

/* Row of `purges`: flows of this service that go to this backend are to end; port 0: to any. */
struct tw_purge {
    struct tw_address address;
    __u32 service;
    __u16 port; /* in network byte order */
    __u8 protocol;
    __u8 unused;
};
TW_LAYOUT(struct tw_purge, 24);

#define TW_PURGES 64U

/* What gc is asked to do, and what it says: a walk over some buckets of one table. */
struct tw_gc {
    __u32 table;  /* 0 or TW_FLOW_PREVIOUS */
    __u32 v6;     /* 0: IPv4 */
    __u32 first;  /* bucket to begin with; buckets of the spill area count on behind the others */
    __u32 count;  /* how many buckets */
    __u32 purges; /* so many rows of `purges` hold */
    __u32 moves;  /* 1: move flows of the previous table to the current one */
    __u32 now;    /* tick of tw_clock: syscall programs have no helper for it */
    __u32 rows;   /* out: rows that are in use after it */
};
TW_LAYOUT(struct tw_gc, 32);

/* What happens in the flow table beside what flows themselves tell: name that users see, and what it means. The order
 * is part of the pinned layout: append only. */
#define TW_FLOW_EVENTS(X)                                                                                              \
    X(SPILLED, "spilled", "rows put into the spill area, since their bucket was full")                                 \
    X(EVICTED_CLOSING, "evicted_closing", "closing flows that gave way to new ones")                                   \
    X(EVICTED_HALF_OPEN, "evicted_half_open", "TCP flows that gave way to new ones before they were established")      \
    X(EVICTED_ONE_WAY, "evicted_one_way", "unanswered flows that gave way to new ones")                                \
    X(REPLACED_IDLE, "replaced_idle", "flows idle for longer than their time, found when their row was needed")        \
    X(FULL, "full", "new flows refused, since all rows that could hold them were in live use")                         \
    X(BUSY, "busy", "new flows refused, since another CPU was changing their bucket")                                  \
    X(EXPIRED, "expired", "flows idle for longer than their time, ended by gc")                                        \
    X(REPAIRED, "repaired", "rows without their other half, freed by gc")                                              \
    X(PURGED, "purged", "flows ended by gc since a pod, next hop or backend of theirs is gone")                        \
    X(MOVED, "moved", "flows moved from the previous table to the current one")

enum tw_flow_event {
#define X(id, name, meaning) TW_FLOW_EVENT_##id,
    TW_FLOW_EVENTS(X)
#undef X
        TW_FLOW_EVENT_COUNT,
};
