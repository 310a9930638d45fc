// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "agent/datapath/layout.h"

#include <string>

namespace thruway {

/// How the flow table changes its size or layout under live traffic. What is pinned says how far it has come, so that
/// an agent that is killed anywhere in it is followed by one that goes on:
///
///  1. The phase says that flows are made in the previous table. `flows4` and `flows6` are pinned once more as
///  `previous4`
///     and `previous6`; then new, empty tables take their names. Nothing of this touches what runs.
///  2. Programs that know both tables are loaded and attached to all hooks, one after the other. Whatever programs are
///  at
///     work meanwhile make their flows in the previous table, where all of them find them.
///  3. The phase says that flows are made in the current table.
///  4. gc moves flows from the previous table into the current one. For flows for which this has no room (after it has
///  been
///     made smaller) they stay as they are, until they end.
///  5. When the previous table is empty, programs that know no other are attached, and the pins of the previous one go.
///
/// A table of an older layout is the previous one of a change, too. Layout version 1 had the same rows, but no spill
/// area: `tw_config.previous_window` tells programs. A version that changes rows converts them in gc_move() in
/// bpf/gc.bpf.c, and reads them where bpf/lib/flow.h reads a row of the previous table.

/// Step 1, if the tables that are pinned are not of this version or have not so many rows; what an agent before has
/// begun is gone on with.
Result<> prepare_flow_tables(const std::string &bpffs, uint32_t rows);

/// Step 3.
void use_current_flow_tables(Arrays &arrays);

/// The pins part of step 5.
void drop_previous_flow_tables(const std::string &bpffs);

} // namespace thruway
