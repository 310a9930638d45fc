// SPDX-License-Identifier: Apache-2.0
#include "tests/model/flow_table.h"
#include "tests/shim/shim.h"

#include <algorithm>
#include <cstring>
#include <fmt/format.h>
#include <utility>

namespace thruway::model {

FlowTable::FlowTable(bool v6, uint32_t buckets, Complain complain, PreviousTable previous)
    : v6_(v6), buckets_(buckets), previous_(previous), complain_(std::move(complain))
{
    for (uint32_t place = 0; place < all_buckets(false) * TW_FLOW_WAYS; place++)
        places_.push_back(place);
    for (uint32_t place = 0; place < all_buckets(true) * TW_FLOW_WAYS; place++)
        places_.push_back(place | TW_FLOW_PREVIOUS);
    config = {};
    config.flow_seed = 0x243f6a8885a308d3;
    config.tcp_established = 1000;
    config.tcp_half_open = config.tcp_closing = config.udp_one_way = config.udp_two_way = config.icmp = 4;
    load(Program::both);
    table_allocate();
    for (const bool before : {false, true}) {
        memory_.at(before ? 1 : 0) = static_cast<std::byte *>(table_memory(before, v6));
        std::ranges::fill(memory(before), std::byte{});
    }
    table_set_phase(previous.buckets > 0 ? TW_PHASE_PREVIOUS : TW_PHASE_CURRENT);
}

uint32_t FlowTable::all_buckets(bool previous) const
{
    const uint32_t buckets = previous ? previous_.buckets : buckets_;
    const bool spills = !previous || previous_.spills;
    return buckets + (spills ? (buckets + TW_FLOW_WAYS - 1) / TW_FLOW_WAYS : 0);
}

std::span<std::byte> FlowTable::memory(bool previous) const
{
    return {memory_.at(previous ? 1 : 0), all_buckets(previous) * TW_FLOW_WAYS * row_size()};
}

const tw_flow &FlowTable::row(uint32_t place) const
{
    const std::span<std::byte> table = memory((place & TW_FLOW_PREVIOUS) != 0);
    return *reinterpret_cast<const tw_flow *>(&table[(place & ~TW_FLOW_PREVIOUS) * row_size()]);
}

void FlowTable::load(Program program)
{
    if (std::exchange(program_, program) != program)
        table_exchange();
    const bool both = program == Program::both;
    config.flow_mask = (both ? buckets_ : previous_.buckets) - 1;
    config.previous_mask = both && previous_.buckets > 0 ? previous_.buckets - 1 : 0;
    config.previous_window = config.previous_mask != 0 && previous_.spills ? table_window : 0;
}

void FlowTable::sweep(uint16_t now) const
{
    table_gc(all_buckets(false), now, false, v6_);
}

void FlowTable::move(uint16_t now) const
{
    table_gc(all_buckets(true), now, true, v6_);
}

seen FlowTable::find(uint32_t number, uint16_t now, bool reply) const
{
    const seen seen = table_find(number, reply, now, v6_);
    if (seen.result == TABLE_MISSING)
        return seen;
    if (!seen.whole)
        complain_(fmt::format("torn read: a packet of flow {} got what is not of one flow of its own", number));
    const uint32_t next = reply ? seen.back : seen.next;
    const uint32_t back = reply ? seen.next : seen.back;
    if (next != back + 1 || (back != here && back != there))
        complain_(fmt::format("torn read: ends {} and {} never were those of flow {}", next, back, number));
    return seen;
}

void FlowTable::seek(uint32_t number, uint16_t now, bool reply) const
{
    if (find(number, now, reply).result == TABLE_MISSING && !table_stands(number, reply, now, v6_))
        complain_(fmt::format("a packet of flow {} is taken for nobody's", number));
}

int FlowTable::create(uint32_t number, tw_flow_state state, uint16_t now) const
{
    return table_create(number, static_cast<uint8_t>(state), here, now, v6_);
}

/// What the first packet of a connection does.
void FlowTable::open(uint32_t number, uint16_t now) const
{
    if (find(number, now).result == TABLE_MISSING)
        create(number, TW_FLOW_HALF_OPEN, now);
}

void FlowTable::end(uint32_t number, uint16_t now, bool reply) const
{
    if (const seen seen = find(number, now, reply); seen.result != TABLE_MISSING)
        table_end(seen.place, seen.word, v6_);
}

void FlowTable::advance(uint32_t number, uint16_t now, uint8_t tcp_flags, bool reply) const
{
    if (const seen seen = find(number, now, reply); seen.result != TABLE_MISSING)
        table_advance(seen.place, seen.word, tcp_flags, v6_);
}

void FlowTable::repoint(uint32_t number, uint16_t now, uint32_t ends, bool reply) const
{
    if (const seen seen = find(number, now, reply); seen.result != TABLE_MISSING)
        table_repoint(seen.place, seen.word, ends, reply, v6_);
}

bool FlowTable::partner_stands(uint32_t place) const
{
    const tw_flow &it = row(place);
    const uint32_t table = place & TW_FLOW_PREVIOUS;
    if (it.pair >= memory(table != 0).size() / row_size())
        return false;
    const tw_flow &other = row(it.pair | table);
    return stands(other) && (other.pair | table) == place && (it.flags ^ other.flags) == TW_FLOW_REPLY &&
           other.service == it.service;
}

bool FlowTable::same_key(uint32_t a, uint32_t b) const
{
    const size_t addresses = v6_ ? 32 : 8; // source and destination follow the head
    return row(a).source_port == row(b).source_port && row(a).destination_port == row(b).destination_port &&
           row(a).protocol == row(b).protocol && std::memcmp(&row(a) + 1, &row(b) + 1, addresses) == 0;
}

bool FlowTable::stands_somewhere(uint32_t number, bool reply) const
{
    return std::ranges::any_of(
        places_, [&](uint32_t place) { return stands(row(place)) && table_has_key(&row(place), number, reply, v6_); });
}

void FlowTable::check_at_rest() const
{
    for (const uint32_t place : places_) {
        const tw_flow &it = row(place);
        if (it.word & TW_FLOW_LOCK)
            complain_(fmt::format("the bucket of row {} stays locked", place));
        if (state_of(it) == TW_FLOW_CLAIMED)
            complain_(fmt::format("row {} stays claimed", place));
        if (!stands(it))
            continue;
        if (!partner_stands(place))
            complain_(fmt::format("orphan: row {} outlives its other half", place));
        for (const uint32_t other : places_)
            if (other > place && stands(row(other)) && same_key(place, other))
                complain_(fmt::format("rows {:#x} and {:#x} have one key", place, other));
    }
}

void FlowTable::check_alive(uint32_t number, uint16_t now) const
{
    for (const bool reply : {false, true})
        if (const seen seen = find(number, now, reply); seen.result == TABLE_MISSING)
            complain_(fmt::format("flow {} is lost, though it was live and established", number));
        else
            table_touch(&seen, now, v6_);
}

} // namespace thruway::model
