/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
#pragma once

/* The flow table: find, create, advance. Everything else knows it only by these.
 *
 * Rows lie in fixed buckets of TW_FLOW_WAYS in an array; a key has one candidate bucket. Who changes what, and how:
 *
 *  - Readers take no lock. They read `word`, match the key, copy what they need and read `word` again: a version that
 *    moved means that the row was somebody else's in between, and counts as a miss.
 *  - Only who holds the bucket lock (TW_FLOW_LOCK in its first row) puts a key into a row. So under the lock no key
 *    can appear twice, and the key of a claimed row may be read.
 *  - Whoever changes a row in place (to free it, to fill it, to point it elsewhere) first claims it by compare-exchange
 *    of `word`, which is a full barrier, and publishes it with a new version by an atomic add, which is one too.
 *  - `last_seen` and the counters are written by plain stores: an update that is lost costs a packet in a counter.
 *
 * Both rows of a flow are made and ended reply row first. While only one half stands, no packet of the original
 * direction can match it, so no second flow can come to be beside it.
 *
 * What a packet of an established flow needs is inlined, with the family a constant. The rest works on places (bucket *
 * TW_FLOW_WAYS + way) with the family a variable, in global functions, which the verifier walks once and not per call.
 */

#include "config.h"
#include "maps.h"
#include "packet.h"
#include "steps.h"

/* What a packet needs of its row, copied; also the plan of a flow to be made. */
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

inline_always u16 flow_now(void)
{
    return bpf_ktime_get_coarse_ns() >> TW_CLOCK_SHIFT;
}

inline_always u32 flow_state(u32 word)
{
    return word & TW_FLOW_STATE;
}

/* --- places --- */

inline_always u64 flow_mix(u64 hash, u64 value, u64 factor)
{
    hash = (hash ^ value) * factor;
    return hash ^ (hash >> 32);
}

/* Multiplications carry entropy upwards only: each is followed by a shift down, the ports go in last and low, and the
 * upper half is the hash. */
inline_always u32 flow_hash(const struct tuple *t, const bool v6)
{
    u64 ports = (u64)t->protocol << 32 | (u32)t->source_port << 16 | t->destination_port;
    u64 hash = config.flow_seed;

    if (v6) {
        hash = flow_mix(hash, address_half(&t->source, 0), 0x9e3779b97f4a7c15);
        hash = flow_mix(hash, address_half(&t->source, 1), 0xbf58476d1ce4e5b9);
        hash = flow_mix(hash, address_half(&t->destination, 0), 0x94d049bb133111eb);
        hash = flow_mix(hash, address_half(&t->destination, 1), 0x9e3779b97f4a7c15);
    } else {
        hash = flow_mix(hash, (u64)t->source.word[3] << 32 | t->destination.word[3], 0x9e3779b97f4a7c15);
    }
    return ((hash ^ ports) * 0xd6e8feb86659fd93) >> 32;
}

/* The ways of a bucket in the order of preference of a hash: a flow mostly lies in its first, so that finding it costs
 * one cache line. */
inline_always u32 flow_place(u32 hash, u32 nth)
{
    return (hash / TW_FLOW_WAYS & config.flow_mask) * TW_FLOW_WAYS + ((hash ^ nth) & (TW_FLOW_WAYS - 1));
}

