/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
#pragma once

#include <thruway/types.h>

/* Version of everything that lies pinned: map layouts, the meaning of their fields, the hash that places flow rows.
 * Any change to one of these must change this number. */
#define TW_LAYOUT_VERSION 2

/* The one packet mark bit that is ours: "the datapath has dealt with this packet". kube-proxy owns bits 14 and 15. */
#define TW_MARK_HANDLED (1U << 12)

/* Constants of the programs (.rodata), set when they are loaded. Times are in ticks of tw_clock (see flow.h). */
struct tw_config {
    __u64 flow_seed;       /* keys the placement of flow rows; must outlive the programs, as the rows do */
    __u64 netns_cookie;    /* of the node's network namespace */
    __u64 clock;           /* CLOCK_MONOTONIC in nanoseconds is jiffies * jiffy + clock, modulo 2^64 */
    __u32 flow_mask;       /* number of flow buckets per family - 1, without the spill area; a power of two */
    __u32 previous_mask;   /* likewise of the previous table; 0: there is none */
    __u32 previous_window; /* rows of its spill area that a bucket may use; 0: it has no spill area */
    __u32 loads_reorder;   /* this CPU may load memory in another order than the program (arm64 does, x86 does not) */
    __u32 endpoints_max;   /* next hop indices below this are endpoints (pods) of this node; 0 is the host stack */
    __u32 snat_first;      /* first source port for SNAT, host byte order */
    __u32 snat_mask;       /* number of SNAT ports - 1; the number is a power of two */
    __u32 tcp_established; /* idle times after which a flow may be forgotten */
    __u32 tcp_half_open;
    __u32 tcp_closing;
    __u32 udp_one_way;
    __u32 udp_two_way;
    __u32 icmp;
    __u32 dry;         /* 1 in the copy that traces packets: it writes nothing but what it does (see steps.h) */
    __u32 adopt_until; /* tick, not cut to 16 bits: until then TCP under way is left to the host's stack */
    __u32 jiffy;       /* nanoseconds */
    __u32 sock_all;    /* 1: sockets of every network namespace are translated, not only of the node's */
    __u32 localhost_node_ports; /* 1: the node's own sockets reach NodePorts on its loopback, too */
};
TW_LAYOUT(struct tw_config, 96);

/* While the flow table changes its size or layout: where new flows are made. Read only by programs that know two
 * tables. */
enum tw_phase {
    TW_PHASE_CURRENT = 0, /* in the current table */
    TW_PHASE_PREVIOUS,    /* in the previous one: some hook may still have a program that knows no other */
};

/* The single value of map `layout`: says what lies pinned, so that an agent knows whether it can take it over. */
struct tw_layout {
    __u32 version; /* TW_LAYOUT_VERSION */
    __u32 phase;   /* enum tw_phase */
    __u64 flow_seed;
    __u8 programs[16]; /* digest of program code, constants and attach choices; equal means: nothing to load */
    __u64 clock;       /* as in the constants of these programs */
    __u32 since;       /* tick, not cut to 16 bits, at which programs were first loaded */
    __u32 carries;     /* 0 until the tables are filled and all is attached: until then every new flow is left alone */
};
TW_LAYOUT(struct tw_layout, 48);
