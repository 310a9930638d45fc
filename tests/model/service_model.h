// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <map>
#include <optional>
#include <set>
#include <string>
#include <tuple>
#include <vector>

/// What a cluster's Services mean for one packet, written down a second time: from the rules that docs/kube-proxy.md
/// numbers, in the slow and obvious way, sharing nothing with the planner or the programs. Addresses are texts.
namespace thruway::reference {

struct Port {
    std::string name;
    std::string protocol = "TCP";
    int number = 0;
    int node_port = 0; ///< 0: none

    friend bool operator==(const Port &, const Port &) = default;
};

/// An entry of status.loadBalancer.ingress.
struct Ingress {
    std::string ip;   ///< empty: it has only a name
    std::string mode; ///< ipMode; empty: not set

    friend bool operator==(const Ingress &, const Ingress &) = default;
};

struct Service {
    std::string name;
    std::string type = "ClusterIP";
    int created = 0;                      ///< seconds
    bool others = false;                  ///< left to another proxy by its label
    std::vector<std::string> cluster_ips; ///< one a family; or "None"
    std::vector<Port> ports;
    std::vector<std::string> external_ips;
    std::vector<Ingress> ingress;
    std::vector<std::string> source_ranges;
    bool internal_local = false;
    bool external_local = false;
    int affinity = 0; ///< seconds; 0: none

    friend bool operator==(const Service &, const Service &) = default;
};

struct Endpoint {
    std::string address;
    std::string node;
    std::optional<bool> ready;
    std::optional<bool> serving;
    std::optional<bool> terminating;
    std::vector<std::string> node_hints;
    std::vector<std::string> zone_hints;

    friend bool operator==(const Endpoint &, const Endpoint &) = default;
};

struct SlicePort {
    std::string name;
    std::string protocol = "TCP";
    int number = 0; ///< 0: not set

    friend bool operator==(const SlicePort &, const SlicePort &) = default;
};

struct Slice {
    std::string name;
    std::string service;
    bool v6 = false;
    bool headless = false; ///< by its label
    std::vector<SlicePort> ports;
    std::vector<Endpoint> endpoints;

    friend bool operator==(const Slice &, const Slice &) = default;
};

/// The node that all of this is seen from.
struct Node {
    std::string name;
    std::string zone;
    std::vector<std::string> addresses;
    std::vector<std::string> node_port_addresses; ///< those that NodePorts are on
    std::set<std::string> pods;

    friend bool operator==(const Node &, const Node &) = default;
};

struct Cluster {
    Node node;
    std::map<std::string, Service> services;
    std::map<std::string, Slice> slices;
};

enum class From : uint8_t { pod, outside, host };

/// The first packet of a connection; or a ping, which has no ports.
struct Packet {
    From from = From::outside;
    std::string protocol = "TCP"; ///< "ICMP": an echo request
    std::string source;
    std::string destination;
    int port = 0;
};

struct Backend {
    std::string address;
    int port = 0;

    friend auto operator<=>(const Backend &, const Backend &) = default;
};

struct Answer {
    enum class Kind : uint8_t {
        stranger,  ///< it concerns no Service: whatever becomes of it, it keeps its addresses
        forwarded, ///< to one of `backends`
        refused,   ///< for `reason`, and its sender is told
        dropped,   ///< without a word, for `reason`
        answered,  ///< a ping, by the node itself
    };
    Kind kind = Kind::stranger;
    std::set<Backend> backends;
    std::optional<Backend> forgotten; ///< what the client had before its affinity ended: no likelier than the others
    bool as_node = false;             ///< backends see an address of this node in the place of the source; see masks()
    std::string reason;

    /// Whether this backend sees the node in the place of the packet's source.
    [[nodiscard]] bool masks(const Cluster &cluster, const Packet &packet, const Backend &backend) const;
};

/// What a conversation that has begun depends on.
struct Conversation {
    std::string service, port, protocol;
    bool v6 = false;
    Backend backend;
};

/// A cluster, and which backend each client of a Service with session affinity had last.
class Model {
public:
    [[nodiscard]] const Cluster &cluster() const { return cluster_; }

    void elapse(int seconds) { now_ += seconds; }

    /// Takes the place of what was there before. Clients forget backends that are gone (rule 30).
    void change(Cluster cluster);

    [[nodiscard]] Answer answer(const Packet &packet) const;

    /// The packet, which was to be forwarded, has been sent to this backend; to none, if nobody can tell which.
    void note(const Packet &packet, const std::optional<Backend> &backend);

    [[nodiscard]] Conversation begin(const Packet &packet, const Backend &backend) const;

    /// Whether it has outlived the last change: all do (rule 34), but for UDP whose backend serves no more, or whose
    /// Service is gone (rule 35).
    [[nodiscard]] bool outlives(const Conversation &conversation) const;

private:
    using Client = std::tuple<std::string, std::string, std::string, bool, std::string>; ///< service, port, family, who

    struct Last {
        Backend backend;
        int64_t when = 0;
    };

    Cluster cluster_;
    std::map<Client, Last> last_;
    int64_t now_ = 0; ///< seconds
};

} // namespace thruway::reference
