/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
#pragma once

/* The flow table: find, create, advance, end. Everything else knows it only by these.
 *
 * Rows lie in fixed buckets of TW_FLOW_WAYS in an array; a key has one candidate bucket. Flows for which there is no
 * room in it lie in the spill area behind the buckets, where only those look whose bucket says so (TW_FLOW_SPILLED).
 * Every row has a place, whichever area it is in.
 *
 * Who changes what, and how:
 *
 *  1. Only who holds the lock of the key's bucket (TW_FLOW_LOCK in its first row) puts the key into a row, there or in
 * the spill area. So no key can appear twice, and its holder may read the key of a row of this bucket even if the row
 * is claimed: a key never changes while the row is in use. A row of another bucket's, in the spill area, may change
 * under the reader; what is read of it then is another flow's key or a mixture, and neither is taken for ours.
 *  2. Whoever changes a row in place (to fill it, to free it, to point it elsewhere) first claims it: by
 * compare-exchange of `word` against the very version and state that the decision rests on. It then writes, and
 * publishes the row by an atomic add that moves the version.
 *  3. Readers take no lock. They read `word`, match the key and copy what they need, and read `word` again: a version
 * that has moved, or a claim, means that the row was being changed, and counts as a miss.
 *  4. A miss goes the slow way: it takes the bucket's lock and looks again before it makes anything. What makes nothing
 * (TCP that does not open a connection) asks flow_stands() before it is taken for a packet of nobody's.
 *  5. Both rows of a flow are made together: the reply row stays claimed until the original stands, and is published
 * first. They end together: both are claimed before either is freed, the reply row first. So a lone half is never seen,
 * but for a row whose maker or ender was cut short in the middle: gc repairs that.
 *  6. `last_seen` and the counters are written by plain stores: an update that is lost costs a packet in a counter.
 *
 * Why a reader that saw a version sees the row of that version, and nothing newer. The writer: compare-exchange of
 * `word` (C), stores to the row (S), add to `word` (A). The reader: load of `word` (L1), loads of the row (R), load of
 * `word` (L2).
 *
 *  - If L1 sees A, then R must see S: S before A is kept since A is a full barrier; L1 before R is kept by
 * load_barrier().
 *  - If any R sees an S of a later writer, L2 must see that writer's C or what came after: C before S is kept since C
 * is a full barrier; R before L2 is kept by load_barrier(). C changes the state, A the version: L2 differs from L1.
 *
 * x86: loads are not reordered with loads nor stores with stores (Intel SDM 3A, 9.2.2), and locked instructions are
 * full barriers: load_barrier() only has to hold the compiler. arm64: both may be reordered; READ_ONCE is a plain load
 * in the BPF JITs, and BPF has an acquire load only from Linux 6.15 on. What it has everywhere are atomics that return
 * the old value: the JIT makes them CASAL and LDADDAL, or LDXR/STLXR and DMB ISH, and both are full barriers
 * (arch/arm64/net/bpf_jit_comp.c; Documentation/memory-barriers.txt, "value-returning atomics"). So A is one
 * (`ordered`), and load_barrier() is one on a word of the stack, where the constant `loads_reorder` says that the CPU
 * needs it.
 *
 * The lock is taken by compare-exchange and given back by an atomic and, both ordered: what its holder wrote, the next
 * one sees.
 *
 * While the table changes its size or layout there are two: the current and the previous one, which rows lie in until
 * gc has moved them. The word `phase` says which one new flows are made in. A key is put into either only by who holds
 * its buckets' locks in both and has found it in neither; a flow that gc moves is found in the current table before it
 * ends in the previous one, and readers look in this order. Without a previous table all of that is dead code.
 *
 * What a packet of an established flow needs is inlined, with the family a constant. The rest works on places (bucket *
 * TW_FLOW_WAYS + way) with the family a variable, in global functions, which the verifier walks once and not per call.
 */

#include "config.h"
#include "maps.h"
#include "packet.h"
#include "steps.h"

/* What a packet needs of its row, copied; also what a flow to be made is to be like. */
struct flow {
    struct tuple to; /* the packet's tuple after the rewrite */
    u32 next;
    u32 back;
    u32 judged;
    u32 service;
    u32 word;
    u32 place;
    u8 flags;
    u8 state; /* of a flow to be made */
    u16 now;
};

enum flow_result {
    FLOW_FOUND,
    FLOW_STALE, /* found, but an end has moved since it was judged */
    FLOW_MISSING,
    FLOW_CREATED,
    FLOW_EXISTS, /* another CPU was quicker: find it */
    FLOW_TAKEN,  /* the reply tuple belongs to another flow */
    FLOW_BUSY,
    FLOW_FULL,
};

enum { FLOW_FINS = TW_FLOW_FIN_ORIGINAL | TW_FLOW_FIN_REPLY };

/* Now, in ticks. Of all clocks this one alone costs no call: the JIT makes a load of it. */
inline_always u32 tick_now(void)
{
    return (bpf_jiffies64() * config.jiffy + config.clock) >> TW_CLOCK_SHIFT;
}

inline_always u16 flow_now(void)
{
    return tick_now();
}

inline_always u32 flow_state(u32 word)
{
    return word & TW_FLOW_STATE;
}

/* Loads on one side of it happen before loads on the other. */
inline_always void load_barrier(void)
{
    u32 nothing = 0;

    compiler_barrier();
    if (config.loads_reorder)
        ordered(__sync_fetch_and_add(&nothing, 0));
}

inline_always void flow_event(enum tw_flow_event event)
{
    u64 *count = bpf_map_lookup_elem(&flow_events, &(u32){event});

    if (count && !config.dry)
        __sync_fetch_and_add(count, 1); /* gc may be interrupted by a packet */
}

/* --- places --- */

inline_always u64 flow_mix(u64 hash, u64 value, u64 factor)
{
    hash = (hash ^ value) * factor;
    return hash ^ (hash >> 32);
}

/* Multiplications carry entropy upwards only, and what differs between neighbours (the last byte of an address, the low
 * byte of a port) lies high, all being in network byte order. So addresses and ports are multiplied each by itself
 * before they meet, or clients with neighbouring addresses and equal ports would share buckets; only then is the upper
 * half folded down and multiplied once more. The upper half of that is the hash. */
