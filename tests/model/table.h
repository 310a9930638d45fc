/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
#pragma once

/* The flow table of bpf/lib/flow.h, compiled for userspace, as C++ can call it. A test names flows by small numbers:
 * all that a row of flow N must say follows from N. */

#include <thruway/flow.h>
#include <thruway/limits.h>

// NOLINTBEGIN(readability-identifier-naming): C
#ifdef __cplusplus
extern "C" {
#endif

/* As many rows beside its bucket as a flow in the tests' small tables can need. */
enum { table_window = 2 };

/* What a packet saw of its row. */
struct seen {
    int result; /* enum flow_result */
    __u32 place;
    __u32 word;
    __u32 next;
    __u32 back;
    bool whole; /* all that was copied is of one flow, which has this key */
};

enum { TABLE_FOUND, TABLE_STALE, TABLE_MISSING, TABLE_CREATED, TABLE_EXISTS, TABLE_TAKEN, TABLE_BUSY, TABLE_FULL };

/* A packet of flow `number`: of the original direction, or a reply. */
struct seen table_find(__u32 number, bool reply, __u16 now, bool v6);
bool table_stands(__u32 number, bool reply, __u16 now, bool v6);
int table_create(__u32 number, __u8 state, __u32 ends, __u16 now, bool v6);
void table_end(__u32 place, __u32 version, bool v6);
void table_advance(__u32 place, __u32 version, __u8 tcp_flags, bool v6);
void table_repoint(__u32 place, __u32 version, __u32 ends, bool reply, bool v6);
/* gc over the first buckets of a table; out of the previous one it moves the flows. */
void table_gc(__u32 buckets, __u16 now, bool previous, bool v6);
bool table_has_key(const struct tw_flow *row, __u32 number, bool reply, bool v6);
void table_touch(const struct seen *seen, __u16 now, bool v6);

/* Maps get their memory when they are first looked into: here, before several threads do so. */
void table_allocate(void);

/* Memory of the current table, or of the one before. */
void *table_memory(bool previous, bool v6);

/* Exchanges the two: the only table of a program from before the change is what later ones call the previous one. */
void table_exchange(void);

/* enum tw_phase: in which table new flows are made. */
__u32 *table_phase(void);
void table_set_phase(__u32 phase);

#ifdef __cplusplus
}
#endif
// NOLINTEND(readability-identifier-naming)
