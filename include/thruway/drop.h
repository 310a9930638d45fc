/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
#pragma once

#include <thruway/types.h>

/* Every way in which the datapath discards a packet: identifier, name that users see, what it means. The order is
 * part of the pinned layout: append only. */
#define TW_DROP_REASONS(X)                                                                                             \
    X(MALFORMED, "malformed", "a header is cut short or contradicts itself")                                           \
    X(BAD_SOURCE, "bad_source", "a pod sent from an address that is not its own")                                      \
    X(SPOOFED_SOURCE, "spoofed_source", "a packet from outside claims an address of this node")                        \
    X(UNKNOWN_PROTOCOL, "unknown_protocol", "neither TCP, UDP, SCTP, ICMP nor ICMPv6")                                 \
    X(FRAGMENT, "fragment", "a fragment whose first one was not seen")                                                 \
    X(NO_BACKEND, "no_backend", "the service has no backend to send to")                                               \
    X(NO_ENDPOINT, "no_endpoint", "the address is of this node's pod range, but no pod has it")                        \
    X(FLOWS_FULL, "flows_full", "every flow row that could hold the new flow is in live use")                          \
    X(FLOW_BUSY, "flow_busy", "another CPU kept the flow's bucket for too long")                                       \
    X(PORTS_EXHAUSTED, "ports_exhausted", "no free source port was found for SNAT")                                    \
    X(NO_SOURCE, "no_source", "the way out has no address of the packet's family to SNAT to")                          \
    X(HOPS, "hops_exceeded", "its hop count (TTL) ran out on this node")                                               \
    X(REWRITE_FAILED, "rewrite_failed", "the kernel refused to change the packet")                                     \
    X(UNSOLICITED_ERROR, "unsolicited_error", "an ICMP error about a packet that no flow has sent")                    \
    X(TOO_BIG, "too_big", "larger than the MTU of its next hop, and not to be fragmented")                             \
    X(BAD_FRAGMENT, "bad_fragment", "a fragment that would overwrite the headers in the first one")                    \
    X(VLAN, "vlan", "a pod sent a frame with a VLAN tag")                                                              \
    X(NO_CONNECTION, "no_connection", "TCP to a service, of a connection that nobody knows: reset")                    \
    X(NO_LOCAL_BACKEND, "no_local_backend", "the service's traffic policy is Local, and no backend is on this node")   \
    X(SOURCE_RANGE, "source_range", "the client is in none of the service's loadBalancerSourceRanges")                 \
    X(NO_SERVICE, "no_service", "to a ClusterIP, but not to a port that its service has")                              \
    X(UNALLOCATED, "unallocated", "to an address of the cluster's Service range that no service has")

enum tw_drop {
    TW_PASS = 0,
#define X(id, name, meaning) TW_DROP_##id,
    TW_DROP_REASONS(X)
#undef X
        TW_DROPS, /* how many there are, with TW_PASS */
};

/* Where a packet was when it was dropped. */
#define TW_HOOKS_LIST(X)                                                                                               \
    X(FROM_POD, "from_pod")                                                                                            \
    X(TO_POD, "to_pod")                                                                                                \
    X(FROM_NET, "from_net")                                                                                            \
    X(TO_NET, "to_net")                                                                                                \
    X(XDP_NET, "xdp_net")

enum tw_hook {
#define X(id, name) TW_HOOK_##id,
    TW_HOOKS_LIST(X)
#undef X
        TW_HOOKS,
};

/* Row of `drops` (per CPU), index reason * TW_HOOKS + hook. */
struct tw_count {
    __u64 packets;
    __u64 bytes;
};
TW_LAYOUT(struct tw_count, 16);
