/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
#pragma once

/* What tests see of programs that are compiled for userspace: their maps, and their constants, which here are
 * variables. */

#include <linux/types.h>
#include <thruway/limits.h>

// NOLINTBEGIN(readability-identifier-naming): C
#ifdef __cplusplus
extern "C" {
extern struct tw_config config;
#endif

/* A map's definition, and where its memory hangs. */
struct shim_map {
    const void *variable;
    unsigned type, key_size, value_size, capacity;
    void **keys, **values;
};

/* The map that lies in this variable, for code that has only its address; who compiles such code lists its maps. */
const struct shim_map *shim_map_at(const void *variable);

void *shim_allocate(const struct shim_map *map);
void *shim_find(const struct shim_map *map, const void *key);
long shim_update(const struct shim_map *map, const void *key, const void *value, __u64 flags);
long shim_delete(const struct shim_map *map, const void *key);
void shim_clear(const struct shim_map *map);

extern __thread unsigned shim_cpu; /* the CPU that this thread plays */

#ifdef __cplusplus
}
#endif
// NOLINTEND(readability-identifier-naming)
