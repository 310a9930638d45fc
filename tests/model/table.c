/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* bpf/lib/flow.h itself, unchanged, for userspace. Compiled once for the model, where the compiler announces every
 * access to memory (see machine.cpp), and once as it is, for real CPUs. */

#include "tests/shim/prelude.h"

#ifdef TABLE_IN_MODEL
/* The machine cannot see from the instrumentation whether the result of an atomic is used, which is what makes it a
 * barrier. */
void model_full_barrier(void);
#undef ordered
#define ordered(operation)                                                                                             \
    ({                                                                                                                 \
        typeof(operation) old;                                                                                         \
        model_full_barrier();                                                                                          \
        old = operation;                                                                                               \
        model_full_barrier();                                                                                          \
        old;                                                                                                           \
    })
#endif

/* The previous table gets its room from the loader; here it is as large as the current one may be. */
#define previous4 no_previous4
#define previous6 no_previous6
#include "bpf/lib/maps.h"
#undef previous4
#undef previous6

static typeof(flows4) previous4;
static typeof(flows6) previous6;

#include "table.h"

#undef TW_FLOW_WINDOW
#define TW_FLOW_WINDOW (u32) table_window

#include "bpf/gc.bpf.c"

/* Flow N: TCP, client 10.0.0.n dials 10.96.0.s:80 from port 1000 + n and is sent to 10.1.0.n:8080 + n, where n is the
 * low byte of N and s the next one. So flows that differ in s only have one reply tuple. */
static struct tuple original(u32 number, bool v6)
{
    struct tuple t = {.destination_port = bpf_htons(80), .protocol = IPPROTO_TCP};
    u32 n = number & 0xff, s = number >> 8;

    t.source_port = bpf_htons(1000 + n);
    t.source = v6 ? (struct tw_address){{1, n, 2, n}} : address_from4(bpf_htonl(0x0a000000 + n));
    t.destination = v6 ? (struct tw_address){{3, s, 5, s}} : address_from4(bpf_htonl(0x0a600000 + s));
    return t;
}

static struct tuple rewritten(u32 number, bool v6)
{
    struct tuple t = original(number, v6);
    u32 n = number & 0xff;

    t.destination = v6 ? (struct tw_address){{7, n, 8, n}} : address_from4(bpf_htonl(0x0a010000 + n));
    t.destination_port = bpf_htons(8080 + n);
    return t;
}

static struct tuple key_of(u32 number, bool reply, bool v6)
{
    struct tuple to = rewritten(number, v6), t;

    if (!reply)
        return original(number, v6);
    tuple_reverse(&to, &t);
    return t;
}

static struct tuple rewrite_of(u32 number, bool reply, bool v6)
{
    struct tuple from = original(number, v6), t;

    if (!reply)
        return rewritten(number, v6);
    tuple_reverse(&from, &t);
    return t;
}

static bool tuple_equal(const struct tuple *a, const struct tuple *b)
{
    return address_equal(&a->source, &b->source) && address_equal(&a->destination, &b->destination) &&
           a->source_port == b->source_port && a->destination_port == b->destination_port && a->protocol == b->protocol;
}

struct seen table_find(__u32 number, bool reply, __u16 now, bool v6)
{
    struct tuple key = key_of(number, reply, v6), its_key, its_rewrite;
    struct tw_flow *row = 0;
    struct flow f = {};
    int result = v6 ? flow_find(&key, &f, &row, now, true) : flow_find(&key, &f, &row, now, false);

    its_key = key_of(f.service, reply, v6);
    its_rewrite = rewrite_of(f.service, reply, v6);

    return (struct seen){.result = result,
                         .place = f.place,
                         .word = f.word,
                         .next = f.next,
                         .back = f.back,
                         .whole = tuple_equal(&key, &its_key) && tuple_equal(&f.to, &its_rewrite) &&
                                  f.flags == (TW_FLOW_TRANSLATED | (reply ? TW_FLOW_REPLY : 0))};
}

bool table_stands(__u32 number, bool reply, __u16 now, bool v6)
{
    struct tuple key = key_of(number, reply, v6);

    return flow_stands(&key, now, v6);
}

int table_create(__u32 number, __u8 state, __u32 ends, __u16 now, bool v6)
{
    struct tuple from = original(number, v6);
    struct flow f = {.to = rewritten(number, v6),
                     .next = ends + 1,
                     .back = ends,
                     .service = number,
                     .flags = TW_FLOW_TRANSLATED,
                     .state = state,
                     .now = now};

    return flow_create(&from, &f, v6);
}

void table_end(__u32 place, __u32 version, bool v6)
{
    flow_end(place, version, v6);
}

void table_advance(__u32 place, __u32 version, __u8 tcp_flags, bool v6)
{
    flow_advance(place, version, tcp_flags, v6);
}

void table_repoint(__u32 place, __u32 version, __u32 ends, bool reply, bool v6)
{
    flow_repoint(place, version, reply ? ends : ends + 1, reply ? ends + 1 : ends, v6);
}

/* Counters race by design, and an update may be lost: nothing that tsan should tell. */
__attribute__((no_sanitize("thread"))) void table_touch(const struct seen *seen, __u16 now, bool v6)
{
    struct tw_flow *row = flow_row(seen->place, v6);

    if (row)
        flow_touch(row, 1, 100, now);
}

bool table_has_key(const struct tw_flow *row, __u32 number, bool reply, bool v6)
{
    struct tuple key = key_of(number, reply, v6);

    return row_has_key(row, &key, v6);
}

void table_gc(__u32 buckets, __u16 now, bool previous, bool v6)
{
    struct tw_gc walk = {
        .count = buckets, .table = previous ? TW_FLOW_PREVIOUS : 0, .now = now, .moves = previous, .v6 = v6};

    gc(&walk);
}

void table_allocate(void)
{
    const u32 first = 0;

    bpf_map_lookup_elem(&layout, &first);
    bpf_map_lookup_elem(&totals, &first);
    bpf_map_lookup_elem(&flow_events, &first);
    bpf_map_lookup_elem(&generations, &first);
    bpf_map_lookup_elem(&nexthops, &first);
    bpf_map_lookup_elem(&purges, &first);
    bpf_map_lookup_elem(&scratch, &first);
    bpf_map_lookup_elem(&gc_scratch, &first);
}

void *table_memory(bool previous, bool v6)
{
    const u32 first = 0;

    if (previous)
        return v6 ? bpf_map_lookup_elem(&previous6, &first) : bpf_map_lookup_elem(&previous4, &first);
    return v6 ? bpf_map_lookup_elem(&flows6, &first) : bpf_map_lookup_elem(&flows4, &first);
}

void table_exchange(void)
{
    struct tw_bucket4 *current4 = flows4.value;
    struct tw_bucket6 *current6 = flows6.value;

    flows4.value = previous4.value;
    flows6.value = previous6.value;
    previous4.value = current4;
    previous6.value = current6;
}

__u32 *table_phase(void)
{
    struct tw_layout *now = bpf_map_lookup_elem(&layout, &(u32){0});

    return &now->phase;
}

void table_set_phase(__u32 phase)
{
    *(volatile __u32 *)table_phase() = phase;
}

const struct shim_map *shim_map_at(const void *variable)
{
    (void)variable;
    return 0; /* nothing here has only a map's address */
}
