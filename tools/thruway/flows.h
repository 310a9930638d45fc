// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "agent/datapath/flows.h"
#include "tools/thruway/join.h"
#include "tools/thruway/listing.h"

#include <optional>
#include <string>
#include <unordered_set>

namespace thruway::cli {

/// Which flows are listed: those for which all that is set holds.
struct FlowFilter {
    std::optional<Address> address;      ///< of either end, before or after translation
    std::optional<uint16_t> port;        ///< likewise
    std::optional<std::string> protocol; ///< "tcp", "udp", "sctp" or "icmp"; the last means ICMPv6, too
    std::optional<ObjectName> service;
    std::optional<uint64_t> limit; ///< this many, and no more
};

/// One end of a tuple, and who it is: {address, port, kind, namespace, name}.
Row end_row(const Address &address, uint16_t port, uint8_t protocol, const Names &names);

/// Such a row as "default/web-1:8080"; the address where there is no name, or none is wanted.
std::string end_text(const Row &end, bool named);

/// "TCP", "ICMPv6" and the like by protocol number; the number itself for others.
std::string transport_name(uint8_t protocol);

/// Names of the bits of enum tw_flow_flag, as an array.
Row flow_flags(uint8_t flags);

/// Address, port and protocol only: the rest of the filter is not about the flow alone.
bool matches(const FlowFilter &filter, const Flow &flow);

/// The row of a flow, as `flow list` has it.
Row flow_row(const Flow &flow, const Names &names, const ServiceNames &services);

/// `flow list`, in the order of the table.
Listing flow_list(const Site &site, const FlowFilter &filter);

} // namespace thruway::cli
