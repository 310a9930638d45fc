/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
#pragma once

#include "kernel.h"

#include <thruway/limits.h>

/* The loader fills this in before the programs are verified, so that what a node does not need is dead code. */
const volatile struct tw_config config __attribute__((weak)) SEC(".rodata.config");
