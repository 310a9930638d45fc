// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "agent/base/error.h"
#include "agent/datapath/links.h"

#include <string>

namespace thruway {

/// How uplinks are to run xdp_net: automatic is native, too, but has no claim to it.
enum class XdpMode : uint8_t { off, native, automatic };

std::string_view xdp_mode_name(XdpMode mode);
Result<XdpMode> parse_xdp_mode(const std::string &text);

/// An interface as XDP sees it.
struct XdpDevice {
    unsigned ifindex = 0;
    bool veth = false;
};

/// What became of XDP on an interface.
struct XdpState {
    XdpMode mode = XdpMode::off;
    std::string reason;   ///< why it is off, if it was wanted
    bool refused = false; ///< because the driver does not take it
    uint16_t way = 0;     ///< how XDP may send by it: TW_NEXTHOP_XDP, TW_NEXTHOP_REDIRECT
};

/// Attaches xdp_net as far as `mode` and the device go, takes it off where not. A program of somebody else's is never
/// displaced. What XDP does not do, tc does.
XdpState attach_xdp(const Links &links, int program, const XdpDevice &device, XdpMode mode);

} // namespace thruway
