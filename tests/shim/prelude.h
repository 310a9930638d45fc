/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
#pragma once

/* Comes before each program file that is compiled for userspace: what of kernel.h is in another machine's language. */

#include "bpf/lib/kernel.h"

#undef bpf_cast_to_kern_ctx

#undef masked
#define masked(value, mask) ((u64)(value) & (mask))

#undef conntrack_answers
#define conntrack_answers() (bpf_skb_ct_lookup && bpf_ct_release)
