/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
#pragma once

#include "steps.h"

/* Counts a drop; every packet that we discard passes here. Returns the verdict. */
static __noinline int drop(enum tw_drop reason, enum tw_hook hook, u32 length)
{
    u32 index = reason * TW_HOOKS + hook;
    struct tw_count *count;

    step_number(TW_STEP_DROP, reason, hook);
    if (config.dry)
        return VERDICT_DROP;
    count = bpf_map_lookup_elem(&drops, &index);
    if (count) {
        count->packets++;
        count->bytes += length;
    }
    return VERDICT_DROP;
}
