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
    /// backend that it might go to, says which in `to`.
    std::string compare(const Cluster &cluster, const Packet &packet, const Answer &answer, std::optional<Backend> &to);

    /// How many packets were refused, and how many of those got an answer: errors have a limit in time.
    [[nodiscard]] unsigned refused() const { return refused_; }
    [[nodiscard]] unsigned told() const { return told_; }

private:
    enum class Hook : uint8_t { from_pod, from_net, to_net };

    void read(const std::string &manifest);
    void move_node(const thruway::Node &node);
    [[nodiscard]] test::Packet build(const Packet &packet);
    [[nodiscard]] test::Outcome send(const Packet &packet, const test::Packet &built);
    /// The reason of the drop that has been counted since the last call.
    std::string dropped_for();
    std::string compare_forwarded(const Cluster &cluster, const Packet &packet, const Answer &answer,
                                  const test::Packet &built, const test::Outcome &out, std::optional<Backend> &to);
    static std::string compare_answered(const test::Packet &built, test::Outcome out);
    std::string compare_refused(const Packet &packet, const test::Packet &built, const test::Outcome &out);
    [[nodiscard]] const test::PodSpec *pod(const std::string &address) const;
    void forget_flows();

    test::World world_;
    std::vector<const test::PodSpec *> pods_;
    std::array<Fd, 3> programs_;
    Decoder decoder_;
    ServicePlanner planner_;
    Place place_;
    std::vector<uint64_t> drops_;
    uint16_t source_port_ = 0;
    unsigned sent_ = 0;
    unsigned refused_ = 0;
    unsigned told_ = 0;
};

} // namespace thruway::reference
