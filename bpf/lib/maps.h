/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
#pragma once

/* All maps. What packets read follows one rule: a hash is only inserted into and deleted from, and its value is an id
 * that never changes; what changes is an array row, written by one aligned store of at most 8 bytes. (Replacing the
 * value of a live hash key lets concurrent readers see another key's value.) The sizes here are those of tests; the
 * loader sets the configured ones. Weak, because each program file has them and the linker keeps one. */

#include "kernel.h"

#include <thruway/drop.h>
#include <thruway/flow.h>
#include <thruway/fragment.h>
#include <thruway/limits.h>
#include <thruway/nexthop.h>
#include <thruway/service.h>
#include <thruway/snat.h>

#define MAP(name) name __attribute__((weak)) SEC(".maps")

struct {
    __uint(type, BPF_MAP_TYPE_ARRAY);
    __uint(map_flags, BPF_F_MMAPABLE);
    __uint(max_entries, 1);
    __type(key, u32);
    __type(value, struct tw_layout);
} MAP(layout);

/* --- services --- */

struct {
    __uint(type, BPF_MAP_TYPE_HASH);
    __uint(map_flags, BPF_F_NO_PREALLOC);
    __uint(max_entries, 4096);
    __type(key, struct tw_frontend);
    __type(value, u32);
} MAP(frontends);

struct {
    __uint(type, BPF_MAP_TYPE_HASH);
    __uint(map_flags, BPF_F_NO_PREALLOC); /* addresses of frontends that are nobody's own -> enum tw_vip_kind */
    __uint(max_entries, 4096);
    __type(key, struct tw_address);
    __type(value, u32);
} MAP(vips);

struct {
    __uint(type, BPF_MAP_TYPE_LPM_TRIE);
    __uint(map_flags, BPF_F_NO_PREALLOC); /* the value says nothing */
    __uint(max_entries, 65536);
    __type(key, struct tw_source_range);
    __type(value, u32);
} MAP(source_ranges);

struct {
    __uint(type, BPF_MAP_TYPE_LPM_TRIE);
    __uint(map_flags,
           BPF_F_NO_PREALLOC); /* what the cluster takes addresses for services from; the value says nothing */
    __uint(max_entries, 64);
    __type(key, struct tw_cidr);
    __type(value, u32);
} MAP(service_cidrs);

struct {
    __uint(type, BPF_MAP_TYPE_LRU_HASH);
    __uint(max_entries, 65536);
    __type(key, struct tw_client);
    __type(value, struct tw_affinity);
} MAP(affinity);

struct {
    __uint(type, BPF_MAP_TYPE_ARRAY);
    __uint(map_flags, BPF_F_MMAPABLE);
    __uint(max_entries, 1024);
    __type(key, u32);
    __type(value, struct tw_service);
} MAP(services);

struct {
    __uint(type, BPF_MAP_TYPE_ARRAY);
    __uint(map_flags, BPF_F_MMAPABLE);
    __uint(max_entries, 8192); /* half the number of slots */
    __type(key, u32);
    __type(value, struct tw_slots);
} MAP(slots);

struct {
    __uint(type, BPF_MAP_TYPE_ARRAY);
    __uint(map_flags, BPF_F_MMAPABLE);
    __uint(max_entries, 4096);
    __type(key, u32);
    __type(value, struct tw_backend);
} MAP(backends);

struct {
    __uint(type, BPF_MAP_TYPE_ARRAY);
    __uint(map_flags, BPF_F_MMAPABLE);
    __uint(max_entries, 1024);
    __type(key, u32);
    __type(value, struct tw_totals);
} MAP(totals);

/* Lives and dies with the socket, so it needs no size and no clean-up. */
struct {
    __uint(type, BPF_MAP_TYPE_SK_STORAGE);
    __uint(map_flags, BPF_F_NO_PREALLOC);
    __type(key, int);
    __type(value, struct tw_socket);
} MAP(sockets);

/* --- where packets go --- */

struct {
    __uint(type, BPF_MAP_TYPE_HASH);
    __uint(map_flags, BPF_F_NO_PREALLOC); /* address -> endpoint id */
    __uint(max_entries, 1024);
    __type(key, struct tw_address);
    __type(value, u32);
} MAP(endpoints);

struct {
    __uint(type, BPF_MAP_TYPE_HASH);
    __uint(map_flags, BPF_F_NO_PREALLOC); /* address of this node -> index into `addresses` */
    __uint(max_entries, 256);
    __type(key, struct tw_address);
    __type(value, u32);
} MAP(node_addresses);

