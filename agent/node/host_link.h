// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "agent/node/netlink.h"

namespace thruway {

/// An interface of our own by which the host's stack takes packets from its own addresses, which it refuses on any
/// other (accept_local, Documentation/networking/ip-sysctl.rst). Needed where a packet between the host and itself has
/// been translated on its way. Made if it is not there; it is one end of a veth, since every node has that driver.
Result<Link> make_host_link(Netlink &netlink);

/// No error if there is none.
Result<> remove_host_link(Netlink &netlink);

} // namespace thruway
