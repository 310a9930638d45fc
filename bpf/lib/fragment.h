/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
#pragma once

/* A later fragment has no ports: it goes where the first one of its packet went. That one is an ordinary packet of its
 * flow, and leaves a row here, once its flow stands. The rest find the row by what all fragments of a packet share (RFC
 * 791 section 3.2; RFC 8200 section 4.5, where the protocol does not count), and then are packets of that flow without
 * ports and checksum. What comes before its first fragment, or later than FRAGMENT_TICKS after it, finds none.
 *
 * A packet has one row, and whoever is last has it: a flood of first fragments costs others their rows, and nothing
 * else. A first fragment that comes again with other ports wins, too, since IPv4 senders of many packets use an
 * identification again within seconds; whoever puts the packet together drops it if fragments overlap (RFC 5722).
 *
 * Clients that share an address by SNAT keep their identifications. Two of them may have fragments of one
 * identification on the way to one backend at one time, which then may put them together wrongly, and drops them by
 * their checksum.
 *
 * Several CPUs meet in a row: `word` is odd while one of them writes, by compare-exchange and add, which are full
 * barriers; readers read it before and after by an atomic, too. Whoever finds another one writing gives up. */

#include "flow.h"
#include "maps.h"
#include "packet.h"

enum { FRAGMENT_TICKS = 7 }; /* 30 s, as long as Linux waits for the rest (ip(7), ipfrag_time) */

inline_always struct tw_fragment *fragment_row(const struct packet *p, const bool v6)
{
    struct tuple key = {
        .source = p->tuple.source,
        .destination = p->tuple.destination,
        .source_port = p->identification,
        .destination_port = p->identification >> 16,
        .protocol = v6 ? 0 : p->tuple.protocol,
    };
    u32 index = flow_hash(&key, v6) & (TW_FRAGMENTS - 1);

    return bpf_map_lookup_elem(&fragments, &index);
}

inline_always int fragment_learn_in(const struct packet *p, u16 now, const bool v6)
{
    struct tw_fragment *row = fragment_row(p, v6);
    u32 word;

    if (!row)
        return 0;
    word = READ_ONCE(row->word);
    if (word & 1 || __sync_val_compare_and_swap(&row->word, word, word + 1) != word)
        return 0;
    row->identification = p->identification;
    row->source = p->tuple.source;
    row->destination = p->tuple.destination;
    row->source_port = p->tuple.source_port;
    row->destination_port = p->tuple.destination_port;
    row->protocol = p->tuple.protocol;
    row->headers = p->transport - p->fragment_at + transport_minimum(p->tuple.protocol);
    row->seen = now;
    __sync_fetch_and_add(&row->word, 1);
    return 0;
}

/* Notes a first fragment for those that follow. */
__weak int fragment_learn(const struct packet *p, u16 now, bool v6)
{
    if (!p)
        return 0;
    return v6 ? fragment_learn_in(p, now, true) : fragment_learn_in(p, now, false);
}

inline_always int fragment_recall_in(struct packet *p, u16 now, const bool v6)
{
    struct tw_fragment *row = fragment_row(p, v6);
    u32 word, headers;

    if (!row)
        return TW_DROP_FRAGMENT;
    word = __sync_fetch_and_add(&row->word, 0);
    if (!word || word & 1 || row->identification != p->identification ||
        !address_equal(&row->source, &p->tuple.source) || !address_equal(&row->destination, &p->tuple.destination) ||
        (!v6 && row->protocol != p->tuple.protocol) || (u16)(now - row->seen) > FRAGMENT_TICKS)
        return TW_DROP_FRAGMENT;
    p->tuple.source_port = row->source_port;
    p->tuple.destination_port = row->destination_port;
    p->tuple.protocol = row->protocol;
    headers = row->headers;
    if (__sync_fetch_and_add(&row->word, 0) != word)
        return TW_DROP_FRAGMENT;
    return p->fragment_offset < headers ? TW_DROP_BAD_FRAGMENT : TW_PASS;
}

/* Gives a later fragment the ports of its first one. One that would overwrite what was read in that is refused (RFC
 * 1858, RFC 3128). */
__weak int fragment_recall(struct packet *p, u16 now, bool v6)
{
    if (!p)
        return TW_DROP_FRAGMENT;
    return v6 ? fragment_recall_in(p, now, true) : fragment_recall_in(p, now, false);
}
