/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
#pragma once

#include <thruway/types.h>

/* A way out of this node, row of `nexthops`. Index 0 is the host stack. Indices below tw_config.endpoints_max are
 * endpoints: the same number is the endpoint's id. The rest are uplinks (neighbour resolved per packet by the kernel)
 * and gateways or nodes behind uplinks (MAC known). Everything that changes in a live row is one store of at most
 * 8 bytes: `to` when a neighbour moves, `link` when a device does. */
struct tw_nexthop {
    struct {
        __u32 ifindex; /* 0: nothing here */
        __u16 mtu;     /* whole IP packet */
        __u16 unused;
    } link;
    struct {
        __u8 mac[6];
        __u16 flags; /* enum tw_nexthop_flag */
    } to;
    struct {
        __u8 mac[6];
        __u16 unused;
    } from;
    __u32 source[2]; /* by family (0 IPv4, 1 IPv6): address to SNAT to on this way, index into `addresses` */
    __u32 gateway;   /* neighbour to resolve while its MAC is unknown, index into `addresses`; 0: the destination */
    __u32 unused;
};
TW_LAYOUT(struct tw_nexthop, 40);
TW_OFFSET(struct tw_nexthop, to, 8);
TW_OFFSET(struct tw_nexthop, source, 24);

enum tw_nexthop_flag {
    TW_NEXTHOP_RESOLVED = 1U << 0, /* `to.mac` is current */
    TW_NEXTHOP_XDP = 1U << 1,      /* the device takes frames that XDP redirects to it */
    TW_NEXTHOP_REDIRECT = 1U << 2, /* XDP is to redirect what came in by the same device, too */
};

/* Key of `nodes`, a longest-prefix match from pod CIDRs to next hop index, and of `service_cidrs`. Bits count over the
 * 128-bit form. */
struct tw_cidr {
    __u32 bits;
    __u32 word[4]; /* as in tw_address */
};
TW_LAYOUT(struct tw_cidr, 20);

/* Key of `gateways`: the next hop index of a neighbour that the kernel's routing names. */
struct tw_gateway {
    struct tw_address address;
    __u32 ifindex;
    __u32 unused;
};
TW_LAYOUT(struct tw_gateway, 24);