inline_always u64 flow_mix4(u32 source, u32 destination)
{
    return (config.flow_seed ^ ((u64)source << 32 | destination)) * 0x9e3779b97f4a7c15;
}

inline_always u64 flow_mix6(const struct tw_address *source, const struct tw_address *destination)
{
    u64 hash = flow_mix(config.flow_seed, address_half(source, 0), 0x9e3779b97f4a7c15);

    hash = flow_mix(hash, address_half(source, 1), 0xbf58476d1ce4e5b9);
    hash = flow_mix(hash, address_half(destination, 0), 0x94d049bb133111eb);
    return (hash ^ address_half(destination, 1)) * 0x9e3779b97f4a7c15;
}

inline_always u64 flow_mix_ports(u64 hash, u16 source_port, u16 destination_port, u8 protocol)
{
    u64 ports = (u64)protocol << 32 | (u32)source_port << 16 | destination_port;

    hash += ports * 0xbf58476d1ce4e5b9;
    hash ^= hash >> 32;
    return (hash * 0xd6e8feb86659fd93) >> 32;
}

inline_always u64 flow_mix_addresses(const struct tuple *t, const bool v6)
{
    return v6 ? flow_mix6(&t->source, &t->destination) : flow_mix4(t->source.word[3], t->destination.word[3]);
}

inline_always u32 flow_hash(const struct tuple *t, const bool v6)
{
    return flow_mix_ports(flow_mix_addresses(t, v6), t->source_port, t->destination_port, t->protocol);
}

/* The hash by which a table places its rows. Layout version 1, which had no spill area, folded the addresses down
 * first and laid the ports over them as they were. */
inline_always u32 flow_hash_in(const struct tuple *t, u32 table, const bool v6)
{
    u64 ports = (u64)t->protocol << 32 | (u32)t->source_port << 16 | t->destination_port, hash;

    if (!table || config.previous_window)
        return flow_hash(t, v6);
    hash = flow_mix_addresses(t, v6);
    hash ^= hash >> 32;
    return ((hash ^ ports) * 0xd6e8feb86659fd93) >> 32;
}

/* What tells the tables apart. Bucket numbers are taken from above the bits that choose a way. */
inline_always u32 flow_mask(u32 table)
{
    return config.previous_mask && table ? config.previous_mask : config.flow_mask;
}

inline_always u32 flow_home(u32 hash, u32 table)
{
    return hash / TW_FLOW_WAYS & flow_mask(table);
}

/* The ways of a bucket in the order of preference of a hash: a flow mostly lies in its first, so that finding it costs
 * one cache line. */
inline_always u32 flow_place(u32 hash, u32 nth, u32 table)
{
    return (flow_home(hash, table) * TW_FLOW_WAYS + ((hash ^ nth) & (TW_FLOW_WAYS - 1))) | table;
}

/* Rows that a flow may lie in beside its bucket: of the spill area, which begins behind the last bucket. */
inline_always u32 flow_window(u32 table)
{
    return config.previous_mask && table ? config.previous_window : TW_FLOW_WINDOW;
}

inline_always u32 flow_spill_place(u32 hash, u32 nth, u32 table)
{
    u32 mask = flow_mask(table);

    return ((mask + 1) * TW_FLOW_WAYS + ((flow_home(hash, table) + nth) & mask)) | table;
}

/* All places that a flow may lie in: TW_FLOW_WAYS + flow_window(). */
inline_always u32 flow_candidate(u32 hash, u32 nth, u32 table)
{
    return nth < TW_FLOW_WAYS ? flow_place(hash, nth, table) : flow_spill_place(hash, nth - TW_FLOW_WAYS, table);
}

inline_always void *flow_bucket(u32 place, const bool v6)
{
    u32 index = (place & ~TW_FLOW_PREVIOUS) / TW_FLOW_WAYS;

    if (config.previous_mask && unlikely(place & TW_FLOW_PREVIOUS)) {
        if (v6)
            return bpf_map_lookup_elem(&previous6, &index);
        return bpf_map_lookup_elem(&previous4, &index);
    }
    if (v6)
        return bpf_map_lookup_elem(&flows6, &index);
    return bpf_map_lookup_elem(&flows4, &index);
}

/* The mask stands where the verifier sees it last: up to Linux 6.9 it knows nothing of the result of an exclusive or,
 * and the compiler would mask before that. */
inline_always struct tw_flow *flow_way(void *bucket, u32 place, const bool v6)
{
    u64 way = masked(place, TW_FLOW_WAYS - 1);

    if (v6)
        return &((struct tw_bucket6 *)bucket)->row[way].head;
    return &((struct tw_bucket4 *)bucket)->row[way].head;
}

inline_always struct tw_flow *flow_row(u32 place, const bool v6)
{
    void *bucket = flow_bucket(place, v6);

    return bucket ? flow_way(bucket, place, v6) : 0;
}

/* --- rows --- */

inline_always bool row_has_key(const struct tw_flow *row, const struct tuple *t, const bool v6)
{
    if (READ_ONCE(row->source_port) != t->source_port || READ_ONCE(row->destination_port) != t->destination_port ||
        READ_ONCE(row->protocol) != t->protocol)
        return false;
    if (v6) {
        const struct tw_flow6 *row6 = (const struct tw_flow6 *)row;
        return address_equal(&row6->source, &t->source) && address_equal(&row6->destination, &t->destination);
    }
    const struct tw_flow4 *row4 = (const struct tw_flow4 *)row;
    return READ_ONCE(row4->source) == t->source.word[3] && READ_ONCE(row4->destination) == t->destination.word[3];
}

inline_always void row_get_key(const struct tw_flow *row, struct tuple *t, const bool v6)
{
    t->source_port = row->source_port;
    t->destination_port = row->destination_port;
    t->protocol = row->protocol;
    if (v6) {
        t->source = ((const struct tw_flow6 *)row)->source;
        t->destination = ((const struct tw_flow6 *)row)->destination;
    } else {
        t->source = address_from4(((const struct tw_flow4 *)row)->source);
        t->destination = address_from4(((const struct tw_flow4 *)row)->destination);
    }
}

