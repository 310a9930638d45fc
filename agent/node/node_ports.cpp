// SPDX-License-Identifier: Apache-2.0
#include "agent/node/node_ports.h"

#include <algorithm>
#include <spdlog/spdlog.h>

namespace thruway {
namespace {

/// How many ports are looked at in one go: less than a millisecond.
constexpr size_t at_once = 64;

std::vector<Frontend> node_ports_of(const ServicePlan &plan)
{
    std::vector<Frontend> ports;
    for (const Entrance &entrance : plan.frontends)
        // SCTP's sockets would take a module of the kernel that hardly anybody has loaded.
        if (entrance.kind == TW_FRONTEND_NODE_PORT && entrance.protocol != Protocol::sctp)
            ports.push_back(entrance);
    return ports;
}

} // namespace

void NodePorts::apply(const ServiceChanges &changes)
{
    if (blind_)
        return;
    for (const ServiceKey &key : changes.deletes)
        known_.erase(key);
    for (const ServicePlan &plan : changes.upserts) {
        std::vector<Frontend> ports = node_ports_of(plan);
        const auto known = known_.find(plan.key);
        for (const Frontend &port : ports)
            if (known == known_.end() || std::ranges::find(known->second, port) == known->second.end())
                new_.push_back({plan.key.service, port});
        if (!ports.empty())
            known_.insert_or_assign(plan.key, std::move(ports));
        else if (known != known_.end())
            known_.erase(known);
    }
    if (!new_.empty() && timer_ == 0)
        timer_ = loop_.after({}, [this] { look(); });
}

void NodePorts::look()
{
    timer_ = 0;
    for (size_t i = 0; i < at_once && !new_.empty(); i++) {
        const Port port = std::move(new_.front());
        new_.pop_front();
        const auto owner = owner_of(port.frontend);
        if (!owner) {
            spdlog::info("node ports that a process has are not told: {}", owner.error().text());
            blind_ = true;
            new_.clear();
            known_.clear();
        } else if (*owner) {
            tell(port, **owner);
        }
    }
    if (!new_.empty()) {
        timer_ = loop_.after({}, [this] { look(); });
        return;
    }
    told_.clear();
    processes_.clear();
}

Result<std::optional<SocketOwner>> NodePorts::owner_of(const Frontend &frontend)
{
    if (!sockets_) {
        auto opened = SockDiag::open();
        if (!opened)
            return std::unexpected(opened.error());
        sockets_ = std::move(*opened);
    }
    for (const Address &address : addresses_()) {
        if (address.family() != frontend.address.family())
            continue;
        auto owner = sockets_->at(address, frontend.port, frontend.protocol);
        if (!owner || *owner)
            return owner;
    }
    return std::nullopt;
}

void NodePorts::tell(const Port &port, const SocketOwner &owner)
{
    if (processes_.empty())
        processes_ = socket_processes();
    const auto process = processes_.find(owner.inode);
    const std::string line = fmt::format(
        "Service {}: node port {}/{}: {} has a socket there, which nobody on another machine reaches now",
        port.service.text(), port.frontend.port, protocol_name(port.frontend.protocol),
        process != processes_.end() ? "process " + process->second : fmt::format("a process of user {}", owner.user));
    if (told_.insert(line).second)
        taken_(line);
}

} // namespace thruway
