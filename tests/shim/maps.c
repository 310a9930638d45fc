/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* Memory of maps, and hashes and tries in the slow and obvious way: entries in a row, searched from end to end. */

#include "bpf/bpf_helpers.h"

#include <errno.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

enum { SHIM_CPUS = 8 };

__thread unsigned shim_cpu;

/* Takes the place of the weak constant that the programs bring along. */
struct tw_config config;

/* Entry i of a hash is in use if used[i]; the flags lie behind the keys. */
static unsigned char *used_of(const struct shim_map *map)
{
    return (unsigned char *)*map->keys + (size_t)map->capacity * map->key_size;
}

static size_t copies_of(const struct shim_map *map)
{
    return map->type == BPF_MAP_TYPE_PERCPU_ARRAY ? SHIM_CPUS : 1;
}

void *shim_allocate(const struct shim_map *map)
{
    *map->values = calloc(copies_of(map) * map->capacity, map->value_size);
    *map->keys = calloc(map->capacity, map->key_size + 1);
    if (!*map->values || !*map->keys)
        abort();
    return *map->values;
}

void shim_clear(const struct shim_map *map)
{
    if (!*map->values)
        shim_allocate(map);
    memset(*map->keys, 0, (size_t)map->capacity * (map->key_size + 1));
    memset(*map->values, 0, copies_of(map) * map->capacity * map->value_size);
}

/* True if the first bits[0] bits after the length in two keys of an LPM trie are equal. */
static bool prefix_covers(const void *prefix, const void *key)
{
    __u32 bits = *(const __u32 *)prefix;
    const unsigned char *a = (const unsigned char *)prefix + 4, *b = (const unsigned char *)key + 4;

    if (memcmp(a, b, bits / 8) != 0)
        return false;
    return bits % 8 == 0 || (a[bits / 8] ^ b[bits / 8]) >> (8 - bits % 8) == 0;
}

static long entry_of(const struct shim_map *map, const void *key, bool exact)
{
    long best = -1;
    __u32 best_bits = 0;

    if (!*map->values)
        shim_allocate(map);
    for (unsigned i = 0; i < map->capacity; i++) {
        const char *have = (const char *)*map->keys + (size_t)i * map->key_size;

        if (!used_of(map)[i])
            continue;
        if (map->type != BPF_MAP_TYPE_LPM_TRIE || exact) {
            if (memcmp(have, key, map->key_size) == 0)
                return i;
        } else if (prefix_covers(have, key) && (best < 0 || *(const __u32 *)have > best_bits)) {
            best = i;
            best_bits = *(const __u32 *)have;
        }
    }
    return best;
}

void *shim_find(const struct shim_map *map, const void *key)
{
    long entry = entry_of(map, key, false);

    return entry < 0 ? NULL : (char *)*map->values + (size_t)entry * map->value_size;
}

static bool is_array(const struct shim_map *map)
{
    return map->type == BPF_MAP_TYPE_ARRAY || map->type == BPF_MAP_TYPE_PERCPU_ARRAY;
}

/* A free entry; of an LRU hash, if none is free, the next one in turn. */
static long entry_free(const struct shim_map *map)
{
    static unsigned turn;

    for (unsigned i = 0; i < map->capacity; i++)
        if (!used_of(map)[i])
            return i;
    return map->type == BPF_MAP_TYPE_LRU_HASH ? (long)(turn++ % map->capacity) : -1;
}

long shim_update(const struct shim_map *map, const void *key, const void *value, __u64 flags)
{
    long entry;

    if (is_array(map)) {
        void *row = shim_lookup(map, key);

        if (!row)
            return -E2BIG;
        memcpy(row, value, map->value_size);
        return 0;
    }
    entry = entry_of(map, key, true);
    if (entry >= 0 && flags == BPF_NOEXIST)
        return -EEXIST;
    if (entry < 0 && flags == BPF_EXIST)
        return -ENOENT;
    if (entry < 0)
        entry = entry_free(map);
    if (entry < 0)
        return -E2BIG;
    used_of(map)[entry] = 1;
    memcpy((char *)*map->keys + (size_t)entry * map->key_size, key, map->key_size);
    memcpy((char *)*map->values + (size_t)entry * map->value_size, value, map->value_size);
    return 0;
}

long shim_delete(const struct shim_map *map, const void *key)
{
    long entry = entry_of(map, key, true);

    if (entry < 0)
        return -ENOENT;
    used_of(map)[entry] = 0;
    return 0;
}
