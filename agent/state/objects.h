// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "agent/base/address.h"
#include "agent/base/symbol.h"

#include <cstdint>
#include <functional>
#include <string>
#include <string_view>
#include <variant>
#include <vector>

/// Kubernetes objects, cut down to the fields that are used. Whoever makes one has checked it: a value of these types
/// is valid.
namespace thruway {

/// IP protocol numbers.
enum class Protocol : uint8_t { tcp = 6, udp = 17, sctp = 132 };

/// "TCP", "UDP", "SCTP".
std::string_view protocol_name(Protocol protocol);

/// Namespace and name; the namespace of a cluster-wide object is empty.
struct ObjectName {
    Symbol space;
    std::string name;

    [[nodiscard]] std::string text() const;

    friend bool operator==(const ObjectName &, const ObjectName &) = default;
    friend auto operator<=>(const ObjectName &, const ObjectName &) = default;
};

struct ServicePort {
    Symbol name;
    Protocol protocol = Protocol::tcp;
    uint16_t port = 0;
    uint16_t node_port = 0; ///< 0: none

    friend bool operator==(const ServicePort &, const ServicePort &) = default;
};

enum class ServiceType : uint8_t { cluster_ip, node_port, load_balancer, external_name };

/// "ClusterIP", "NodePort", "LoadBalancer", "ExternalName".
std::string_view service_type_name(ServiceType type);

struct Service {
    ObjectName name;
    ServiceType type = ServiceType::cluster_ip;
    bool proxied = true; ///< false: headless, ExternalName, or left to another proxy by label
    int64_t created = 0; ///< seconds since 1970; of two that want the same address and port, the older has it
    std::vector<Address> cluster_ips; ///< at most one a family
    std::vector<ServicePort> ports;
    std::vector<Address> external_ips;
    std::vector<Address> balancer_ips; ///< of status.loadBalancer, but for those whose balancer is a proxy of its own
    std::vector<Prefix> source_ranges; ///< who may dial balancer_ips
    bool internal_local = false;       ///< internalTrafficPolicy is Local
    bool external_local = false;       ///< externalTrafficPolicy is Local
    uint16_t health_port = 0;          ///< healthCheckNodePort; 0: none
    uint32_t affinity = 0;             ///< seconds for which a client stays with its backend; 0: no session affinity

    friend bool operator==(const Service &, const Service &) = default;
};

struct Endpoint {
    enum Condition : uint8_t { ready = 1, serving = 2, terminating = 4 };

    Address address;
    Symbol node;
    uint32_t pod = 0; ///< where the pod's name begins in EndpointSlice::pods; 0: no pod
    uint8_t conditions = ready | serving;
    uint16_t hints = 0; ///< index into EndpointSlice::hints

    friend bool operator==(const Endpoint &, const Endpoint &) = default;
};

/// For whom an endpoint is meant: names of nodes, and of zones.
struct Hints {
    std::vector<Symbol> nodes;
    std::vector<Symbol> zones;

    friend bool operator==(const Hints &, const Hints &) = default;
};

struct SlicePort {
    Symbol name;
    Protocol protocol = Protocol::tcp;
    uint16_t port = 0;

    friend bool operator==(const SlicePort &, const SlicePort &) = default;
};

struct EndpointSlice {
    ObjectName name;
    std::string service; ///< in the same namespace
    Family family = Family::ipv4;
    int64_t triggered = 0; ///< when the change that led to this version happened: ms since 1970, 0 unknown
    std::vector<SlicePort> ports;
    std::vector<Endpoint> endpoints;
    std::vector<Hints> hints{1}; ///< the first says nothing; endpoints with equal hints share one
    std::string pods{'\0'}; ///< names of the pods, each with a NUL behind it: a string of its own for each costs more

    /// The name of the endpoint's pod (it is in the slice's namespace); empty if there is none.
    [[nodiscard]] std::string_view pod_of(const Endpoint &endpoint) const { return pods.data() + endpoint.pod; }

    /// Puts a pod's name where Endpoint::pod can point to it.
    uint32_t add_pod(std::string_view pod);

    /// Index of such hints for Endpoint::hints.
    uint16_t add_hints(Hints added);

    friend bool operator==(const EndpointSlice &, const EndpointSlice &) = default;
};

struct Node {
    ObjectName name;
    std::vector<Address> addresses; ///< of type InternalIP, in the object's order: the first of a family is primary
    std::vector<Prefix> pod_cidrs;
    Symbol zone;          ///< label topology.kubernetes.io/zone
    bool leaving = false; ///< it is being deleted, or will be by the cluster autoscaler

    friend bool operator==(const Node &, const Node &) = default;
};

struct Pod {
    ObjectName name;
    Symbol node;
    bool host_network = false;
    bool finished = false; ///< Succeeded or Failed: its addresses may belong to another pod by now
    std::vector<Address> addresses;

    friend bool operator==(const Pod &, const Pod &) = default;
};

struct Namespace {
    ObjectName name;

    friend bool operator==(const Namespace &, const Namespace &) = default;
};

/// Addresses that the cluster takes for Services, and for nothing else.
struct ServiceCidr {
    ObjectName name;
    std::vector<Prefix> cidrs;

    friend bool operator==(const ServiceCidr &, const ServiceCidr &) = default;
};

using Object = std::variant<Service, EndpointSlice, Node, Pod, Namespace, ServiceCidr>;

/// The kinds, in the order of the variant.
enum class Kind : uint8_t { service, endpoint_slice, node, pod, name_space, service_cidr };

/// "Service", "EndpointSlice", ...
std::string_view kind_name(Kind kind);

/// What identifies an object among all.
struct ObjectKey {
    Kind kind = Kind::service;
    ObjectName name;

    /// "Service default/web".
    [[nodiscard]] std::string text() const;

    friend bool operator==(const ObjectKey &, const ObjectKey &) = default;
    friend auto operator<=>(const ObjectKey &, const ObjectKey &) = default;
};

ObjectKey key_of(const Object &object);

/// What a source says: this object is now like this, or it is gone.
struct Upsert {
    Object object;
};
struct Delete {
    ObjectKey key;
};
using Change = std::variant<Upsert, Delete>;

} // namespace thruway

template<>
struct std::hash<thruway::ObjectName> {
    size_t operator()(const thruway::ObjectName &name) const noexcept
    {
        return thruway::hash_mix(std::hash<std::string>{}(name.name), name.space.id());
    }
};

template<>
struct std::hash<thruway::ObjectKey> {
    size_t operator()(const thruway::ObjectKey &key) const noexcept
    {
        return thruway::hash_mix(std::hash<thruway::ObjectName>{}(key.name), static_cast<uint64_t>(key.kind));
    }
};
