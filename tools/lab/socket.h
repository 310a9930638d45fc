// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "agent/base/address.h"
#include "agent/base/error.h"
#include "agent/base/fd.h"

#include <chrono>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <sys/socket.h>

namespace thruway::lab {

enum class Transport : uint8_t { tcp, udp };

/// An address and port, as sockets are bound and connected to.
struct SocketName {
    Address address;
    uint16_t port = 0;

    [[nodiscard]] std::string text() const { return endpoint_text(address, port); }
};

/// "10.0.0.1:80", "[fd00::1]:80".
Result<SocketName> parse_socket_name(std::string_view text);

/// As parse_socket_name; the port may be left out, which leaves its choice to the kernel. "10.0.0.1", "fd00::1".
Result<SocketName> parse_source(std::string_view text);

/// What system calls want.
struct RawSocketName {
    sockaddr_storage storage{};
    socklen_t size = sizeof(sockaddr_storage);

    RawSocketName() = default;
    explicit RawSocketName(const SocketName &name);

    [[nodiscard]] sockaddr *get() { return reinterpret_cast<sockaddr *>(&storage); }

    /// An IPv4 address in its IPv6 form is IPv4.
    [[nodiscard]] SocketName name() const;
};

/// A non-blocking socket that begins to connect. Fails with the errno of whatever was refused at once.
Result<Fd> begin_connect(Transport transport, const SocketName &target, const std::optional<SocketName> &source = {});

/// A connected TCP socket, non-blocking.
Result<Fd> connect_within(const SocketName &target, std::chrono::milliseconds timeout);

/// The error that is pending on a socket; 0: none.
int pending_error(int socket);

/// An errno of a socket in one word, if the network is behind it: "refused", "reset", "timeout", "unreachable".
std::string network_reason(int code);

/// Whether an errno tells that this machine ran out of something (ports, descriptors, memory) or was misused, and says
/// nothing of the network.
bool is_own_fault(int code);

/// Allows as many open descriptors as the system grants.
void raise_descriptor_limit();

} // namespace thruway::lab