inline_always void *flow_bucket(u32 place, const bool v6)
{
    u32 index = place / TW_FLOW_WAYS;

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

/* Takes the row from everybody else, unless it is taken already or no longer the version that the caller saw.
 * Only state and lock may have changed since, and each change costs one more try. `word` gets what was claimed. */
inline_always bool row_claim(struct tw_flow *row, u32 version, u32 *word)
{
    for (int i = 0; i < 16; i++) {
        u32 before = READ_ONCE(row->word);
        u32 claimed = (before & ~TW_FLOW_STATE) | TW_FLOW_CLAIMED;

        if ((before ^ version) & TW_FLOW_VERSION || flow_state(before) == TW_FLOW_CLAIMED)
            return false;
        if (__sync_val_compare_and_swap(&row->word, before, claimed) == before) {
            *word = before;
            return true;
        }
    }
    return false;
}

/* Ends a claim: the row gets a new version and the given state and FIN bits. While a row is claimed nobody else changes
 * its word but for the lock bit, and adding the difference leaves that one as it is. */
inline_always void row_publish(struct tw_flow *row, u32 state)
{
    u32 before = READ_ONCE(row->word) & ~TW_FLOW_LOCK;
    u32 after = ((before & TW_FLOW_VERSION) + TW_FLOW_VERSION_STEP) | state;

    __sync_fetch_and_add(&row->word, after - before);
}

/* Idle time after which a flow of this state may be forgotten, in ticks. */
inline_always u32 flow_patience(u32 state, u8 protocol)
{
    switch (state) {
    case TW_FLOW_HALF_OPEN:
    case TW_FLOW_ANSWERED:
        return config.tcp_half_open;
    case TW_FLOW_CLOSING:
        return config.tcp_closing;
    case TW_FLOW_ONE_WAY:
        return protocol == IPPROTO_UDP ? config.udp_one_way : config.icmp;
    default:
        return protocol == IPPROTO_TCP   ? config.tcp_established
               : protocol == IPPROTO_UDP ? config.udp_two_way
                                         : config.icmp;
    }
}

inline_always bool row_idle(const struct tw_flow *row, u32 word, u16 now)
{
    u16 idle = now - READ_ONCE(row->last_seen);

    if (likely(idle == 0 || idle == 0xffff)) /* another CPU's clock may have ticked before ours was read */
        return false;
    return idle > flow_patience(flow_state(word), row->protocol);
}

/* --- find --- */

inline_always u32 flow_generation(u32 next, u32 back)
{
    u32 *a = bpf_map_lookup_elem(&generations, &next);
    u32 *b = bpf_map_lookup_elem(&generations, &back);

    return (a ? READ_ONCE(*a) : 0) + (b ? READ_ONCE(*b) : 0);
}

inline_always enum flow_result row_find(const struct tuple *t, struct flow *f, struct tw_flow **found, u16 now,
                                        const bool v6)
{
    u32 hash = flow_hash(t, v6);
    void *bucket = flow_bucket(flow_place(hash, 0), v6);

    if (!bucket)
        return FLOW_MISSING;
#pragma unroll
    for (u32 i = 0; i < TW_FLOW_WAYS; i++) {
        struct tw_flow *row = flow_way(bucket, flow_place(hash, i), v6);
        u32 word = READ_ONCE(row->word);

        if (!row_has_key(row, t, v6) || flow_state(word) <= TW_FLOW_CLAIMED)
            continue;
        row_get_rewrite(row, &f->to, v6);
        f->next = READ_ONCE(row->next);
        f->back = READ_ONCE(row->back);
        f->judged = READ_ONCE(row->judged);
        f->service = READ_ONCE(row->service);
        f->flags = READ_ONCE(row->flags);
        f->word = word;
        f->place = flow_place(hash, i);
        *found = row;
        compiler_barrier();
        if ((READ_ONCE(row->word) ^ word) & TW_FLOW_VERSION || row_idle(row, word, now))
            return FLOW_MISSING;
        return f->judged == flow_generation(f->next, f->back) ? FLOW_FOUND : FLOW_STALE;
    }
    return FLOW_MISSING;
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

/* The place of the flow's other row, or TW_FLOW_ALONE. */
inline_always u32 row_partner(const struct tw_flow *row, u32 place, struct tw_flow **partner, const bool v6)
{
    u32 other = READ_ONCE(row->pair);

    if (other == TW_FLOW_ALONE)
        return TW_FLOW_ALONE;
    *partner = flow_row(other, v6);
    if (!*partner || READ_ONCE((*partner)->pair) != place || flow_state(READ_ONCE((*partner)->word)) == TW_FLOW_FREE)
        return TW_FLOW_ALONE;
    return other;
}

/* Frees a row if it still is of the version that the caller saw, and folds its counts into its service's totals. */
inline_always void row_end(struct tw_flow *row, u32 version)
{
    u32 service, word;

    if (!row_claim(row, version, &word))
        return;
    service = row->service;
    if (flow_state(word) != TW_FLOW_FREE && service) {
        struct tw_totals *total = bpf_map_lookup_elem(&totals, &service);

        if (total) {
            __sync_fetch_and_add(&total->packets, row->bytes >> TW_FLOW_BYTES_BITS << 32 | row->packets);
            __sync_fetch_and_add(&total->bytes, row->bytes & TW_FLOW_BYTES);
        }
    }
    row_publish(row, TW_FLOW_FREE);
}

inline_always int flow_end_in(u32 place, u32 version, const bool v6)
{
    struct tw_flow *row = flow_row(place, v6), *partner = 0;
    u32 partner_version = 0;
    bool reply;

    if (!row || config.dry)
        return 0;
    reply = row->flags & TW_FLOW_REPLY;
    if (row_partner(row, place, &partner, v6) != TW_FLOW_ALONE && partner)
        partner_version = READ_ONCE(partner->word);
    else
        partner = 0;
    if (partner && !reply)
        row_end(partner, partner_version);
    row_end(row, version);
    if (partner && reply)
        row_end(partner, partner_version);
    return 0;
}

/* Ends the flow that has a row of this version in this place: reply row first. */
__weak int flow_end(u32 place, u32 version, bool v6)
{
    return v6 ? flow_end_in(place, version, true) : flow_end_in(place, version, false);
}

inline_always int flow_dead_in(u32 place, u16 now, const bool v6)
{
    struct tw_flow *row = flow_row(place, v6), *partner = 0;

    if (!row)
        return false;
    if (row_partner(row, place, &partner, v6) == TW_FLOW_ALONE || !partner)
        return (u16)(now - READ_ONCE(row->last_seen) - 2) < 0xff00;
    return row_idle(row, READ_ONCE(row->word), now) && row_idle(partner, READ_ONCE(partner->word), now);
}

/* True if neither direction of the flow in this place has been used for as long as its state allows, or if it is the
 * left-over half of a flow whose maker or ender was cut short. */
__weak int flow_dead(u32 place, u16 now, bool v6)
{
    return v6 ? flow_dead_in(place, now, true) : flow_dead_in(place, now, false);
}

/* --- create --- */

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
        __sync_fetch_and_and(&first->word, ~TW_FLOW_LOCK);
}

/* How readily a row gives way to a new flow: the higher the sooner, 0 never. Live established flows always stay. */
enum row_rank {
    RANK_NEVER,
    RANK_HALF_OPEN,
    RANK_CLOSING,
    RANK_DEAD,
    RANK_FREE,
    RANK_SAME, /* the dead predecessor of the very flow */
    RANK_EXISTS,
    RANK_TAKEN,
};

/* The rank of the row in this place for a flow with this key; where the key is there already, whether it belongs to the
 * very flow or to another one. A closing flow gives way to its successor: clients use a port again sooner than we
 * forget its last use. */
inline_always u32 row_rank(u32 place, const struct tuple *key, const struct tuple *rewrite, u16 now, u8 opens, bool v6)
{
    struct tw_flow *row = flow_row(place, v6);
    u32 state;

    if (!row)
        return RANK_NEVER;
    state = flow_state(READ_ONCE(row->word));
    if (state == TW_FLOW_FREE)
        return RANK_FREE;
    if (row_has_key(row, key, v6)) {
        if (state != TW_FLOW_CLAIMED &&
            ((state == TW_FLOW_CLOSING && opens == TW_FLOW_HALF_OPEN) || flow_dead(place, now, v6)))
            return RANK_SAME;
        return row_has_rewrite(row, rewrite, v6) ? RANK_EXISTS : RANK_TAKEN;
    }
    switch (state) {
    case TW_FLOW_CLAIMED:
        return RANK_NEVER;
    case TW_FLOW_CLOSING:
        return RANK_CLOSING;
    case TW_FLOW_HALF_OPEN:
    case TW_FLOW_ANSWERED:
        return RANK_HALF_OPEN;
    default:
        return row_idle(row, READ_ONCE(row->word), now) && flow_dead(place, now, v6) ? RANK_DEAD : RANK_NEVER;
    }
}

inline_always void row_fill(struct tw_flow *row, const struct tuple *key, const struct tuple *rewrite,
                            const struct flow *f, bool v6)
{
    row->last_seen = f->now;
    row->next = f->next;
    row->back = f->back;
    row->judged = f->judged;
    row->service = f->service;
    row->pair = f->place;
    row->source_port = key->source_port;
    row->destination_port = key->destination_port;
    row->new_source_port = rewrite->source_port;
    row->new_destination_port = rewrite->destination_port;
    row->protocol = key->protocol;
    row->flags = f->flags;
    row->packets = 0;
    row->bytes = 0;
    if (v6) {
        struct tw_flow6 *row6 = (struct tw_flow6 *)row;
        row6->source = key->source;
        row6->destination = key->destination;
        row6->new_source = rewrite->source;
        row6->new_destination = rewrite->destination;
    } else {
        struct tw_flow4 *row4 = (struct tw_flow4 *)row;
        row4->source = key->source.word[3];
        row4->destination = key->destination.word[3];
        row4->new_source = rewrite->source.word[3];
        row4->new_destination = rewrite->destination.word[3];
    }
}

/* Fills the row in this place, which the caller may take since it holds the bucket's lock. */
inline_always enum flow_result row_take(u32 place, const struct tuple *key, const struct tuple *rewrite,
                                        const struct flow *f, bool v6)
{
    struct tw_flow *row = flow_row(place, v6), *pair;
    u32 word;

    if (!row)
        return FLOW_FULL;
    if (config.dry)
        return FLOW_CREATED;
    word = READ_ONCE(row->word);
    if (flow_state(word) != TW_FLOW_FREE)
        flow_end(place, word, v6);
    word = READ_ONCE(row->word);
    if (flow_state(word) != TW_FLOW_FREE || !row_claim(row, word, &word))
        return FLOW_BUSY;
    row_fill(row, key, rewrite, f, v6);
    if (f->place != TW_FLOW_ALONE) {
        pair = flow_row(f->place, v6);
        if (pair)
            WRITE_ONCE(pair->pair, place);
    }
    row_publish(row, f->state);
    return FLOW_CREATED;
}

inline_always int row_insert(const struct tuple *key, const struct tuple *rewrite, struct flow *f, const bool v6)
{
    u32 hash, best = RANK_NEVER, victim = 0;
    struct tw_flow *first;
    int result = FLOW_FULL;

    if (!key || !rewrite || !f)
        return FLOW_FULL;
    hash = flow_hash(key, v6);
    first = flow_row(flow_place(hash, 0) & ~(TW_FLOW_WAYS - 1), v6);
    if (!first)
        return FLOW_FULL;
    if (!bucket_lock(first))
        return FLOW_BUSY;
#pragma clang loop unroll(disable)
    for (u32 i = 0; i < TW_FLOW_WAYS; i++) {
        u32 place = flow_place(hash, i);
        u32 rank;

        if (place == f->place) /* the flow's other row may lie here: it must not make room for this one */
            continue;
        rank = row_rank(place, key, rewrite, f->now, f->state, v6);

        if (rank > best) {
            best = rank;
            victim = place;
        }
    }
    if (best >= RANK_EXISTS) {
        result = best == RANK_EXISTS ? FLOW_EXISTS : FLOW_TAKEN;
    } else if (best != RANK_NEVER) {
        result = row_take(victim, key, rewrite, f, v6);
        if (result == FLOW_CREATED)
            f->place = victim;
    }
    bucket_unlock(first);
    return result;
}

/* Puts one row of a new flow into its bucket. `f->place` is the place of the flow's other row and becomes that of this
 * one. Returns enum flow_result. One function a family here: with both in one, the compiler would not share their room
 * on the small BPF stack. */
__weak int row_insert4(const struct tuple *key, const struct tuple *rewrite, struct flow *f)
{
    return row_insert(key, rewrite, f, false);
}

__weak int row_insert6(const struct tuple *key, const struct tuple *rewrite, struct flow *f)
{
    return row_insert(key, rewrite, f, true);
}

inline_always void flow_turn(struct flow *f)
{
    u32 next = f->next;

    f->next = f->back;
    f->back = next;
    f->flags ^= TW_FLOW_REPLY;
}

/* Room that does not fit on the BPF stack. A CPU runs one program of ours at a time: all run with softirqs off. */
struct scratch {
    struct tuple reply;
    struct tuple reply_to;
};

struct {
    __uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
    __uint(max_entries, 1);
    __type(key, u32);
    __type(value, struct scratch);
} MAP(scratch);

/* Makes the flow whose first packet has the tuple `from` and is to get the tuple `f->to`. Returns enum flow_result. */
__weak int flow_create(const struct tuple *from, struct flow *f, bool v6)
{
    struct scratch *room = bpf_map_lookup_elem(&scratch, &(u32){0});
    struct tw_flow *row;
    u32 word;
    int result;

    if (!from || !f || !room)
        return FLOW_FULL;
    tuple_reverse(&f->to, &room->reply);
    tuple_reverse(from, &room->reply_to);
    f->judged = flow_generation(f->next, f->back);
    f->place = TW_FLOW_ALONE;
    flow_turn(f);
    result = v6 ? row_insert6(&room->reply, &room->reply_to, f) : row_insert4(&room->reply, &room->reply_to, f);
    flow_turn(f);
    if (result != FLOW_CREATED)
        return result;
    row = v6 ? flow_row(f->place, true) : flow_row(f->place, false);
    if (!row)
        return FLOW_FULL;
    word = READ_ONCE(row->word);
    result = v6 ? row_insert6(from, &f->to, f) : row_insert4(from, &f->to, f);
    if (result != FLOW_CREATED && !config.dry)
        row_end(row, word);
    return result == FLOW_TAKEN ? FLOW_EXISTS : result;
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
inline_always u32 flow_next_word(u32 word, u8 protocol, u8 tcp_flags, bool reply)
{
    u32 state = flow_state(word), fins = word & FLOW_FINS;

    if (protocol != IPPROTO_TCP) {
        if (state == TW_FLOW_ONE_WAY && reply)
            state = TW_FLOW_ESTABLISHED;
        return (word & ~TW_FLOW_STATE) | state;
    }
    if (tcp_flags & TCP_FIN)
        fins |= reply ? TW_FLOW_FIN_REPLY : TW_FLOW_FIN_ORIGINAL;
    if (tcp_flags & TCP_RST || fins == FLOW_FINS)
        state = TW_FLOW_CLOSING;
    else if (state == TW_FLOW_CLOSING) /* that RST was not believed */
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
    return flow_next_word(f->word, p->tuple.protocol, p->tcp_flags, f->flags & TW_FLOW_REPLY) != f->word;
}

/* True if the packet opens a new connection on the tuple of one that is closing. */
inline_always bool flow_reopens(const struct flow *f, const struct packet *p)
{
    return flow_state(f->word) == TW_FLOW_CLOSING && p->tuple.protocol == IPPROTO_TCP && packet_opens(p);
}

/* Moves one row on, if it still is the flow's. */
inline_always void row_advance(struct tw_flow *row, u32 version, u8 tcp_flags, bool reply)
{
    for (int i = 0; i < 4; i++) {
        u32 word = READ_ONCE(row->word);
        u32 after = flow_next_word(word, row->protocol, tcp_flags, reply);

        if ((word ^ version) & TW_FLOW_VERSION || flow_state(word) <= TW_FLOW_CLAIMED || after == word ||
            __sync_val_compare_and_swap(&row->word, word, after) == word)
            return;
    }
}

inline_always int flow_advance_in(u32 place, u32 version, u8 tcp_flags, const bool v6)
{
    struct tw_flow *row = flow_row(place, v6), *partner = 0;
    bool reply;

    if (!row)
        return 0;
    reply = row->flags & TW_FLOW_REPLY;
    row_advance(row, version, tcp_flags, reply);
    if (row_partner(row, place, &partner, v6) != TW_FLOW_ALONE && partner)
        row_advance(partner, READ_ONCE(partner->word), tcp_flags, reply);
    return 0;
}

/* Moves both rows of the flow on after a packet that matched the row in this place. */
__weak int flow_advance(u32 place, u32 version, u8 tcp_flags, bool v6)
{
    return v6 ? flow_advance_in(place, version, tcp_flags, true) : flow_advance_in(place, version, tcp_flags, false);
}

inline_always void row_repoint(struct tw_flow *row, u32 version, u32 next, u32 back, u32 judged)
{
    u32 word;

    if (!row_claim(row, version, &word))
        return;
    row->next = next;
    row->back = back;
    row->judged = judged;
    row_publish(row, word & (TW_FLOW_STATE | FLOW_FINS));
}

inline_always int flow_repoint_in(u32 place, u32 version, u32 next, u32 back, const bool v6)
{
    struct tw_flow *row = flow_row(place, v6), *partner = 0;
    u32 judged = flow_generation(next, back);

    if (!row || config.dry)
        return 0;
    if (row_partner(row, place, &partner, v6) != TW_FLOW_ALONE && partner)
        row_repoint(partner, READ_ONCE(partner->word), back, next, judged);
    row_repoint(row, version, next, back, judged);
    return 0;
}

/* Points both rows of the flow to new ends, after it has been judged again. `next` and `back` are as the row in this
 * place sees them. */
__weak int flow_repoint(u32 place, u32 version, u32 next, u32 back, bool v6)
{
    return v6 ? flow_repoint_in(place, version, next, back, true) : flow_repoint_in(place, version, next, back, false);
}