inline_always void row_get_rewrite(const struct tw_flow *row, struct tuple *t, const bool v6)
{
    t->source_port = row->new_source_port;
    t->destination_port = row->new_destination_port;
    t->protocol = row->protocol;
    if (v6) {
        t->source = ((const struct tw_flow6 *)row)->new_source;
        t->destination = ((const struct tw_flow6 *)row)->new_destination;
    } else {
        t->source = address_from4(((const struct tw_flow4 *)row)->new_source);
        t->destination = address_from4(((const struct tw_flow4 *)row)->new_destination);
    }
}

inline_always bool row_has_rewrite(const struct tw_flow *row, const struct tuple *t, const bool v6)
{
    if (row->new_source_port != t->source_port || row->new_destination_port != t->destination_port)
        return false;
    if (v6) {
        const struct tw_flow6 *row6 = (const struct tw_flow6 *)row;
        return address_equal(&row6->new_source, &t->source) && address_equal(&row6->new_destination, &t->destination);
    }
    const struct tw_flow4 *row4 = (const struct tw_flow4 *)row;
    return row4->new_source == t->source.word[3] && row4->new_destination == t->destination.word[3];
}

/* Takes the row from everybody else, unless it has been claimed, or has another version or state than `*word` says.
 * `*word` becomes what was claimed: lock and FIN bits may have changed since, and each change costs one more try. */
inline_always bool row_claim(struct tw_flow *row, u32 *word)
{
    for (int i = 0; i < 16; i++) {
        u32 before = READ_ONCE(row->word);
        u32 claimed = (before & ~TW_FLOW_STATE) | TW_FLOW_CLAIMED;

        if ((before ^ *word) & (TW_FLOW_VERSION | TW_FLOW_STATE) || flow_state(before) == TW_FLOW_CLAIMED)
            return false;
        if (__sync_val_compare_and_swap(&row->word, before, claimed) == before) {
            *word = before;
            return true;
        }
    }
    return false;
}

/* Ends a claim: the row gets a new version, and the state and FIN bits of `word`. While a row is claimed nobody else
 * changes more of its word than the bits that are the bucket's, and adding the difference leaves those as they are. */
inline_always void row_publish(struct tw_flow *row, u32 word)
{
    u32 before = READ_ONCE(row->word) & (TW_FLOW_VERSION | TW_FLOW_STATE | FLOW_FINS);
    u32 after = ((before & TW_FLOW_VERSION) + TW_FLOW_VERSION_STEP) | (word & (TW_FLOW_STATE | FLOW_FINS));

    ordered(__sync_fetch_and_add(&row->word, after - before));
}

/* Idle time after which a flow with this word may be forgotten, in ticks. SCTP is like UDP here: associations send
 * heartbeats every 30 s (RFC 9260, section 16), also after an ABORT that nobody believed. A connection for which only a
 * RST speaks may go on as well: its receiver says nothing to one out of its window (RFC 9293 section 3.10.7.4). */
inline_always u32 flow_patience(u32 word, u8 protocol)
{
    if (protocol == IPPROTO_ICMP || protocol == IPPROTO_ICMPV6)
        return config.icmp;
    switch (flow_state(word)) {
    case TW_FLOW_HALF_OPEN:
    case TW_FLOW_ANSWERED:
        return config.tcp_half_open;
    case TW_FLOW_CLOSING:
        if (protocol != IPPROTO_TCP)
            return config.udp_two_way;
        return (word & FLOW_FINS) == FLOW_FINS ? config.tcp_closing : config.tcp_half_open;
    case TW_FLOW_ONE_WAY:
        return config.udp_one_way;
    default:
        return protocol == IPPROTO_TCP ? config.tcp_established : config.udp_two_way;
    }
}

/* A clock that was read before another CPU's ticked is behind: by a tick in a packet, by more in a gc that was kept
 * waiting. What was seen after it is of no age. */
inline_always u16 row_age(const struct tw_flow *row, u16 now)
{
    u16 age = now - READ_ONCE(row->last_seen);

    return age >= 0xff00 ? 0 : age;
}

inline_always bool row_idle(const struct tw_flow *row, u32 word, u16 now)
{
    u16 age = row_age(row, now);

    return unlikely(age) && age > flow_patience(word, row->protocol);
}

/* --- find --- */

inline_always u32 flow_generation(u32 next, u32 back)
{
    u32 *a = bpf_map_lookup_elem(&generations, &next);
    u32 *b = bpf_map_lookup_elem(&generations, &back);

    return (a ? READ_ONCE(*a) : 0) + (b ? READ_ONCE(*b) : 0);
}

/* Copies the row if it is in use, has this key, and nobody has changed it meanwhile. */
inline_always bool row_read(const struct tw_flow *row, const struct tuple *t, struct flow *f, const bool v6)
{
    u32 word = READ_ONCE(row->word), after;

    if (flow_state(word) <= TW_FLOW_CLAIMED)
        return false;
    load_barrier();
    if (!row_has_key(row, t, v6))
        return false;
    row_get_rewrite(row, &f->to, v6);
    f->next = READ_ONCE(row->next);
    f->back = READ_ONCE(row->back);
    f->judged = READ_ONCE(row->judged);
    f->service = READ_ONCE(row->service);
    f->flags = READ_ONCE(row->flags);
    f->word = word;
    load_barrier();
    after = READ_ONCE(row->word);
    return !((after ^ word) & TW_FLOW_VERSION) && flow_state(after) != TW_FLOW_CLAIMED;
}

inline_always int row_match_in(u32 place, const struct tuple *t, struct flow *f, const bool v6)
{
    struct tw_flow *row = flow_row(place, v6);

    if (!row || !t || !f || !row_read(row, t, f, v6))
        return false;
    f->place = place;
    return true;
}

__weak int row_match4(u32 place, const struct tuple *t, struct flow *f)
{
    return row_match_in(place, t, f, false);
}

__weak int row_match6(u32 place, const struct tuple *t, struct flow *f)
{
    return row_match_in(place, t, f, true);
}

inline_always int flow_search(const struct tuple *t, struct flow *f, u32 hash, const bool v6)
{
    if (!t || !f)
        return false;
#pragma clang loop unroll(disable)
    for (u32 i = 0; i < TW_FLOW_WINDOW; i++) {
        u32 place = flow_spill_place(hash, i, 0);

        if (v6 ? row_match6(place, t, f) : row_match4(place, t, f))
            return true;
    }
    if (!config.previous_mask)
        return false;
    hash = flow_hash_in(t, TW_FLOW_PREVIOUS, v6);
#pragma clang loop unroll(disable)
    for (u32 i = 0; i < TW_FLOW_WAYS + config.previous_window; i++) {
        u32 place = flow_candidate(hash, i, TW_FLOW_PREVIOUS);

        if (v6 ? row_match6(place, t, f) : row_match4(place, t, f))
            return true;
    }
    return false;
}