struct {
    __uint(type, BPF_MAP_TYPE_HASH);
    __uint(map_flags, BPF_F_NO_PREALLOC); /* those of them that have NodePorts; the value says nothing */
    __uint(max_entries, 256);
    __type(key, struct tw_address);
    __type(value, u32);
} MAP(node_port_addresses);

struct {
    __uint(type, BPF_MAP_TYPE_ARRAY); /* what next hops name by a number: our own addresses, gateways; row 0 is none */
    __uint(map_flags, BPF_F_MMAPABLE);
    __uint(max_entries, 4096);
    __type(key, u32);
    __type(value, struct tw_address);
} MAP(addresses);

struct {
    __uint(type, BPF_MAP_TYPE_LPM_TRIE); /* pod CIDR -> next hop index; 0 for those of this node */
    __uint(map_flags, BPF_F_NO_PREALLOC);
    __uint(max_entries, 16384);
    __type(key, struct tw_cidr);
    __type(value, u32);
} MAP(nodes);

struct {
    __uint(type, BPF_MAP_TYPE_HASH);
    __uint(map_flags, BPF_F_NO_PREALLOC); /* neighbour -> next hop index */
    __uint(max_entries, 16384);
    __type(key, struct tw_gateway);
    __type(value, u32);
} MAP(gateways);

struct {
    __uint(type, BPF_MAP_TYPE_HASH);
    __uint(map_flags, BPF_F_NO_PREALLOC); /* ifindex of an uplink -> next hop index */
    __uint(max_entries, 64);
    __type(key, u32);
    __type(value, u32);
} MAP(ifindexes);

struct {
    __uint(type, BPF_MAP_TYPE_ARRAY);
    __uint(map_flags, BPF_F_MMAPABLE);
    __uint(max_entries, 2048);
    __type(key, u32);
    __type(value, struct tw_nexthop);
} MAP(nexthops);

struct {
    __uint(type, BPF_MAP_TYPE_ARRAY); /* by next hop index: moves when the index comes to mean something else */
    __uint(map_flags, BPF_F_MMAPABLE);
    __uint(max_entries, 2048);
    __type(key, u32);
    __type(value, u32);
} MAP(generations);

/* --- flows and counters --- */

struct {
    __uint(type, BPF_MAP_TYPE_ARRAY);
    __uint(map_flags, BPF_F_MMAPABLE);
    __uint(max_entries, 1280);
    __type(key, u32);
    __type(value, struct tw_bucket4);
} MAP(flows4);

struct {
    __uint(type, BPF_MAP_TYPE_ARRAY);
    __uint(map_flags, BPF_F_MMAPABLE);
    __uint(max_entries, 1280);
    __type(key, u32);
    __type(value, struct tw_bucket6);
} MAP(flows6);

struct {
    __uint(type, BPF_MAP_TYPE_ARRAY);
    __uint(map_flags, BPF_F_MMAPABLE);
    __uint(max_entries, 1);
    __type(key, u32);
    __type(value, struct tw_bucket4);
} MAP(previous4);

struct {
    __uint(type, BPF_MAP_TYPE_ARRAY);
    __uint(map_flags, BPF_F_MMAPABLE);
    __uint(max_entries, 1);
    __type(key, u32);
    __type(value, struct tw_bucket6);
} MAP(previous6);

struct {
    __uint(type, BPF_MAP_TYPE_ARRAY);
    __uint(map_flags, BPF_F_MMAPABLE);
    __uint(max_entries, TW_PURGES);
    __type(key, u32);
    __type(value, struct tw_purge);
} MAP(purges);

struct {
    __uint(type, BPF_MAP_TYPE_PERCPU_ARRAY); /* by enum tw_flow_event */
    __uint(max_entries, TW_FLOW_EVENT_COUNT);
    __type(key, u32);
    __type(value, u64);
} MAP(flow_events);

struct {
    __uint(type, BPF_MAP_TYPE_ARRAY);
    __uint(map_flags, BPF_F_MMAPABLE);
    __uint(max_entries, TW_FRAGMENTS);
    __type(key, u32);
    __type(value, struct tw_fragment);
} MAP(fragments);

struct {
    __uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
    __uint(max_entries, TW_DROPS *TW_HOOKS);
    __type(key, u32);
    __type(value, struct tw_count);
} MAP(drops);

struct {
    __uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
    __uint(max_entries, 1);
    __type(key, u32);
    __type(value, struct tw_snat);
} MAP(snat);

/* What an address stands for in `endpoints` or `node_addresses`. The key is copied: up to Linux 6.1 a map takes keys
 * from the stack, but none from the memory that a global function was handed. */
inline_always u32 *address_find(void *map, const struct tw_address *address)
{
    struct tw_address key = *address;

    return bpf_map_lookup_elem(map, &key);
}
