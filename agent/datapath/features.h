// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <string>
#include <vector>

namespace thruway {

/// What this kernel can do, found by trying and not by its version: vendors carry features back.
struct Features {
    bool tcx = false; ///< multi-program tc links (Linux 6.6); else clsact filters are used

    /// Names of features that are needed and missing.
    std::vector<std::string> missing;

    static Features probe();
};

/// What libbpf complained about first since this was emptied: it prints, and returns only a number.
std::string &libbpf_complaint();

/// Begins to listen to libbpf.
void hear_libbpf();

} // namespace thruway
