/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
#pragma once

/* The packet programs of bpf/, compiled for userspace, as C++ can call them. */

#include "tests/shim/shim.h"

// NOLINTBEGIN(readability-identifier-naming): C
#ifdef __cplusplus
extern "C" {
#endif

enum program { PROGRAM_FROM_POD, PROGRAM_TO_POD, PROGRAM_FROM_NET, PROGRAM_TO_NET, PROGRAM_XDP_NET, PROGRAMS };

/* A packet as a program gets it, and what it made of it. */
struct frame {
    __u32 ifindex;
    __u32 mark;
    __u32 length;
    __u32 linear;     /* bytes that the program can reach without asking for more; in XDP it cannot ask */
    __u32 redirected; /* interface that it goes to */
    int resized;      /* a helper has changed its length */
    __u8 bytes[4096];
};

int program_run(enum program program, struct frame *frame);

/* All random numbers are this. */
extern __u32 shim_random;
/* What the kernel's routing says: everything beyond this interface, at these gateways. */
extern __u32 shim_uplink;

/* The map of this name, or null. */
const struct shim_map *program_map(const char *name);

#ifdef __cplusplus
}
#endif
// NOLINTEND(readability-identifier-naming)
