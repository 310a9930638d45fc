// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "agent/base/address.h"
#include "agent/base/fd.h"
#include "agent/state/objects.h"

#include <optional>
#include <string>
#include <unordered_map>

namespace thruway {

/// A socket of this network namespace.
struct SocketOwner {
    uint64_t inode = 0;
    uint32_t user = 0;
};

/// Asks the kernel who would get a packet, without touching anything (sock_diag(7)).
class SocketLookup {
public:
    static Result<SocketLookup> open();

    /// The socket that takes what is sent to this address and port by anybody: one that listens (TCP), or one that is
    /// bound and not connected (UDP).
    Result<std::optional<SocketOwner>> at(const Address &address, uint16_t port, Protocol protocol);

private:
    explicit SocketLookup(Fd socket) : socket_(std::move(socket)) {}

    Fd socket_;
};

/// Which process has which socket, by inode, as far as /proc shows them: "4711 (nginx)". Reads all of /proc, so it
/// takes some milliseconds.
std::unordered_map<uint64_t, std::string> socket_processes();

} // namespace thruway
