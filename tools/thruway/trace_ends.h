// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "tools/thruway/names.h"

#include <optional>
#include <string>
#include <vector>

namespace thruway::cli {

/// One end of a trace, as it was typed: an address, "host", or the name of a pod or Service, each with or without a
/// port.
struct TraceEnd {
    std::optional<Address> address;
    std::optional<Symbol> space;
    std::string name;                ///< if there is no address
    std::optional<std::string> port; ///< a number; of a Service also a name

    [[nodiscard]] std::string text() const;

    /// The port, if it is a number.
    [[nodiscard]] std::optional<uint16_t> number() const;
};

Result<TraceEnd> parse_trace_end(const std::string &text);

/// What an end may mean: addresses, and of a Service its port and protocol.
struct TracePoint {
    std::vector<Address> addresses;
    uint16_t port = 0; ///< 0: none
    std::optional<Protocol> protocol;
};

/// The destination by its name. Fails in one line if nothing is called so, or several things are.
Result<TracePoint> find_destination(const TraceEnd &end, const std::optional<std::string> &protocol,
                                    const Names &names);

/// The addresses of a pod; of `what` an error says that there is none.
Result<std::vector<Address>> find_pod(const TraceEnd &end, const Names &names, const char *what);

} // namespace thruway::cli
