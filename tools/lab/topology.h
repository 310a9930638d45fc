// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "agent/base/address.h"

#include <array>
#include <filesystem>
#include <string>
#include <vector>

/// What a lab looks like: a pure function of its options.
namespace thruway::lab {

/// switched: all nodes are neighbours on one bridge. routed: each node is alone on a subnet behind the router, which
/// carries the pods' addresses.
enum class FabricKind : uint8_t { switched, routed };

/// Who connects the pods: Thruway's agent and CNI plugin, or the lab itself with veth pairs and kernel routes.
enum class Dataplane : uint8_t { thruway, none };

struct Options {
    std::string name = "lab";
    unsigned nodes = 3;
    unsigned pods = 2; ///< per node
    unsigned mtu = 1500;
    FabricKind fabric = FabricKind::switched;
    bool xdp = false; ///< wires that suit XDP: see build_fabric()
    Dataplane dataplane = Dataplane::thruway;
    bool agents = true;                  ///< `up` starts them; without, there are no pods at first, either
    std::string source;                  ///< what agents follow; empty: the lab's manifests
    std::filesystem::path bin_dir;       ///< where our binaries are
    std::vector<std::string> agent_args; ///< given to every agent, behind the lab's own
};

/// One address of each family, by family_index.
using AddressPair = std::array<Address, 2>;
using PrefixPair = std::array<Prefix, 2>;

/// Of every subnet of the fabric.
constexpr std::array<unsigned, 2> subnet_length{24, 64};

/// A host on the fabric: its addresses, and the router's on its subnet.
struct Station {
    std::string name;
    AddressPair addresses;
    AddressPair gateways;
};

struct Node : Station {
    PrefixPair pod_cidrs;
};

struct Topology {
    std::vector<Node> nodes;
    Station client;      ///< outside of the cluster, in a subnet of its own
    PrefixPair all_pods; ///< contains all pod CIDRs
};

Topology topology_of(const Options &options);

/// Of an address that is known to be well formed.
Address literal_address(std::string_view text);

} // namespace thruway::lab
