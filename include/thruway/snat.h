/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
#pragma once

#include <thruway/types.h>

/* The single row of `snat` (per CPU): how hard it was to find source ports, ICMP identifiers among them. */
struct tw_snat {
    __u64 ports;      /* found */
    __u64 collisions; /* tried and in use, by a flow or by a socket of the node */
    __u64 exhausted;  /* times that none was found */
};
TW_LAYOUT(struct tw_snat, 24);
