/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
#pragma once

/* From the address that a client dialled to the backend that is to serve it. */

#include "maps.h"
#include "packet.h"
#include "steps.h"

/* What a frontend leads to. */
struct chosen {
    u32 service;
    u32 kind;   /* enum tw_frontend_kind */
    bool local; /* traffic policy Local decided, see service_pick() */
};

/* The service behind an address and port; false if it is not a frontend. A NodePort is valid on some or all addresses
 * of the node and stands under the unspecified address of its family. Not inlined: the callers' stack is short. */
static __noinline bool service_find(const struct tw_address *address, u16 port, u8 protocol, struct chosen *chosen)
{
    struct tw_frontend key = {.address = *address, .port = port, .protocol = protocol};
    u32 *value = bpf_map_lookup_elem(&frontends, &key);

    if (!value && address_find(&node_port_addresses, address)) {
        key.address = address_is4(address) ? address_from4(0) : (struct tw_address){};
        value = bpf_map_lookup_elem(&frontends, &key);
    }
    if (!value)
        return false;
    chosen->service = *value & TW_FRONTEND_SERVICE;
    chosen->kind = *value & TW_FRONTEND_KIND;
    chosen->local = false;
    step_number(TW_STEP_FRONTEND, 0, chosen->service);
    return true;
}

/* True for an echo request to an address that only frontends have: nobody is there to answer it but the datapath. */
inline_always bool service_pinged(const struct packet *p)
{
    if (p->icmp_type != (p->tuple.protocol == IPPROTO_ICMP ? ICMP4_ECHO : ICMP6_ECHO))
        return false;
    return address_find(&vips, &p->tuple.destination) && !address_find(&node_addresses, &p->tuple.destination);
}

/* True for the first packet to a ClusterIP that is none of its frontends': nobody but its service is to have it, and
 * that has no such port (kube-proxy's `nftables` mode). */
inline_always bool service_missed(const struct packet *p)
{
    u32 *kind;

    if (!packet_opens(p) || p->tuple.protocol == IPPROTO_ICMP || p->tuple.protocol == IPPROTO_ICMPV6)
        return false;
    kind = address_find(&vips, &p->tuple.destination);
    return kind && *kind == TW_VIP_CLUSTER && !address_find(&node_addresses, &p->tuple.destination);
}

/* True for an address that the cluster takes for services, and that none of ours has. It may be one of another proxy's,
 * which the host's stack comes to; what leaves the node untranslated is for nobody (kube-proxy's `nftables` mode). */
inline_always bool service_unallocated(const struct tw_address *to)
{
    struct tw_cidr cidr = {.bits = 128, .word = {to->word[0], to->word[1], to->word[2], to->word[3]}};

    return bpf_map_lookup_elem(&service_cidrs, &cidr) && !address_find(&vips, to) && !address_find(&node_addresses, to);
}

/* Whether the client may dial the service by this frontend: loadBalancerSourceRanges count for the load balancer's
 * addresses only. */
__weak int service_admits(const struct chosen *chosen, const struct tw_address *client)
{
    struct tw_source_range key = {.bits = TW_SOURCE_RANGE_BITS + 128};
    struct tw_service *row;
    u32 service;

    if (!chosen || !client)
        return false;
    if (chosen->kind != TW_FRONTEND_BALANCER)
        return true;
    key.service = service = chosen->service;
    key.address = *client;
    row = bpf_map_lookup_elem(&services, &service);
    return !row || !(READ_ONCE(row->flags) & TW_SERVICE_FILTERED) || bpf_map_lookup_elem(&source_ranges, &key);
}

/* The backend that a slot names, an index into `backends`. */
inline_always bool slot_read(u32 at, u32 *backend)
{
    u32 entry = at / 2;
    struct tw_slots *pair = bpf_map_lookup_elem(&slots, &entry);

    if (!pair)
        return false;
    *backend = READ_ONCE(pair->backend[at % 2]);
    return true;
}

/* Less than, equal to or greater than 0, as the agent sorts backends: by address, then by port. */
inline_always int backend_compare(const struct tw_backend *a, const struct tw_backend *b)
{
    for (int i = 0; i < 4; i++) {
        u32 x = bpf_ntohl(a->address.word[i]), y = bpf_ntohl(b->address.word[i]);

        if (x != y)
            return x < y ? -1 : 1;
    }
    return (int)bpf_ntohs(a->port) - (int)bpf_ntohs(b->port);
}

