/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
#pragma once

/* From the address that a client dialled to the backend that is to serve it. */

#include "maps.h"
#include "packet.h"
#include "steps.h"

struct chosen {
    u32 service;
    bool external; /* dialled by an address of the node, not by the ClusterIP */
};

/* The service behind an address and port; false if it is not a frontend. A NodePort is valid on each address of the
 * node and stands under the unspecified address of its family. Not inlined: the callers' stack is short. */
static __noinline bool service_find(const struct tw_address *address, u16 port, u8 protocol, struct chosen *chosen)
{
    struct tw_frontend key = {.address = *address, .port = port, .protocol = protocol};
    u32 *id = bpf_map_lookup_elem(&frontends, &key);

    chosen->external = false;
    if (!id && address_find(&node_addresses, address)) {
        key.address = address_is4(address) ? address_from4(0) : (struct tw_address){};
        id = bpf_map_lookup_elem(&frontends, &key);
        chosen->external = true;
    }
    if (!id)
        return false;
    chosen->service = *id;
    step_number(TW_STEP_FRONTEND, 0, *id);
    return true;
}

/* True for an echo request to an address that only frontends have: nobody is there to answer it but the datapath. */
inline_always bool service_pinged(const struct packet *p)
{
    if (p->icmp_type != (p->tuple.protocol == IPPROTO_ICMP ? ICMP4_ECHO : ICMP6_ECHO))
        return false;
    return address_find(&vips, &p->tuple.destination) && !address_find(&node_addresses, &p->tuple.destination);
}

/* The index of a backend of the service, at random (multiply-shift, no modulo), and the backend; null if the service
 * has none. */
inline_always const struct tw_backend *service_pick(u32 service, u32 *index)
{
    struct tw_service *row = bpf_map_lookup_elem(&services, &service);
    const struct tw_backend *backend;
    struct tw_range range;
    struct tw_slots *pair;
    u32 at, entry;
    u64 word;

    if (!row)
        return 0;
    word = READ_ONCE(*(u64 *)&row->cluster); /* base and count belong together */
    range.base = word;
    range.count = word >> 32;
    if (!range.count)
        return 0;
    at = range.base + (((u64)bpf_get_prandom_u32() * range.count) >> 32);
    entry = at / 2;
    pair = bpf_map_lookup_elem(&slots, &entry);
    if (!pair)
        return 0;
    *index = READ_ONCE(pair->backend[at % 2]);
    backend = bpf_map_lookup_elem(&backends, index);
    if (backend)
        step_backend(backend, *index, at, range);
    return backend;
}

inline_always void service_count_connection(u32 service)
{
    struct tw_totals *total = bpf_map_lookup_elem(&totals, &service);

    if (total && !config.dry)
        __sync_fetch_and_add(&total->connections, 1);
}
