// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
/* Walks the flow table: ends what is dead, what lost its other half, what leads to a pod or backend that is gone; gives
 * back spill bits; moves flows out of the previous table. The agent runs it slice by slice; without an agent packets
 * still find dead rows dead, and reuse them.
 *
 * A syscall program may be interrupted by a packet on its own CPU. So it has scratch room of its own; and it holds a
 * bucket's lock only to clear a spill bit or to move a flow, for less than a microsecond: a packet that comes just then
 * and opens a flow in just that bucket is dropped as flow_busy, and opens it when it is sent again. */

#include "lib/flow.h"

struct {
    __uint(type, BPF_MAP_TYPE_ARRAY); /* only one agent runs gc */
    __uint(max_entries, 1);
    __type(key, u32);
    __type(value, struct plan);
} gc_scratch SEC(".maps");

/* True if the index is that of a pod that is not there any more. What leads elsewhere is routed anew by its next
 * packet. */
inline_always bool gc_gone(u32 next)
{
    struct tw_nexthop *nexthop = bpf_map_lookup_elem(&nexthops, &next);

    return next && next < config.endpoints_max && nexthop && !READ_ONCE(nexthop->link.ifindex);
}

inline_always bool gc_purged(const struct tw_flow *row, u32 count, const bool v6)
{
    struct tuple to;

    row_get_rewrite(row, &to, v6);
#pragma clang loop unroll(disable)
    for (u32 i = 0; i < TW_PURGES && i < count; i++) {
        u32 index = i;
        struct tw_purge *purge = bpf_map_lookup_elem(&purges, &index);

        if (purge && purge->service == row->service && purge->protocol == row->protocol &&
            (!purge->port || (purge->port == to.destination_port && address_equal(&purge->address, &to.destination))))
            return true;
    }
    return false;
}

/* Gives a row another state, if it has not changed since it was `word`. Without a claim: packets go on finding it. */
inline_always void row_restate(struct tw_flow *row, u32 word, u32 state)
{
    u32 before = READ_ONCE(row->word);

    if (!((before ^ word) & (TW_FLOW_VERSION | TW_FLOW_STATE | FLOW_FINS)))
        __sync_val_compare_and_swap(&row->word, before, (before & ~(u32)(TW_FLOW_STATE | FLOW_FINS)) | state);
}

/* Gives both rows of a copy, which were made with `word`, the state that the flow has come to meanwhile. */
inline_always void gc_restate(u32 place, u32 word, u32 state, const bool v6)
{
    struct tw_flow *row = flow_row(place, v6), *partner;
    u32 other = 0;

    if (!row || !((word ^ state) & (TW_FLOW_STATE | FLOW_FINS)))
        return;
    partner = row_partner(row, place, &other, v6);
    load_barrier();
    if ((READ_ONCE(row->word) ^ word) & TW_FLOW_VERSION) /* the partner is another flow's, then */
        return;
    row_restate(row, word, state);
    if (partner)
        row_restate(partner, (other & TW_FLOW_VERSION) | (word & ~TW_FLOW_VERSION), state);
}

inline_always int gc_move_in(u32 place, const bool v6)
{
    struct plan *plan = bpf_map_lookup_elem(&gc_scratch, &(u32){0});
    struct tw_flow *row = flow_row(place, v6), *partner;
    struct tuple key = {};
    struct flow f = {};
    u32 word, other;
    int result;

    if (!plan || !row)
        return false;
    row_get_key(row, &key, v6);
    if (!row_read(row, &key, &f, v6))
        return false;
    partner = row_partner(row, place, &other, v6);
    if (!partner)
        return false;
    f.state = f.word & (TW_FLOW_STATE | FLOW_FINS);
    f.now = (s16)(row->last_seen - partner->last_seen) > 0 ? row->last_seen : partner->last_seen;
    plan->table = 0;
    plan->moves = true;
    result = flow_make(plan, &key, &f, v6);
    if (result == FLOW_EXISTS) /* an earlier copy: then this row would not end, see below */
        return flow_end(place, f.word, v6);
    if (result != FLOW_CREATED)
        return false;
    /* From here on packets find the copy, and those that found the row just before may still change it. Where it leads
     * to they find out again by the copy; what they have made of its state, the copy is told. */
    word = ((plan->word & TW_FLOW_VERSION) + TW_FLOW_VERSION_STEP) | plan->state;
    for (int i = 0; i < 4; i++) {
        if (flow_end(place, f.word, v6)) {
            gc_restate(plan->place, word, f.word & (TW_FLOW_STATE | FLOW_FINS), v6);
            return true;
        }
        row_read(row, &key, &f, v6);
    }
    return false;
}