enum { RANGE_STEPS = 24 }; /* halvings of the largest range */

/* True if a slot of the range names this backend: looked for where it was, and then by halves, since ranges are
 * sorted. */
__weak int range_has(u32 base, u32 count, u32 backend, u32 position)
{
    struct tw_backend *wanted = bpf_map_lookup_elem(&backends, &backend), *other;
    u32 low = 0, high = count, found;

    if (position < count && slot_read(base + position, &found) && found == backend)
        return true;
    for (int i = 0; wanted && i < RANGE_STEPS && low < high; i++) {
        u32 middle = low + (high - low) / 2;
        int order;

        if (!slot_read(base + middle, &found))
            return false;
        if (found == backend)
            return true;
        other = bpf_map_lookup_elem(&backends, &found);
        if (!other)
            return false;
        order = backend_compare(other, wanted);
        if (order < 0)
            low = middle + 1;
        else
            high = middle;
    }
    return false;
}

inline_always u64 affinity_now(void)
{
    return bpf_ktime_get_coarse_ns() / 1000000000;
}

/* The backend that the client's last connection went to, if that was not longer ago than the service says and it still
 * is one of the range. The connection under way is the client's last one from now on. */
inline_always bool affinity_recall(const struct tw_client *client, u32 timeout, struct tw_range range, u32 *backend)
{
    struct tw_affinity *last = bpf_map_lookup_elem(&affinity, client);
    u64 now = affinity_now();

    if (!last || now - last->seconds > timeout || !range_has(range.base, range.count, last->backend, last->position))
        return false;
    *backend = last->backend;
    if (!config.dry)
        last->seconds = now;
    return true;
}

inline_always void affinity_learn(const struct tw_client *client, u32 backend, u32 position)
{
    struct tw_affinity last = {.backend = backend, .position = position, .seconds = affinity_now()};

    if (!config.dry)
        bpf_map_update_elem(&affinity, client, &last, BPF_ANY);
}

/* Chooses the backend of a new connection: the one that the client had before, where the service has session affinity,
 * or one at random (multiply-shift, no modulo). `outside`: the client is neither a pod of this node nor the node
 * itself; only for such counts a Local policy for external traffic (kube-proxy's short-circuit). Without a backend to
 * choose the client is refused, or left without an answer if there are some on other nodes. */
static __noinline enum tw_drop service_pick(struct chosen *chosen, const struct tw_address *from, bool outside,
                                            u32 *backend)
{
    struct tw_client client = {.address = *from, .service = chosen->service};
    u32 service = chosen->service, flags, timeout, at;
    struct tw_service *row = bpf_map_lookup_elem(&services, &service);
    struct tw_range range;
    u64 word;

    if (!row)
        return TW_DROP_NO_BACKEND;
    flags = READ_ONCE(row->flags);
    chosen->local = chosen->kind == TW_FRONTEND_CLUSTER ? flags & TW_SERVICE_INTERNAL_LOCAL
                                                        : outside && flags & TW_SERVICE_EXTERNAL_LOCAL;
    word = chosen->local ? READ_ONCE(*(u64 *)&row->local) : READ_ONCE(*(u64 *)&row->cluster);
    range.base = word; /* base and count belong together */
    range.count = word >> 32;
    if (!range.count)
        return chosen->local && READ_ONCE(row->cluster.count) ? TW_DROP_NO_LOCAL_BACKEND : TW_DROP_NO_BACKEND;
    timeout = READ_ONCE(row->affinity_seconds);
    at = ((u64)bpf_get_prandom_u32() * range.count) >> 32;
    if (!timeout || !affinity_recall(&client, timeout, range, backend)) {
        if (!slot_read(range.base + at, backend))
            return TW_DROP_NO_BACKEND;
        if (timeout)
            affinity_learn(&client, *backend, at);
    }
    step_backend(*backend, range.base + at, range);
    return TW_PASS;
}

inline_always void service_count_connection(u32 service)
{
    struct tw_totals *total = bpf_map_lookup_elem(&totals, &service);

    if (total && !config.dry)
        __sync_fetch_and_add(&total->connections, 1);
}
