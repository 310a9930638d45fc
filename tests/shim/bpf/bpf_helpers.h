/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
#pragma once

/* Stands in for libbpf's header of this name where the programs are compiled for userspace: tests that need more of
 * them than a kernel shows (every interleaving, coverage, sanitizers). The code under test is the same, unchanged.
 *
 * A map is what its definition says: the macros below read type and sizes from the variable's own type, and its members
 * `key` and `value`, which nobody else uses, point to the memory. So a map needs no line here, and a helper needs one.
 */

#include "../shim.h"

#include <linux/bpf.h>
#include <stddef.h>

#define SEC(name)
#define __weak __attribute__((weak))
#define __ksym
#undef __noinline
#define __noinline __attribute__((noinline))
#undef __always_inline
#define __always_inline inline __attribute__((always_inline))

#define __uint(name, value) int(*name)[value]
#define __type(name, value) typeof(value) *name

/* What the variable's type says of a map; of a `void *` it says type 0. */
struct shim_unknown {
    int (*type)[0], (*max_entries)[0];
    char *key, *value;
};

#define SHIM_TYPED(map)                                                                                                \
    __builtin_choose_expr(__builtin_types_compatible_p(typeof(map), void *), (struct shim_unknown *)(void *)(map), map)

#define SHIM_OF(variable, map)                                                                                         \
    {variable,                                                                                                         \
     sizeof(*(map)->type) / sizeof(int),                                                                               \
     sizeof(*(map)->key),                                                                                              \
     sizeof(*(map)->value),                                                                                            \
     sizeof(*(map)->max_entries) / sizeof(int),                                                                        \
     (void **)&(map)->key,                                                                                             \
     (void **)&(map)->value}

#define SHIM_MAP(map) (&(const struct shim_map)SHIM_OF((map), SHIM_TYPED(map)))

static __always_inline void *shim_lookup(const struct shim_map *map, const void *key)
{
    char *values;
    __u32 index;

    if (!map->type)
        map = shim_map_at(map->variable);
    if (map->type != BPF_MAP_TYPE_ARRAY && map->type != BPF_MAP_TYPE_PERCPU_ARRAY)
        return shim_find(map, key);
    index = *(const __u32 *)key;
    if (index >= map->capacity)
        return NULL;
    values = *map->values;
    if (!values)
        values = shim_allocate(map);
    if (map->type == BPF_MAP_TYPE_PERCPU_ARRAY)
        index += shim_cpu * map->capacity;
    return values + (size_t)index * map->value_size;
}

#define bpf_map_lookup_elem(map, ...) shim_lookup(SHIM_MAP(map), __VA_ARGS__)
#define bpf_map_update_elem(map, ...) shim_update(SHIM_MAP(map), __VA_ARGS__)
#define bpf_map_delete_elem(map, ...) shim_delete(SHIM_MAP(map), __VA_ARGS__)

static __always_inline long bpf_loop(__u32 count, int (*step)(__u32, void *), void *context, __u64 flags)
{
    (void)flags;
    for (__u32 i = 0; i < count; i++)
        if (step(i, context))
            return i + 1;
    return count;
}

/* Helpers that the programs call, see helpers.c. */
__u64 bpf_ktime_get_coarse_ns(void);
__u64 bpf_jiffies64(void);
void *bpf_cast_to_kern_ctx(void *ctx) __weak;
__u32 bpf_get_prandom_u32(void);
long bpf_redirect(__u32 ifindex, __u64 flags);
struct bpf_sock *bpf_skc_lookup_tcp(void *ctx, struct bpf_sock_tuple *tuple, __u32 size, __u64 netns, __u64 flags);
struct bpf_sock *bpf_sk_lookup_udp(void *ctx, struct bpf_sock_tuple *tuple, __u32 size, __u64 netns, __u64 flags);
long bpf_sk_release(struct bpf_sock *socket);
long bpf_redirect_peer(__u32 ifindex, __u64 flags);
long bpf_redirect_neigh(__u32 ifindex, struct bpf_redir_neigh *neighbour, int size, __u64 flags);
long bpf_fib_lookup(void *ctx, struct bpf_fib_lookup *fib, int size, __u32 flags);
long bpf_skb_pull_data(struct __sk_buff *skb, __u32 length);
long bpf_skb_load_bytes(const struct __sk_buff *skb, __u32 offset, void *to, __u32 size);
long bpf_skb_store_bytes(struct __sk_buff *skb, __u32 offset, const void *from, __u32 size, __u64 flags);
long bpf_skb_change_tail(struct __sk_buff *skb, __u32 length, __u64 flags);
long bpf_skb_adjust_room(struct __sk_buff *skb, __s32 change, __u32 mode, __u64 flags);
long bpf_l4_csum_replace(struct __sk_buff *skb, __u32 offset, __u64 from, __u64 to, __u64 flags);
__s64 bpf_csum_update(struct __sk_buff *skb, __u32 sum);
__u64 bpf_xdp_get_buff_len(struct xdp_md *xdp);
