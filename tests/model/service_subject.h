// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "agent/kube/decode.h"
#include "agent/planner/services.h"
#include "tests/datapath/world.h"
#include "tests/model/service_cases.h"

#include <array>
#include <map>
#include <optional>
#include <string>
#include <vector>

namespace thruway::reference {

/// A packet that went to a backend: as it was sent, and as it arrived.
struct Flow {
    Packet packet;
    Backend backend;
    test::Packet request;
    test::Packet arrived;
};

/// What is compared with the model: manifests go through decoder, planner and applier into the maps, packets through
/// the loaded programs.
class Subject {
public:
    Subject();

    /// The node that the model has to know of.
    [[nodiscard]] Node node() const;

    /// As the agent takes changes that come at once. Throws on what it refuses to read.
    void change(const std::vector<Change> &changes);

    /// What the packet's fate and the model's answer to it disagree about; empty if nothing. If the packet went to a
    /// backend that it might go to, says how in `flow`. Each packet begins a flow of its own.
    std::string compare(const Cluster &cluster, const Packet &packet, const Answer &answer, std::optional<Flow> &flow)
    {
        return judge(cluster, packet, answer, build(packet), flow);
    }
    /// The same of a packet that has been sent before.
    std::string compare_again(const Cluster &cluster, const Flow &before, const Answer &answer,
                              std::optional<Flow> &flow)
    {
        return judge(cluster, before.packet, answer, before.request, flow);
    }

    /// The backend answers: what is wrong with what the client sees.
    std::string answer(const Flow &flow);
    /// The client goes on: it is to come to the same backend, as the same client.
    std::string go_on(const Flow &flow);

    void forget_flows();

    /// How many of the packets that were refused got an answer: errors have a limit in time.
    [[nodiscard]] unsigned told() const { return told_; }

private:
    enum class Hook : uint8_t { from_pod, from_net, to_net };

    void read(const std::string &manifest);
    void move_node(const thruway::Node &node);
    void move_node_ports(const std::vector<std::string> &addresses);
    [[nodiscard]] test::Packet build(const Packet &packet);
    test::Outcome run(Hook hook, unsigned ifindex, const test::Packet &packet);
    test::Outcome run_at_uplink(const test::Packet &packet);
    test::Outcome send(const Packet &packet, const test::Packet &built);
    test::Outcome send_back(const Flow &flow, const test::Packet &reply);
    /// The reason of the drop that has been counted since the last call.
    std::string dropped_for();
    std::string judge(const Cluster &cluster, const Packet &packet, const Answer &answer, const test::Packet &built,
                      std::optional<Flow> &flow);
    std::string compare_forwarded(const Cluster &cluster, const Packet &packet, const Answer &answer,
                                  const test::Packet &built, const test::Outcome &out, std::optional<Flow> &flow);
    static std::string compare_answered(const test::Packet &built, test::Outcome out);
    std::string compare_refused(const Packet &packet, const Answer &answer, const test::Packet &built,
                                const test::Outcome &out);
    [[nodiscard]] const test::PodSpec *pod(const std::string &address) const;
    [[nodiscard]] bool is_own(const std::string &address) const;

    test::World world_;
    std::vector<const test::PodSpec *> pods_;
    std::array<Fd, 3> programs_;
    Decoder decoder_;
    ServicePlanner planner_;
    Place place_;
    std::vector<uint64_t> drops_;
    uint16_t source_port_ = 0;
    bool xdp_turn_ = false;
    unsigned told_ = 0;
};

} // namespace thruway::reference
