/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
#pragma once

#include <thruway/types.h>

/* One packet of the list that the driver walks, in network byte order. */
struct tw_bench_packet {
    __u32 source;
    __u32 destination;
    __u16 source_port;
    __u16 destination_port;
    __u32 unused;
};
TW_LAYOUT(struct tw_bench_packet, 16);

/* How the driver walks: written by the bench between runs. */
struct tw_bench_walk {
    __u32 at;
    __u32 count; /* of the packets in the list; then it begins anew */
    __u32 tcp_flags;
    __u32 unused;
};
TW_LAYOUT(struct tw_bench_walk, 16);
