// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "tests/model/service_model.h"

#include <cstdint>
#include <functional>
#include <optional>
#include <random>
#include <string>
#include <variant>
#include <vector>

/// Random cases for the reference model, and how a case that fails is made small.
namespace thruway::reference {

struct RemovedService {
    std::string name;

    friend bool operator==(const RemovedService &, const RemovedService &) = default;
};
struct RemovedSlice {
    std::string name;

    friend bool operator==(const RemovedSlice &, const RemovedSlice &) = default;
};
/// Nothing but time, of which only session affinity takes note.
struct Elapsed {
    int seconds = 0;

    friend bool operator==(const Elapsed &, const Elapsed &) = default;
};
using Change = std::variant<Service, Slice, Node, RemovedService, RemovedSlice, Elapsed>;

/// Changes that come at once, and packets after them.
struct Round {
    std::vector<Change> changes;
    std::vector<Packet> packets;
};
using History = std::vector<Round>;

void make(const Change &change, Cluster &cluster);

/// Makes up one round after the other.
class Cases {
public:
    Cases(uint64_t seed, Node node);

    /// The first round makes a cluster of this node, each further one changes it a little.
    Round next(size_t packets);

private:
    size_t below(size_t count) { return std::uniform_int_distribution<size_t>(0, count - 1)(random_); }
    bool chance(unsigned percent) { return below(100) < percent; }
    template<typename T>
    T pick(const std::vector<T> &from)
    {
        return from.at(below(from.size()));
    }
    std::optional<bool> maybe();

    Change change();
    Service service();
    std::vector<Port> ports(bool node_ports);
    Slice slice();
    Endpoint endpoint(bool v6, unsigned hinted);
    Node node();
    Packet packet();

    /// What a packet may be for: a port of a Service, in one family.
    struct Door {
        const Service *service;
        Port port;
        bool v6;
    };
    [[nodiscard]] bool serves(const Door &door) const;
    std::optional<Door> door();
    void address(Packet &packet, const Door &door);

    std::mt19937_64 random_;
    Node first_node_;
    bool begins_ = true;
    Cluster cluster_;
};

/// The smallest history that still fails, made of one that does by leaving things out. The failing packet stays.
History shrink(History history, const std::function<bool(const History &)> &fails);

/// The history as manifests, and its packets.
std::string text(const History &history);

} // namespace thruway::reference
