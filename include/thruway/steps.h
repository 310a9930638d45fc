/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
#pragma once

#include <thruway/service.h>

/* What a dry run tells of the way of its packet: one record for each decision, in the order in which they were made.
 * A dry run is a second copy of the programs, on the same maps, with tw_config.dry set; it writes nothing but these. */

/* Every kind: identifier, name that users see, and what the record holds beside it. Append only. */
#define TW_STEPS_LIST(X)                                                                                               \
    X(TUPLE, "packet")      /* tuple: what the flow is looked up by */                                                 \
    X(FLOW, "flow")         /* result: enum tw_step_found; flow: what the row says, unless it is missing */            \
    X(SOURCE, "source")     /* number: the endpoint that sent, by the address that it has */                           \
    X(FRONTEND, "frontend") /* number: the service that the destination leads to */                                    \
    X(BACKEND, "backend")   /* backend: the chosen one, and the slot that named it */                                  \
    X(ROUTE, "route")       /* result: enum tw_step_route; number: the next hop's index */                             \
    X(SNAT, "snat")         /* tuple: with the address and port that stand for the client */                           \
    X(CREATE, "create")     /* flow: what would have been made */                                                      \
    X(DELIVER, "deliver")   /* result: enum tw_step_deliver; nexthop */                                                \
    X(DROP, "drop")         /* result: enum tw_drop; number: enum tw_hook */                                           \
    X(ANSWER, "answer")     /* result: the reason for an ICMP error, a reset or an ABORT; TW_PASS: an echo reply */

enum tw_step_kind {
    TW_STEP_NONE = 0,
#define X(id, name) TW_STEP_##id,
    TW_STEPS_LIST(X)
#undef X
};

enum tw_step_found {
    TW_STEP_MISSING,
    TW_STEP_FOUND,
    TW_STEP_STALE, /* an end has moved since the flow was judged: it is judged again */
};

/* What decided on the next hop. */
enum tw_step_route {
    TW_STEP_ROUTE_ENDPOINT, /* the address is a pod's of this node */
    TW_STEP_ROUTE_NODE,     /* the address is this node's own */
    TW_STEP_ROUTE_CIDR,     /* the address lies in the pod CIDR of a node */
    TW_STEP_ROUTE_KERNEL,   /* the kernel's routing */
};

enum tw_step_deliver {
    TW_STEP_STACK,     /* left to the host stack */
    TW_STEP_PEER,      /* into the pod, past the host's side of its interface */
    TW_STEP_REDIRECT,  /* out by a device, to a MAC that is known */
    TW_STEP_NEIGHBOUR, /* out by a device, to a neighbour that the kernel resolves */
};

struct tw_step_tuple {
    struct tw_end source;
    struct tw_end destination;
    __u8 protocol;
    __u8 unused[7];
};
TW_LAYOUT(struct tw_step_tuple, 56);

/* One direction of a flow. */
struct tw_step_flow {
    struct tw_end source; /* after the rewrite, as the destination */
    struct tw_end destination;
    __u32 next; /* next hop index */
    __u32 back;
    __u32 service; /* 0 for none */
    __u8 state;    /* enum tw_flow_state */
    __u8 flags;    /* enum tw_flow_flag */
    __u16 unused;
};
TW_LAYOUT(struct tw_step_flow, 64);

struct tw_step_backend {
    struct tw_end at;
    __u32 index; /* of `backends` */
    __u32 slot;  /* the chosen one of `slots` */
    struct tw_range range;
};
TW_LAYOUT(struct tw_step_backend, 40);

struct tw_step_nexthop {
    __u32 index;
    __u32 ifindex;
    __u16 mtu;
    __u8 mac[6]; /* zero: not known */
};
TW_LAYOUT(struct tw_step_nexthop, 16);

struct tw_step {
    __u32 kind; /* enum tw_step_kind, which says what of the rest there is */
    __u32 result;
    union {
        __u32 number;
        struct tw_step_tuple tuple;
        struct tw_step_flow flow;
        struct tw_step_backend backend;
        struct tw_step_nexthop nexthop;
    };
};
TW_LAYOUT(struct tw_step, 72);
TW_OFFSET(struct tw_step, flow, 8);

#define TW_STEPS 64U

/* The single value of map `steps`, which only the dry copy of the programs has. */
struct tw_steps {
    __u32 count;
    __u32 unused;
    struct tw_step step[TW_STEPS];
};
TW_LAYOUT(struct tw_steps, 8 + TW_STEPS * 72);
