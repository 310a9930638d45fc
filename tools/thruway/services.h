// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "tools/thruway/join.h"
#include "tools/thruway/listing.h"

namespace thruway::cli {

/// The row of one Service port, as `service list` has it.
Row service_row(const JoinedService &service);

/// The name of a Service port: {namespace, name, port_name, protocol}.
Row port_row(const PortName &name);

/// "web", "default/web:http" and the like, from such a row.
std::string port_text(const Row &row);

/// `service list`
Listing service_list(const Site &site);

/// `service get`: all ports of a Service, with what they have carried.
Listing service_get(const Site &site, const ObjectName &name);

} // namespace thruway::cli
