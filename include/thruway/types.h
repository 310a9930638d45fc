/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
#pragma once

/* The few types that every shared layout is made of. All headers in this folder compile as C (clang -target bpf)
 * and as C++, and both sides check each layout with TW_LAYOUT, so neither can drift from the other. */

#include <linux/types.h>

#ifdef __cplusplus
#include <cstddef>
#define TW_LAYOUT(type, size) static_assert(sizeof(type) == (size), #type " changed its size")
#define TW_OFFSET(type, field, at) static_assert(offsetof(type, field) == (at), #type "." #field " moved")
#else
#define TW_LAYOUT(type, size) _Static_assert(sizeof(type) == (size), #type " changed its size")
#define TW_OFFSET(type, field, at) _Static_assert(__builtin_offsetof(type, field) == (at), #type "." #field " moved")
#endif

/* An address of either family in network byte order; IPv4 is kept IPv4-mapped (::ffff:a.b.c.d, RFC 4291 2.5.5.2), so
 * one key layout and one map serve both families. The IPv4 address itself is word[3]. */
struct tw_address {
    __u32 word[4];
} __attribute__((aligned(8)));
TW_LAYOUT(struct tw_address, 16);

/* One end of a conversation. The port is in network byte order. */
struct tw_end {
    struct tw_address address;
    __u16 port;
    __u16 unused[3];
};
TW_LAYOUT(struct tw_end, 24);
