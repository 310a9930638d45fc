// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "agent/base/address.h"
#include "agent/base/fd.h"
#include "agent/state/objects.h"

#include <linux/inet_diag.h>
#include <optional>
#include <string>
#include <unordered_map>

namespace thruway {

/// A socket of this network namespace.
struct SocketOwner {
    uint64_t inode = 0;
    uint32_t user = 0;
};

/// Speaks with the kernel about the sockets of this network namespace (sock_diag(7)).
class SockDiag {
public:
    static Result<SockDiag> open();

    /// The socket that takes what is sent to this address and port by anybody: one that listens (TCP), or one that is
    /// bound and not connected (UDP).
    Result<std::optional<SocketOwner>> at(const Address &address, uint16_t port, Protocol protocol);

    /// Ends a socket, as `ss -K`: its owner's next call fails. One that is gone already is none to end. Fails, too, if
    /// the kernel cannot end sockets (CONFIG_INET_DIAG_DESTROY).
    Result<> end(const inet_diag_req_v2 &socket);

private:
    explicit SockDiag(Fd socket) : socket_(std::move(socket)) {}

    Result<std::optional<inet_diag_msg>> ask(uint16_t type, const inet_diag_req_v2 &socket);

    Fd socket_;
};

/// Which process has which socket, by inode, as far as /proc shows them: "4711 (nginx)". Reads all of /proc, so it
/// takes some milliseconds.
std::unordered_map<uint64_t, std::string> socket_processes();

} // namespace thruway