/* Looks where flows seldom are: in the spill area, in the previous table. True if the row is in `f->place`. */
__weak int flow_search4(const struct tuple *t, struct flow *f, u32 hash)
{
    return flow_search(t, f, hash, false);
}

__weak int flow_search6(const struct tuple *t, struct flow *f, u32 hash)
{
    return flow_search(t, f, hash, true);
}

inline_always enum flow_result row_find(const struct tuple *t, struct flow *f, struct tw_flow **found, u16 now,
                                        const bool v6)
{
    u32 hash = flow_hash(t, v6);
    void *bucket = flow_bucket(flow_place(hash, 0, 0), v6);
    struct tw_flow *row = 0;
    bool hit = false;

    if (!bucket)
        return FLOW_MISSING;
#pragma unroll
    for (u32 i = 0; i < TW_FLOW_WAYS && !hit; i++) {
        f->place = flow_place(hash, i, 0);
        row = flow_way(bucket, f->place, v6);
        hit = row_read(row, t, f, v6);
    }
    if (unlikely(!hit)) {
        if (!config.previous_mask && !(READ_ONCE(flow_way(bucket, 0, v6)->word) & TW_FLOW_SPILLED))
            return FLOW_MISSING;
        if (!(v6 ? flow_search6(t, f, hash) : flow_search4(t, f, hash)))
            return FLOW_MISSING;
        row = flow_row(f->place, v6);
        if (!row)
            return FLOW_MISSING;
    }
    *found = row;
    if (row_idle(row, f->word, now))
        return FLOW_MISSING;
    return f->judged == flow_generation(f->next, f->back) ? FLOW_FOUND : FLOW_STALE;
}

inline_always int row_stands_in(u32 place, const struct tuple *t, u16 now, const bool v6)
{
    struct tw_flow *row = flow_row(place, v6);
    u32 word;

    if (!row || !t)
        return false;
    word = READ_ONCE(row->word);
    if (flow_state(word) == TW_FLOW_FREE)
        return false;
    load_barrier();
    return row_has_key(row, t, v6) && (flow_state(word) == TW_FLOW_CLAIMED || !row_idle(row, word, now));
}

__weak int row_stands(u32 place, const struct tuple *t, u16 now, bool v6)
{
    return v6 ? row_stands_in(place, t, now, true) : row_stands_in(place, t, now, false);
}

/* Whether a packet that has found no row should look again: its row was being changed just then, or moved to the other
 * table. gc puts it there before it ends here, so the order is the reverse of flow_find()'s. */
__weak int flow_stands(const struct tuple *t, u16 now, bool v6)
{
    u32 hash;

    if (!t)
        return false;
    if (config.previous_mask) {
        hash = v6 ? flow_hash_in(t, TW_FLOW_PREVIOUS, true) : flow_hash_in(t, TW_FLOW_PREVIOUS, false);
#pragma clang loop unroll(disable)
        for (u32 i = 0; i < TW_FLOW_WAYS + config.previous_window; i++)
            if (row_stands(flow_candidate(hash, i, TW_FLOW_PREVIOUS), t, now, v6))
                return true;
        load_barrier();
    }
    hash = v6 ? flow_hash(t, true) : flow_hash(t, false);
#pragma clang loop unroll(disable)
    for (u32 i = 0; i < TW_FLOW_WAYS + TW_FLOW_WINDOW; i++)
        if (row_stands(flow_candidate(hash, i, 0), t, now, v6))
            return true;
    return false;
}

inline_always void step_flow(enum tw_step_kind kind, u32 result, const struct flow *f, u32 state)
{
    struct tw_step *s = step(kind, result);

    if (s) {
        step_ends(&s->flow.source, &s->flow.destination, &f->to);
        s->flow.next = f->next;
        s->flow.back = f->back;
        s->flow.service = f->service;
        s->flow.state = state;
        s->flow.flags = f->flags;
    }
}

/* Copies the row of this tuple. `found` is where its counters are; a dry run, which is to write none, gets no row. */
inline_always enum flow_result flow_find(const struct tuple *t, struct flow *f, struct tw_flow **found, u16 now,
                                         const bool v6)
{
    enum flow_result result = row_find(t, f, found, now, v6);

    if (unlikely(config.dry)) {
        *found = 0;
        step_tuple(TW_STEP_TUPLE, t);
        if (result == FLOW_MISSING)
            step(TW_STEP_FLOW, TW_STEP_MISSING);
        else
            step_flow(TW_STEP_FLOW, result == FLOW_FOUND ? TW_STEP_FOUND : TW_STEP_STALE, f, flow_state(f->word));
    }
    return result;
}

/* --- end --- */

/* The flow's other row, and its word as it was when it was seen to be that; null if there is none. */
inline_always struct tw_flow *row_partner(const struct tw_flow *row, u32 place, u32 *word, const bool v6)
{
    u32 pair = READ_ONCE(row->pair);
    struct tw_flow *partner;

    if (pair == TW_FLOW_ALONE)
        return 0;
    partner = flow_row(pair | (place & TW_FLOW_PREVIOUS), v6);
    if (!partner)
        return 0;
    *word = READ_ONCE(partner->word);
    load_barrier();
    if (flow_state(*word) == TW_FLOW_FREE || READ_ONCE(partner->pair) != (place & ~TW_FLOW_PREVIOUS))
        return 0;
    return partner;
}

/* Frees a claimed row and folds its counts into its service's totals. */
inline_always void row_free(struct tw_flow *row)
{
    u32 service = row->service;
    struct tw_totals *total = bpf_map_lookup_elem(&totals, &service);

    if (service && total) {
        __sync_fetch_and_add(&total->packets, row->bytes >> TW_FLOW_BYTES_BITS << 32 | row->packets);
        __sync_fetch_and_add(&total->bytes, row->bytes & TW_FLOW_BYTES);
    }
    row_publish(row, TW_FLOW_FREE);
}

