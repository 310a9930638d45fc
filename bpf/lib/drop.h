/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
#pragma once

#include "maps.h"

/* Counts a drop; every packet that we discard passes here. Returns the verdict. */
inline_always int drop(enum tw_drop reason, enum tw_hook hook, u32 length)
{
    u32 index = reason * TW_HOOKS + hook;
    struct tw_count *count = bpf_map_lookup_elem(&drops, &index);

    if (count) {
        count->packets++;
        count->bytes += length;
    }
    return VERDICT_DROP;
}