/* Moves the flow with this original row to the current table. False if there is no room for it, or it is changing. */
__weak int gc_move4(u32 place)
{
    return gc_move_in(place, false);
}

__weak int gc_move6(u32 place)
{
    return gc_move_in(place, true);
}

/* What is to happen to the flow in this place, if it is to end. */
inline_always bool gc_ends(const struct tw_gc *walk, u32 place, const struct tw_flow *row, enum tw_flow_event *event,
                           const bool v6)
{
    u32 other;

    if (flow_dead(place, walk->now, v6)) {
        *event = row_partner(row, place, &other, v6) ? TW_FLOW_EVENT_EXPIRED : TW_FLOW_EVENT_REPAIRED;
        return true;
    }
    *event = TW_FLOW_EVENT_PURGED;
    return !(row->flags & TW_FLOW_REPLY) &&
           (gc_gone(row->next) || gc_gone(row->back) || gc_purged(row, walk->purges, v6));
}

inline_always int gc_row_in(u32 place, struct tw_gc *walk, const bool v6)
{
    struct tw_flow *row = flow_row(place, v6);
    enum tw_flow_event event;
    u32 word, state;

    if (!row || !walk)
        return 0;
    word = READ_ONCE(row->word);
    state = flow_state(word);
    if (state == TW_FLOW_FREE)
        return 0;
    if (state != TW_FLOW_CLAIMED) {
        if (gc_ends(walk, place, row, &event, v6)) {
            if (flow_end(place, word, v6)) {
                flow_event(event);
                return 0;
            }
        } else if (walk->moves && !(row->flags & TW_FLOW_REPLY) && (v6 ? gc_move6(place) : gc_move4(place))) {
            flow_event(TW_FLOW_EVENT_MOVED);
            return 0;
        }
    }
    walk->rows++;
    return 0;
}

__weak int gc_row4(u32 place, struct tw_gc *walk)
{
    return gc_row_in(place, walk, false);
}

__weak int gc_row6(u32 place, struct tw_gc *walk)
{
    return gc_row_in(place, walk, true);
}

inline_always void gc_unspill(u32 place, const bool v6)
{
    struct tw_flow *first = flow_row(place, v6);
    u32 hash = place & ~TW_FLOW_PREVIOUS, table = place & TW_FLOW_PREVIOUS;

    if (!first || likely(!(READ_ONCE(first->word) & TW_FLOW_SPILLED)))
        return;
    if (bucket_spills(hash, table, v6) || !bucket_lock(first))
        return;
    if (!bucket_spills(hash, table, v6))
        ordered(__sync_fetch_and_and(&first->word, ~TW_FLOW_SPILLED));
    bucket_unlock(first);
}

inline_always int gc_bucket(u32 index, struct tw_gc *walk, const bool v6)
{
    u32 place = (walk->first + index) * TW_FLOW_WAYS | (walk->table & TW_FLOW_PREVIOUS);

    gc_unspill(place, v6);
    for (u32 way = 0; way < TW_FLOW_WAYS; way++)
        if (v6)
            gc_row6(place + way, walk);
        else
            gc_row4(place + way, walk);
    return 0;
}

static int gc_bucket4(u32 index, void *walk)
{
    return gc_bucket(index, walk, false);
}

static int gc_bucket6(u32 index, void *walk)
{
    return gc_bucket(index, walk, true);
}

SEC("syscall")
int gc(struct tw_gc *asked)
{
    struct tw_gc walk = *asked;

    if (walk.v6)
        bpf_loop(walk.count, gc_bucket6, &walk, 0);
    else
        bpf_loop(walk.count, gc_bucket4, &walk, 0);
    *asked = walk;
    return 0;
}

const char LICENSE[] __attribute__((weak)) SEC("license") = "Dual BSD/GPL";