inline_always int flow_end_in(u32 place, u32 word, const bool v6)
{
    struct tw_flow *row = flow_row(place, v6), *partner, *first, *second;
    u32 first_word = word, second_word = 0;

    if (!row || config.dry)
        return config.dry;
    first = row;
    second = partner = row_partner(row, place, &second_word, v6);
    load_barrier();
    if ((READ_ONCE(row->word) ^ word) & TW_FLOW_VERSION) /* the partner is another flow's, then */
        return false;
    if (partner && !(row->flags & TW_FLOW_REPLY)) {
        first = partner;
        first_word = second_word;
        second = row;
        second_word = word;
    }
    if (!row_claim(first, &first_word))
        return false;
    if (second) {
        if (!row_claim(second, &second_word)) {
            row_publish(first, first_word);
            return false;
        }
        row_free(first);
        row_free(second);
    } else {
        row_free(first);
    }
    return true;
}

/* Ends the flow that has a row in this place: both rows, reply row first, or neither. False if one of them is no longer
 * of the version and state that the caller saw. */
__weak int flow_end(u32 place, u32 word, bool v6)
{
    return v6 ? flow_end_in(place, word, true) : flow_end_in(place, word, false);
}

inline_always int flow_dead_in(u32 place, u16 now, const bool v6)
{
    struct tw_flow *row = flow_row(place, v6), *partner;
    u32 word;

    if (!row)
        return false;
    partner = row_partner(row, place, &word, v6);
    if (!partner)
        return row_age(row, now) > 1;
    return row_idle(row, READ_ONCE(row->word), now) && row_idle(partner, word, now);
}

/* True if neither direction of the flow in this place has been used for as long as its state allows, or if it is the
 * left-over half of a flow whose maker or ender was cut short. */
__weak int flow_dead(u32 place, u16 now, bool v6)
{
    return v6 ? flow_dead_in(place, now, true) : flow_dead_in(place, now, false);
}

/* --- create --- */

/* A row to be put in, and how far that is. Not on the stack, which is small, and with all that changes in it in memory,
 * where the verifier does not tell values apart. */
struct plan {
    struct tuple key;
    struct tuple rewrite;
    u32 next;
    u32 back;
    u32 judged;
    u32 service;
    u32 table;     /* to put it into: TW_FLOW_PREVIOUS or 0 */
    u32 pair;      /* place of the flow's other row, TW_FLOW_ALONE if this is the first one */
    u32 hash;      /* of the key, in the table to put it into */
    u32 elsewhere; /* and in the other one */
    u32 place;     /* the best one so far, with its rank, and what the word of its row was */
    u32 rank;
    u32 word; /* before it was published, once it is taken */
    u32 seen; /* the word of the row that was looked at last */
    u16 now;
    u8 flags;
    u8 state;   /* and FIN bits */
    bool moves; /* from the previous table into the current one: that the other one has it is no obstacle */
};

/* A CPU makes one flow at a time: all programs that see packets run with softirqs off. */
struct {
    __uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
    __uint(max_entries, 1);
    __type(key, u32);
    __type(value, struct plan);
} MAP(scratch);

/* Inserts into one bucket are one after the other. Fails if another CPU holds on to it. */
inline_always bool bucket_lock(struct tw_flow *first)
{
    if (config.dry)
        return true;
    for (int i = 0; i < 64; i++) {
        u32 word = READ_ONCE(first->word);

        if (!(word & TW_FLOW_LOCK) && __sync_val_compare_and_swap(&first->word, word, word | TW_FLOW_LOCK) == word)
            return true;
    }
    return false;
}

inline_always void bucket_unlock(struct tw_flow *first)
{
    if (!config.dry)
        ordered(__sync_fetch_and_and(&first->word, ~TW_FLOW_LOCK));
}

/* How readily a row gives way to a new flow: the higher the sooner, 0 never. Live established flows always stay. */
enum row_rank {
    RANK_NEVER,
    RANK_ONE_WAY, /* only for want of room in the spill area, too */
    RANK_HALF_OPEN,
    RANK_CLOSING,
    RANK_DEAD,
    RANK_FREE,
    RANK_SAME, /* the dead predecessor of the very flow */
    RANK_EXISTS,
    RANK_TAKEN,
};

enum { RANK_SHIFT = 16 }; /* below the rank the age: of equal rows that one gives way which has been idle for longest */

inline_always int row_rank_in(u32 place, struct plan *plan, const bool v6)
{
    struct tw_flow *row = flow_row(place, v6);
    u32 word, state;

    if (!row || !plan)
        return 0;
    word = READ_ONCE(row->word);
    state = flow_state(word);
    plan->seen = word;
    if (state == TW_FLOW_FREE)
        return RANK_FREE << RANK_SHIFT;
    load_barrier();
    if (row_has_key(row, &plan->key, v6)) {
        if (state != TW_FLOW_CLAIMED &&
            ((state == TW_FLOW_CLOSING && plan->state != TW_FLOW_ESTABLISHED) || flow_dead_in(place, plan->now, v6)))
            return RANK_SAME << RANK_SHIFT;
        return (row_has_rewrite(row, &plan->rewrite, v6) ? RANK_EXISTS : RANK_TAKEN) << RANK_SHIFT;
    }
    switch (state) {
    case TW_FLOW_CLAIMED:
        return 0;
    case TW_FLOW_CLOSING:
        return RANK_CLOSING << RANK_SHIFT | row_age(row, plan->now);
    case TW_FLOW_HALF_OPEN:
    case TW_FLOW_ANSWERED:
        return RANK_HALF_OPEN << RANK_SHIFT | row_age(row, plan->now);
    default:
        if (row_idle(row, word, plan->now) && flow_dead_in(place, plan->now, v6))
            return RANK_DEAD << RANK_SHIFT;
        return state == TW_FLOW_ONE_WAY ? RANK_ONE_WAY << RANK_SHIFT | row_age(row, plan->now) : 0;
    }
}

/* The rank of the row in this place for a flow with this key, with its age; where the key is there already, whether it
 * belongs to the very flow or to another one. A closing flow gives way to its successor: clients use a port again
 * sooner than we forget its last use. */
__weak int row_rank(u32 place, struct plan *plan, bool v6)
{
    return v6 ? row_rank_in(place, plan, true) : row_rank_in(place, plan, false);
}

