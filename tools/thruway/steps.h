// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "agent/datapath/dry_run.h"
#include "tools/thruway/join.h"
#include "tools/thruway/listing.h"
#include "tools/thruway/names.h"

#include <functional>
#include <string>

namespace thruway::cli {

/// What numbers and addresses in records of a dry run are called.
struct Terms {
    const Names &names;
    ServiceNames services;
    std::function<Row(uint32_t index)> hop; ///< a next hop: {index, kind, name, ...}, as hop_row() has it
};

/// A record of a dry run with names; `protocol` is that of its packet.
Row step_row(const tw_step &step, uint8_t protocol, const Terms &terms);

/// How it ended, from the program's verdict and its last record: {step: verdict, verdict:
/// delivered|sent|stack|answered|dropped,
/// ...}. `pass` is where a packet goes that the program lets pass.
Row verdict_row(const Walk &walk, const Row &pass, const Terms &terms);

/// Any of these rows in words.
std::string step_words(const Row &row);

/// "default/web-1:8080 (10.244.1.3)": who is at an end, and its address.
std::string end_words(const Row &end);

} // namespace thruway::cli
