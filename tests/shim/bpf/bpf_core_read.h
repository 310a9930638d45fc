/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
#pragma once

/* Stands in for libbpf's header of this name, as bpf_helpers.h does: here every struct is the one that was compiled. */

#define preserve_access_index
#define BPF_CORE_READ_BITFIELD(from, field) ((from)->field)