inline_always void row_fill(struct tw_flow *row, const struct plan *plan, const bool v6)
{
    row->last_seen = plan->now;
    row->next = plan->next;
    row->back = plan->back;
    row->judged = plan->judged;
    row->service = plan->service;
    row->pair = plan->pair == TW_FLOW_ALONE ? TW_FLOW_ALONE : plan->pair & ~TW_FLOW_PREVIOUS;
    row->source_port = plan->key.source_port;
    row->destination_port = plan->key.destination_port;
    row->new_source_port = plan->rewrite.source_port;
    row->new_destination_port = plan->rewrite.destination_port;
    row->protocol = plan->key.protocol;
    row->flags = plan->flags;
    row->packets = 0;
    row->bytes = 0;
    if (v6) {
        struct tw_flow6 *row6 = (struct tw_flow6 *)row;
        row6->source = plan->key.source;
        row6->destination = plan->key.destination;
        row6->new_source = plan->rewrite.source;
        row6->new_destination = plan->rewrite.destination;
    } else {
        struct tw_flow4 *row4 = (struct tw_flow4 *)row;
        row4->source = plan->key.source.word[3];
        row4->destination = plan->key.destination.word[3];
        row4->new_source = plan->rewrite.source.word[3];
        row4->new_destination = plan->rewrite.destination.word[3];
    }
}

/* Ends the flow that is in the way. */
inline_always bool row_evict(const struct plan *plan, bool v6)
{
    u32 rank = plan->rank >> RANK_SHIFT;

    if (!flow_end(plan->place, plan->word, v6))
        return false;
    flow_event(rank == RANK_CLOSING     ? TW_FLOW_EVENT_EVICTED_CLOSING
               : rank == RANK_HALF_OPEN ? TW_FLOW_EVENT_EVICTED_HALF_OPEN
               : rank == RANK_ONE_WAY   ? TW_FLOW_EVENT_EVICTED_ONE_WAY
                                        : TW_FLOW_EVENT_REPLACED_IDLE);
    return true;
}

inline_always int row_take_in(struct plan *plan, const bool v6)
{
    struct tw_flow *row, *other;
    u32 word;

    if (!plan)
        return FLOW_BUSY;
    if (config.dry)
        return FLOW_CREATED;
    row = flow_row(plan->place, v6);
    if (!row)
        return FLOW_BUSY;
    word = plan->word;
    if (flow_state(word) != TW_FLOW_FREE) {
        if (!row_evict(plan, v6))
            return FLOW_BUSY;
        word = READ_ONCE(row->word);
    }
    if (flow_state(word) != TW_FLOW_FREE || !row_claim(row, &word))
        return FLOW_BUSY;
    plan->word = word;
    row_fill(row, plan, v6);
    if (plan->pair == TW_FLOW_ALONE)
        return FLOW_CREATED;
    other = flow_row(plan->pair, v6);
    if (other) {
        other->pair = plan->place & ~TW_FLOW_PREVIOUS;
        row_publish(other, plan->state);
    }
    row_publish(row, plan->state);
    return FLOW_CREATED;
}

/* Fills the row that has been chosen, which the caller may take since it holds the bucket's lock. A flow's first row
 * stays claimed until its other one is in. */
__weak int row_take(struct plan *plan, bool v6)
{
    return v6 ? row_take_in(plan, true) : row_take_in(plan, false);
}

/* True if the row belongs to the bucket of this hash. */
inline_always bool row_at_home(const struct tw_flow *row, u32 hash, u32 table, const bool v6)
{
    const struct tw_flow6 *row6 = (const struct tw_flow6 *)row;
    const struct tw_flow4 *row4 = (const struct tw_flow4 *)row;
    u64 mixed = v6 ? flow_mix6(&row6->source, &row6->destination) : flow_mix4(row4->source, row4->destination);

    mixed = flow_mix_ports(mixed, row->source_port, row->destination_port, row->protocol);
    return flow_home(mixed, table) == flow_home(hash, table);
}

inline_always int bucket_spills_in(u32 hash, u32 table, const bool v6)
{
#pragma clang loop unroll(disable)
    for (u32 i = 0; i < TW_FLOW_WINDOW; i++) {
        struct tw_flow *row = flow_row(flow_spill_place(hash, i, table), v6);

        if (i < flow_window(table) && row && flow_state(READ_ONCE(row->word)) != TW_FLOW_FREE &&
            row_at_home(row, hash, table, v6))
            return true;
    }
    return false;
}

/* True if rows of this bucket lie in the spill area. */
__weak int bucket_spills(u32 hash, u32 table, bool v6)
{
    return v6 ? bucket_spills_in(hash, table, true) : bucket_spills_in(hash, table, false);
}

/* Looks at the row in this place: the best so far is remembered, if it has at least this rank. */
inline_always void row_consider(u32 place, struct plan *plan, u32 least, bool v6)
{
    u32 rank = row_rank(place, plan, v6);

    if (rank <= plan->rank || rank >> RANK_SHIFT < least)
        return;
    plan->rank = rank;
    plan->place = place;
    plan->word = plan->seen;
}

/* True if the bucket has a free row and none with the key: then the one that it prefers is chosen. */
inline_always bool row_choose_free(struct plan *plan, const bool v6)
{
    void *bucket = flow_bucket(flow_place(plan->hash, 0, plan->table), v6);

    plan->rank = 0;
    if (!bucket)
        return false;
#pragma unroll
    for (u32 i = 0; i < TW_FLOW_WAYS; i++) {
        u32 place = flow_place(plan->hash, TW_FLOW_WAYS - 1 - i, plan->table);
        struct tw_flow *row = flow_way(bucket, place, v6);
        u32 word = READ_ONCE(row->word);

        if (flow_state(word) == TW_FLOW_FREE) {
            plan->rank = RANK_FREE << RANK_SHIFT;
            plan->place = place;
            plan->word = word;
        } else {
            load_barrier();
            if (row_has_key(row, &plan->key, v6))
                return false;
        }
    }
    return plan->rank;
}

/* Chooses the row to take: in the bucket of the key, or, if that has no room, in the spill area. The caller holds the
 * bucket's lock, and says whether it spills: then the key may be in the spill area, in any case. */
