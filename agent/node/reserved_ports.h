// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "agent/base/error.h"

#include <bitset>
#include <string>
#include <string_view>

namespace thruway {

/// A set of ports as the kernel writes it: "80,8000-8079", empty for none.
class PortSet {
public:
    static Result<PortSet> parse(std::string_view text);

    /// The ports from `first` to `last`.
    static PortSet range(uint16_t first, uint16_t last);

    [[nodiscard]] std::string text() const;
    [[nodiscard]] bool empty() const { return ports_.none(); }
    [[nodiscard]] PortSet with(const PortSet &other) const { return PortSet(ports_ | other.ports_); }
    [[nodiscard]] PortSet without(const PortSet &other) const { return PortSet(ports_ & ~other.ports_); }

private:
    using Bits = std::bitset<65'536>;

    PortSet() = default;
    explicit PortSet(const Bits &ports) : ports_(ports) {}

    Bits ports_;
};

/// Keeps the kernel from giving ports of the SNAT range to sockets of this node that ask for any port: such a socket
/// could be to a backend what a translated client is, and get its answers. They are added to
/// net.ipv4.ip_local_reserved_ports, which is for both families (Documentation/networking/ip-sysctl.rst).
class ReservedPorts {
public:
    /// `record` is a file that remembers which ports were added.
    explicit ReservedPorts(std::string record) : record_(std::move(record)) {}

    Result<> reserve(const PortSet &ports) const;

    /// Takes back what was added; what was reserved before stays so.
    Result<> release() const;

private:
    std::string record_;
};

} // namespace thruway
