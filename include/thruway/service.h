/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
#pragma once

#include <thruway/types.h>

/* Key of `frontends`; the value is a service id (u32). NodePorts stand under the unspecified address of their family
 * and are valid for each address in `node_port_addresses`. */
struct tw_frontend {
    struct tw_address address;
    __u16 port; /* network byte order */
    __u8 protocol;
    __u8 unused[5];
};
TW_LAYOUT(struct tw_frontend, 24);

/* Value of `frontends`: the service's id, and what the address is. */
enum {
    TW_FRONTEND_SERVICE = (1U << 24) - 1,
    TW_FRONTEND_KIND = ~TW_FRONTEND_SERVICE,
};

enum tw_frontend_kind {
    TW_FRONTEND_CLUSTER = 0,         /* a ClusterIP: internal traffic */
    TW_FRONTEND_NODE_PORT = 1 << 24, /* the other kinds: external traffic */
    TW_FRONTEND_EXTERNAL = 2 << 24,  /* of spec.externalIPs */
    TW_FRONTEND_BALANCER = 3 << 24,  /* of status.loadBalancer: source ranges apply */
};

/* Value of `vips`. */
enum tw_vip_kind {
    TW_VIP_BALANCER = 0, /* a load balancer: ports that are no frontends may be somebody else's */
    TW_VIP_CLUSTER,      /* a ClusterIP: it is good for its frontends and nothing else */
};

/* Key of `source_ranges`, a prefix tree: clients that may dial a service by its load balancer's address. The prefix
 * covers the service and as much of the address as the range has. */
struct tw_source_range {
    __u32 bits;
    __u32 service;
    struct tw_address address;
};
TW_LAYOUT(struct tw_source_range, 24);

enum { TW_SOURCE_RANGE_BITS = 32 }; /* bits of the prefix before the address */

/* Key of `affinity`: a client of a service with session affinity. What dials through its socket is known by its network
 * namespace, since it has no address yet. */
struct tw_client {
    struct tw_address address;
    __u32 service;
    __u32 unused;
};
TW_LAYOUT(struct tw_client, 24);

/* Where the client's last connection went, and when. */
struct tw_affinity {
    __u32 backend;  /* index into `backends` */
    __u32 position; /* in the range of slots that it was chosen from */
    __u64 seconds;  /* of CLOCK_MONOTONIC */
};
TW_LAYOUT(struct tw_affinity, 16);

/* Entry of `slots`: two indices into `backends`, since the kernel gives no array entry less than 8 bytes. */
struct tw_slots {
    __u32 backend[2];
};
TW_LAYOUT(struct tw_slots, 8);

/* A range of slots: backend[at % 2] of entry at / 2, from `base` on. Read and written as one aligned 8-byte word: this
 * store is how a service's backends change. */
struct tw_range {
    __u32 base;
    __u32 count;
} __attribute__((aligned(8)));
TW_LAYOUT(struct tw_range, 8);

/* One Service port, row of `services`; row 0 is never used, so that 0 can say "no service". */
struct tw_service {
    struct tw_range cluster; /* backends anywhere */
    struct tw_range local;   /* backends on this node, for traffic policy Local */
    __u32 flags;             /* enum tw_service_flag */
    __u32 affinity_seconds;  /* 0: no session affinity */
};
TW_LAYOUT(struct tw_service, 24);
TW_OFFSET(struct tw_service, local, 8);

enum tw_service_flag {
    TW_SERVICE_USED = 1U << 0,
    TW_SERVICE_INTERNAL_LOCAL = 1U << 1, /* internalTrafficPolicy: Local */
    TW_SERVICE_EXTERNAL_LOCAL = 1U << 2, /* externalTrafficPolicy: Local */
    TW_SERVICE_FILTERED = 1U << 3,       /* source ranges apply to its load balancer's addresses */
};

/* Row of `backends`: an address that serves. Address and port do not change while a slot names it. */
struct tw_backend {
    struct tw_address address;
    __u16 port;  /* network byte order */
    __u16 flags; /* enum tw_backend_flag */
    __u32 unused;
};
TW_LAYOUT(struct tw_backend, 24);

enum tw_backend_flag {
    TW_BACKEND_SERVING = 1U << 0, /* some service names it; without it, sockets that stuck to it choose again */
};

/* Row of `totals`, indexed by service id: what ended flows have carried, and all connections ever made. Traffic of a
 * live flow stands in its row; a reader adds the two. */
struct tw_totals {
    __u64 connections;
    __u64 packets; /* original direction and reply together */
    __u64 bytes;
};
TW_LAYOUT(struct tw_totals, 24);

/* What a socket was promised and what it really talks to (map `sockets`). */
struct tw_translation {
    struct tw_end frontend;
    struct tw_end backend;
    __u32 backend_index;
    __u32 service;
};
TW_LAYOUT(struct tw_translation, 56);

/* An unconnected UDP socket may talk to several services; older entries make room in turn. */
#define TW_SOCKET_TRANSLATIONS 8

struct tw_socket {
    __u32 next; /* entry that the next translation takes */
    __u32 unused;
    struct tw_translation translation[TW_SOCKET_TRANSLATIONS];
};
TW_LAYOUT(struct tw_socket, 456);

/* What the iterator `sockets_connected` says of a UDP socket that is connected to a backend: enough to end it. */
struct tw_connected {
    struct tw_end local;
    struct tw_end backend;
    __u64 cookie; /* by which the kernel tells the socket from a later one */
    __u32 service;
    __u32 v6; /* 1: the socket is one of IPv6, whatever the addresses are */
};
TW_LAYOUT(struct tw_connected, 64);