__weak int row_choose(struct plan *plan, bool spilled, bool v6)
{
    bool room;

    if (!plan)
        return false;
    if (!spilled && (v6 ? row_choose_free(plan, true) : row_choose_free(plan, false)))
        return true;
    plan->rank = 0;
#pragma clang loop unroll(disable)
    for (u32 i = 0; i < TW_FLOW_WAYS; i++)
        row_consider(flow_place(plan->hash, i, plan->table), plan, RANK_ONE_WAY, v6);
    room = plan->rank >> RANK_SHIFT >= RANK_HALF_OPEN;
    if (room && !spilled)
        return true;
#pragma clang loop unroll(disable)
    for (u32 i = 0; i < TW_FLOW_WINDOW; i++)
        if (i < flow_window(plan->table))
            row_consider(flow_spill_place(plan->hash, i, plan->table), plan, room ? RANK_SAME : RANK_ONE_WAY, v6);
    return true;
}

/* Puts the row into its bucket or beside it. The caller holds the bucket's lock. */
inline_always int row_insert_in(struct plan *plan, struct tw_flow *first, const bool v6)
{
    bool spilled = READ_ONCE(first->word) & TW_FLOW_SPILLED;
    u32 rank;

    if (spilled && !config.dry && !bucket_spills(plan->hash, plan->table, v6)) {
        ordered(__sync_fetch_and_and(&first->word, ~TW_FLOW_SPILLED));
        spilled = false;
    }
    row_choose(plan, spilled, v6);
    rank = plan->rank >> RANK_SHIFT;
    if (rank == RANK_NEVER)
        return FLOW_FULL;
    if (rank >= RANK_EXISTS)
        return rank == RANK_EXISTS ? FLOW_EXISTS : FLOW_TAKEN;
    if ((plan->place & ~TW_FLOW_PREVIOUS) / TW_FLOW_WAYS > flow_mask(plan->table) && !config.dry) {
        ordered(__sync_fetch_and_or(&first->word, TW_FLOW_SPILLED));
        flow_event(TW_FLOW_EVENT_SPILLED);
    }
    return row_take(plan, v6);
}

/* Whether the other table holds the key; a dead flow with this key ends. Returns enum flow_result. */
__weak int row_elsewhere(struct plan *plan, bool v6)
{
    u32 table;

    if (!plan)
        return FLOW_BUSY;
    table = plan->table ^ TW_FLOW_PREVIOUS;
#pragma clang loop unroll(disable)
    for (u32 i = 0; i < TW_FLOW_WAYS + TW_FLOW_WINDOW; i++) {
        u32 place = flow_candidate(plan->elsewhere, i, table);
        u32 rank;

        if (i >= TW_FLOW_WAYS + flow_window(table))
            break;
        rank = row_rank(place, plan, v6) >> RANK_SHIFT;

        if (rank == RANK_EXISTS)
            return FLOW_EXISTS;
        if (rank == RANK_TAKEN)
            return FLOW_TAKEN;
        if (rank == RANK_SAME && !flow_end(place, plan->seen, v6))
            return FLOW_BUSY;
    }
    return FLOW_MISSING;
}

/* Has the CPU fetch all cache lines of a bucket at once. Taking the lock would have it wait for the first one before it
 * asks for the others. */
inline_always void bucket_fetch(struct tw_flow *first, const bool v6)
{
#pragma unroll
    for (u32 way = 1; way < TW_FLOW_WAYS; way++)
        (void)READ_ONCE(flow_way(first, way, v6)->word);
}

/* A bucket begins with its first row. If it is asked for by place, Linux 6.1 takes it for any row of the bucket. */
inline_always struct tw_flow *flow_first(u32 hash, u32 table, const bool v6)
{
    return flow_bucket(flow_place(hash, 0, table), v6);
}

inline_always int row_insert(struct plan *plan, const bool v6)
{
    struct tw_flow *first, *elsewhere = 0;
    int result = FLOW_MISSING;

    if (!plan)
        return FLOW_BUSY;
    plan->hash = flow_hash_in(&plan->key, config.previous_mask ? plan->table : 0, v6);
    first = flow_first(plan->hash, plan->table, v6);
    if (!first)
        return FLOW_BUSY;
    bucket_fetch(first, v6);
    if (!bucket_lock(first))
        return FLOW_BUSY;
    if (config.previous_mask && !plan->moves) {
        plan->elsewhere = flow_hash_in(&plan->key, plan->table ^ TW_FLOW_PREVIOUS, v6);
        elsewhere = flow_first(plan->elsewhere, plan->table ^ TW_FLOW_PREVIOUS, v6);
        if (!elsewhere || !bucket_lock(elsewhere)) {
            bucket_unlock(first);
            return FLOW_BUSY;
        }
        result = row_elsewhere(plan, v6);
    }
    if (result == FLOW_MISSING)
        result = row_insert_in(plan, first, v6);
    if (elsewhere)
        bucket_unlock(elsewhere);
    bucket_unlock(first);
    return result;
}

/* Puts one row of a new flow into its bucket, and says in `plan->place` where. Returns enum flow_result. */
__weak int row_insert4(struct plan *plan)
{
    return row_insert(plan, false);
}

__weak int row_insert6(struct plan *plan)
{
    return row_insert(plan, true);
}

/* Makes both rows of a flow: `plan` is that of the original row, the reply row is made first. */
inline_always int flow_make(struct plan *plan, const struct tuple *from, const struct flow *f, bool v6)
{
    struct tw_flow *reply;
    int result;

    plan->judged = f->judged;
    plan->service = f->service;
    plan->now = f->now;
    plan->state = f->state;

    tuple_reverse(&f->to, &plan->key);
    tuple_reverse(from, &plan->rewrite);
    plan->next = f->back;
    plan->back = f->next;
    plan->flags = f->flags | TW_FLOW_REPLY;
    plan->pair = TW_FLOW_ALONE;
    result = v6 ? row_insert6(plan) : row_insert4(plan);
    if (result != FLOW_CREATED)
        return result;

    plan->key = *from;
    plan->rewrite = f->to;
    plan->next = f->next;
    plan->back = f->back;
    plan->flags = f->flags;
    plan->pair = plan->place;
    result = v6 ? row_insert6(plan) : row_insert4(plan);
    if (result == FLOW_CREATED)
        return result;
    reply = v6 ? flow_row(plan->pair, true) : flow_row(plan->pair, false);
    if (reply && !config.dry)
        row_publish(reply, TW_FLOW_FREE);
    return result == FLOW_TAKEN ? FLOW_EXISTS : result;
}

