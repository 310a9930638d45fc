/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
#pragma once

#include <thruway/types.h>

/* What the first fragment of a packet tells those that follow, row of `fragments`. Ports are in network byte order. */
struct tw_fragment {
    __u32 word; /* odd while the row is being written; any change of the row changes it */
    __u32 identification;
    struct tw_address source;
    struct tw_address destination;
    __u16 source_port;
    __u16 destination_port;
    __u16 headers; /* how many bytes of what was cut into fragments are headers that we have read */
    __u16 seen;    /* tick of tw_clock */
    __u8 protocol; /* of the transport header */
    __u8 unused[15];
};
TW_LAYOUT(struct tw_fragment, 64);
TW_OFFSET(struct tw_fragment, source_port, 40);

/* Rows; a power of two. A packet has one of them, so more would only make it rarer that two packets want the same. */
#define TW_FRAGMENTS 8192U
