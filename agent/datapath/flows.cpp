// SPDX-License-Identifier: Apache-2.0
#include "agent/datapath/flows.h"

#include "agent/datapath/clock.h"

#include <arpa/inet.h>
#include <atomic>
#include <bit>
#include <bpf/libbpf.h>
#include <numeric>

namespace thruway {
namespace {

uint32_t seconds_since(uint16_t tick, uint16_t now)
{
    const auto ticks = static_cast<uint16_t>(now - tick);
    if (ticks == 0xffff) // written by another CPU after the clock was read
        return 0;
    return static_cast<uint32_t>((uint64_t{ticks} << TW_CLOCK_SHIFT) / 1'000'000'000);
}

/// A copy of the row that no program changed meanwhile; none if the row is free.
template<typename Row>
std::optional<Row> read_row(const Row &row)
{
    while (true) {
        const uint32_t before = std::atomic_ref(const_cast<uint32_t &>(row.head.word)).load(std::memory_order_acquire);
        if ((before & TW_FLOW_STATE) <= TW_FLOW_CLAIMED)
            return std::nullopt;
        const Row copy = row;
        std::atomic_thread_fence(std::memory_order_acquire);
        const uint32_t after = std::atomic_ref(const_cast<uint32_t &>(row.head.word)).load(std::memory_order_relaxed);
        if (((before ^ after) & TW_FLOW_VERSION) == 0 && (after & TW_FLOW_STATE) != TW_FLOW_CLAIMED)
            return copy;
    }
}

Address address_of(uint32_t word)
{
    return Address::from_bytes(&word, Family::ipv4);
}

Address address_of(const tw_address &raw)
{
    return Address(raw);
}

template<typename Row>
FlowRow flow_row(const Row &row, uint16_t now)
{
    FlowRow flow;
    flow.match = {address_of(row.source), address_of(row.destination), ntohs(row.head.source_port),
                  ntohs(row.head.destination_port)};
    flow.rewrite = {address_of(row.new_source), address_of(row.new_destination), ntohs(row.head.new_source_port),
                    ntohs(row.head.new_destination_port)};
    flow.protocol = row.head.protocol;
    flow.state = static_cast<tw_flow_state>(row.head.word & TW_FLOW_STATE);
    flow.flags = row.head.flags;
    flow.pair = row.head.pair;
    flow.next = row.head.next;
    flow.back = row.head.back;
    flow.service = row.head.service;
    flow.packets = row.head.bytes >> TW_FLOW_BYTES_BITS << 32 | row.head.packets;
    flow.bytes = row.head.bytes & TW_FLOW_BYTES;
    flow.idle_seconds = seconds_since(row.head.last_seen, now);
    return flow;
}

template<typename Bucket>
void each_flow_of(const MappedArray<Bucket> &buckets, const std::function<void(const Flow &)> &visit)
{
    const uint16_t now = flow_clock();
    for (uint32_t bucket = 0; bucket < buckets.size(); bucket++) {
        for (uint32_t way = 0; way < TW_FLOW_WAYS; way++) {
            const auto row = read_row(buckets[bucket].row[way]);
            if (!row || row->head.flags & TW_FLOW_REPLY || row->head.pair / TW_FLOW_WAYS >= buckets.size())
                continue;
            const auto reply = read_row(buckets[row->head.pair / TW_FLOW_WAYS].row[row->head.pair % TW_FLOW_WAYS]);
            if (reply && reply->head.pair == bucket * TW_FLOW_WAYS + way)
                visit({flow_row(*row, now), flow_row(*reply, now)});
        }
    }
}

template<typename Bucket>
void add_totals(const MappedArray<Bucket> &buckets, std::vector<tw_totals> &totals)
{
    for (uint32_t bucket = 0; bucket < buckets.size(); bucket++) {
        for (const auto &row : buckets[bucket].row) {
            const uint32_t service = row.head.service;
            if ((row.head.word & TW_FLOW_STATE) <= TW_FLOW_CLAIMED || service == 0 || service >= totals.size())
                continue;
            const uint64_t bytes = row.head.bytes;
            totals[service].packets += bytes >> TW_FLOW_BYTES_BITS << 32 | row.head.packets;
            totals[service].bytes += bytes & TW_FLOW_BYTES;
        }
    }
}

template<typename Bucket>
FlowCensus census_of(const MappedArray<Bucket> &buckets)
{
    FlowCensus census;
    const uint32_t spill_area = std::bit_floor(buckets.size());
    for (uint32_t bucket = 0; bucket < buckets.size(); bucket++)
        for (const auto &row : buckets[bucket].row) {
            const uint32_t state = row.head.word & TW_FLOW_STATE;
            if (state == TW_FLOW_FREE)
                continue;
            census.rows.at(state)++;
            census.spilled += bucket >= spill_area;
        }
    return census;
}

} // namespace

uint16_t flow_clock()
{
    return static_cast<uint16_t>(tick_now());
}

std::string_view flow_state_name(tw_flow_state state)
{
    switch (state) {
    case TW_FLOW_FREE:
        return "free";
    case TW_FLOW_CLAIMED:
        return "changing";
    case TW_FLOW_HALF_OPEN:
        return "half_open";
    case TW_FLOW_ANSWERED:
        return "answered";
    case TW_FLOW_ONE_WAY:
        return "one_way";
    case TW_FLOW_ESTABLISHED:
        return "established";
    case TW_FLOW_CLOSING:
        return "closing";
    }
    return "unknown";
}

void each_flow(const Arrays &arrays, const std::function<void(const Flow &)> &visit)
{
    each_flow_of(arrays.flows4, visit);
    each_flow_of(arrays.flows6, visit);
    if (arrays.previous) {
        each_flow_of(arrays.previous->v4, visit);
        each_flow_of(arrays.previous->v6, visit);
    }
}

std::vector<tw_totals> live_totals(const Arrays &arrays, const FlowArrays *previous, uint32_t services)
{
    std::vector<tw_totals> totals(services);
    add_totals(arrays.flows4, totals);
    add_totals(arrays.flows6, totals);
    if (previous) {
        add_totals(previous->v4, totals);
        add_totals(previous->v6, totals);
    }
    return totals;
}

uint32_t FlowCensus::total() const
{
    return std::accumulate(rows.begin(), rows.end(), 0U);
}

std::array<FlowCensus, 2> flow_census(const FlowTable &table)
{
    return {census_of(*table.v4), census_of(*table.v6)};
}

std::string_view flow_event_name(tw_flow_event event)
{
    switch (event) {
#define X(id, name, meaning)                                                                                           \
    case TW_FLOW_EVENT_##id:                                                                                           \
        return name;
        TW_FLOW_EVENTS(X)
#undef X
    default:
        return "none";
    }
}

std::string_view flow_event_meaning(tw_flow_event event)
{
    switch (event) {
#define X(id, name, meaning)                                                                                           \
    case TW_FLOW_EVENT_##id:                                                                                           \
        return meaning;
        TW_FLOW_EVENTS(X)
#undef X
    default:
        return "nothing";
    }
}

Result<FlowEvents> read_flow_events(const Maps &maps)
{
    FlowEvents events{};
    auto walked = maps.flow_events.each_raw([&](const void *key, const void *counts) {
        uint32_t event = 0;
        std::memcpy(&event, key, sizeof(event));
        const auto *of_cpu = static_cast<const uint64_t *>(counts);
        for (int cpu = 0; cpu < libbpf_num_possible_cpus() && event < events.size(); cpu++)
            events.at(event) += of_cpu[cpu];
    });
    if (!walked)
        return std::unexpected(walked.error());
    return events;
}

} // namespace thruway
