/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
#pragma once

/* What a dry run tells of its way (include/thruway/steps.h). Each decision calls one of these functions, in one line.
 * In the programs that see traffic `config.dry` is 0, which the verifier knows: it takes all of this out, and map
 * `steps` is not even made. */

#include "config.h"
#include "maps.h"
#include "packet.h"

#include <thruway/steps.h>

struct {
    __uint(type, BPF_MAP_TYPE_ARRAY);
    __uint(map_flags, BPF_F_MMAPABLE);
    __uint(max_entries, 1);
    __type(key, u32);
    __type(value, struct tw_steps);
} MAP(steps);

/* The next record, which was zero when the run began; null if there is room for no more. */
static __noinline struct tw_step *step_next(void)
{
    struct tw_steps *all = bpf_map_lookup_elem(&steps, &(u32){0});

    if (!all || all->count >= TW_STEPS)
        return 0;
    return &all->step[all->count++ % TW_STEPS];
}

/* A record to fill in; null outside of dry runs. */
inline_always struct tw_step *step(enum tw_step_kind kind, u32 result)
{
    struct tw_step *s = unlikely(config.dry) ? step_next() : 0;

    if (s) {
        s->kind = kind;
        s->result = result;
    }
    return s;
}

inline_always void step_number(enum tw_step_kind kind, u32 result, u32 number)
{
    struct tw_step *s = step(kind, result);

    if (s)
        s->number = number;
}

inline_always void step_ends(struct tw_end *source, struct tw_end *destination, const struct tuple *t)
{
    source->address = t->source;
    source->port = t->source_port;
    destination->address = t->destination;
    destination->port = t->destination_port;
}

inline_always void step_tuple(enum tw_step_kind kind, const struct tuple *t)
{
    struct tw_step *s = step(kind, 0);

    if (s) {
        step_ends(&s->tuple.source, &s->tuple.destination, t);
        s->tuple.protocol = t->protocol;
    }
}

inline_always void step_backend(u32 index, u32 slot, struct tw_range range)
{
    struct tw_step *s = step(TW_STEP_BACKEND, 0);
    const struct tw_backend *backend = s ? bpf_map_lookup_elem(&backends, &index) : 0;

    if (backend) {
        s->backend.at.address = backend->address;
        s->backend.at.port = backend->port;
        s->backend.index = index;
        s->backend.slot = slot;
        s->backend.range = range;
    }
}

inline_always void step_deliver(enum tw_step_deliver by, u32 index, const struct tw_nexthop *nexthop)
{
    struct tw_step *s = step(TW_STEP_DELIVER, by);

    if (s) {
        s->nexthop.index = index;
        s->nexthop.ifindex = nexthop->link.ifindex;
        s->nexthop.mtu = nexthop->link.mtu;
        if (nexthop->to.flags & TW_NEXTHOP_RESOLVED)
            __builtin_memcpy(s->nexthop.mac, nexthop->to.mac, sizeof(s->nexthop.mac));
    }
}