/* The table that new flows are made in. */
inline_always u32 flow_table(void)
{
    struct tw_layout *now;

    if (!config.previous_mask)
        return 0;
    now = bpf_map_lookup_elem(&layout, &(u32){0});
    return now && READ_ONCE(now->phase) == TW_PHASE_PREVIOUS ? TW_FLOW_PREVIOUS : 0;
}

/* Makes the flow whose first packet has the tuple `from` and is to get the tuple `f->to`. Returns enum flow_result. */
__weak int flow_create(const struct tuple *from, struct flow *f, bool v6)
{
    struct plan *plan = bpf_map_lookup_elem(&scratch, &(u32){0});
    int result;

    if (!from || !f || !plan)
        return FLOW_BUSY;
    f->judged = flow_generation(f->next, f->back);
    plan->table = flow_table();
    plan->moves = false;
    result = flow_make(plan, from, f, v6);
    if (result == FLOW_CREATED)
        f->place = plan->place;
    else if (result == FLOW_FULL)
        flow_event(TW_FLOW_EVENT_FULL);
    else if (result == FLOW_BUSY)
        flow_event(TW_FLOW_EVENT_BUSY);
    return result;
}

/* --- live --- */

/* Counts the packet in its row. Coarse time and plain stores: the line is this CPU's anyway. */
inline_always void flow_touch(struct tw_flow *row, u32 segments, u32 bytes, u16 now)
{
    u32 packets = row->packets + segments;
    u64 total = row->bytes + bytes;

    if (unlikely(packets < segments))
        total += TW_FLOW_BYTES + 1;
    row->packets = packets;
    row->bytes = total;
    if (row->last_seen != now)
        row->last_seen = now;
}

/* The row word after a packet: what TCP flags and the direction say about the life of the flow. */
inline_always u32 flow_next_word(u32 word, u8 tcp_flags, bool reply)
{
    u32 state = flow_state(word), fins = word & FLOW_FINS;

    if (tcp_flags & TCP_FIN)
        fins |= reply ? TW_FLOW_FIN_REPLY : TW_FLOW_FIN_ORIGINAL;
    if (tcp_flags & TCP_RST || fins == FLOW_FINS)
        state = TW_FLOW_CLOSING;
    else if (state == TW_FLOW_CLOSING) /* that RST was not believed */
        state = TW_FLOW_ESTABLISHED;
    else if (state == TW_FLOW_ONE_WAY && reply)
        state = TW_FLOW_ESTABLISHED;
    else if (state == TW_FLOW_HALF_OPEN && reply)
        state = TW_FLOW_ANSWERED;
    else if (state == TW_FLOW_ANSWERED && !reply && (tcp_flags & (TCP_SYN | TCP_ACK)) == TCP_ACK)
        state = TW_FLOW_ESTABLISHED;
    return (word & ~(u32)(TW_FLOW_STATE | FLOW_FINS)) | fins | state;
}

/* True if the packet changes the state of its flow: a rare thing, so that most packets skip what follows from it. */
inline_always bool flow_moves(const struct flow *f, const struct packet *p)
{
    if (likely(flow_state(f->word) == TW_FLOW_ESTABLISHED && !(p->tcp_flags & (TCP_FIN | TCP_RST))))
        return false;
    return flow_next_word(f->word, p->tcp_flags, f->flags & TW_FLOW_REPLY) != f->word;
}

/* True if the packet opens a new connection on the tuple of one that is closing. */
inline_always bool flow_reopens(const struct flow *f, const struct packet *p)
{
    return flow_state(f->word) == TW_FLOW_CLOSING && p->tcp_flags & TCP_SYN && packet_opens(p);
}

/* Moves one row on, if it still is the flow's. */
inline_always void row_advance(struct tw_flow *row, u32 version, u8 tcp_flags, bool reply)
{
    for (int i = 0; i < 4; i++) {
        u32 word = READ_ONCE(row->word);
        u32 after = flow_next_word(word, tcp_flags, reply);

        if ((word ^ version) & TW_FLOW_VERSION || flow_state(word) <= TW_FLOW_CLAIMED || after == word ||
            __sync_val_compare_and_swap(&row->word, word, after) == word)
            return;
    }
}

inline_always int flow_advance_in(u32 place, u32 version, u8 tcp_flags, const bool v6)
{
    struct tw_flow *row = flow_row(place, v6), *partner;
    u32 word = 0;
    bool reply;

    if (!row)
        return 0;
    reply = row->flags & TW_FLOW_REPLY;
    partner = row_partner(row, place, &word, v6);
    load_barrier();
    if ((READ_ONCE(row->word) ^ version) & TW_FLOW_VERSION)
        return 0;
    row_advance(row, version, tcp_flags, reply);
    if (partner)
        row_advance(partner, word, tcp_flags, reply);
    return 0;
}

/* Moves both rows of the flow on after a packet that matched the row in this place. */
__weak int flow_advance(u32 place, u32 version, u8 tcp_flags, bool v6)
{
    return v6 ? flow_advance_in(place, version, tcp_flags, true) : flow_advance_in(place, version, tcp_flags, false);
}

inline_always void row_repoint(struct tw_flow *row, u32 word, u32 next, u32 back, u32 judged)
{
    if (!row_claim(row, &word))
        return;
    row->next = next;
    row->back = back;
    row->judged = judged;
    row_publish(row, word);
}

inline_always int flow_repoint_in(u32 place, u32 version, u32 next, u32 back, const bool v6)
{
    struct tw_flow *row = flow_row(place, v6), *partner;
    u32 judged = flow_generation(next, back), word = 0, partner_word = 0;

    if (!row || config.dry)
        return 0;
    partner = row_partner(row, place, &partner_word, v6);
    load_barrier();
    word = READ_ONCE(row->word);
    if ((word ^ version) & TW_FLOW_VERSION)
        return 0;
    if (partner)
        row_repoint(partner, partner_word, back, next, judged);
    row_repoint(row, word, next, back, judged);
    return 0;
}

/* Points both rows of the flow to new ends, after it has been judged again. `next` and `back` are as the row in this
 * place sees them. */
__weak int flow_repoint(u32 place, u32 version, u32 next, u32 back, bool v6)
{
    return v6 ? flow_repoint_in(place, version, next, back, true) : flow_repoint_in(place, version, next, back, false);
}
