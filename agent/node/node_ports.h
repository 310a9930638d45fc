// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "agent/base/loop.h"
#include "agent/node/sock_diag.h"
#include "agent/planner/plan.h"

#include <deque>
#include <functional>
#include <string>
#include <unordered_map>
#include <unordered_set>
#include <vector>

namespace thruway {

/// Tells when a node port that has come is one that a process of the node has a socket at: the process gets nothing
/// from other machines any more. Looks once, when the port comes, and never keeps anybody waiting.
class NodePorts {
public:
    /// `addresses` are those at which node ports are served; `taken` gets a line for people.
    NodePorts(Loop &loop, std::function<std::vector<Address>()> addresses,
              std::function<void(const std::string &line)> taken)
        : loop_(loop), addresses_(std::move(addresses)), taken_(std::move(taken))
    {
    }
    NodePorts(const NodePorts &) = delete;
    NodePorts &operator=(const NodePorts &) = delete;
    ~NodePorts() { loop_.cancel(timer_); }

    void apply(const ServiceChanges &changes);

private:
    struct Port {
        ObjectName service;
        Frontend frontend;
    };

    void look();
    [[nodiscard]] Result<std::optional<SocketOwner>> owner_of(const Frontend &frontend);
    void tell(const Port &port, const SocketOwner &owner);

    Loop &loop_;
    std::function<std::vector<Address>()> addresses_;
    std::function<void(const std::string &line)> taken_;
    std::unordered_map<ServiceKey, std::vector<Frontend>> known_; ///< of services that have node ports
    std::deque<Port> new_;
    Loop::Timer timer_ = 0;
    std::optional<SockDiag> sockets_;
    bool blind_ = false; ///< this kernel does not tell
    // As long as ports come: both families of a port are one line, and /proc is read once.
    std::unordered_set<std::string> told_;
    std::unordered_map<uint64_t, std::string> processes_;
};

} // namespace thruway
