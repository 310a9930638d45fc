// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "agent/base/address.h"
#include "agent/base/numbers.h"
#include "agent/datapath/grace.h"
#include "agent/datapath/layout.h"

#include <array>
#include <deque>
#include <optional>
#include <unordered_map>
#include <unordered_set>
#include <vector>

namespace thruway {

using MacBytes = std::array<uint8_t, 6>;

/// A way out of the node, as a row of `nexthops` has it.
struct NextHop {
    uint32_t ifindex = 0;
    uint16_t mtu = 0;
    MacBytes from{};                              ///< MAC of the interface
    std::optional<MacBytes> to;                   ///< MAC of the other side; none: the kernel finds it
    uint16_t xdp = 0;                             ///< how XDP may send by it: TW_NEXTHOP_XDP, TW_NEXTHOP_REDIRECT
    std::optional<Address> gateway;               ///< whose MAC that is; none: the packet's destination
    std::array<std::optional<Address>, 2> source; ///< by family: what SNAT on this way makes of a source
};

/// Maintains where packets go: `nexthops`, `generations`, `addresses`, and the keys that lead to them (`endpoints`,
/// `node_addresses`, `nodes`, `gateways`, `ifindexes`).
///
/// What a packet sees between two writes: a row is complete before a key leads to it. A live row changes in words of at
/// most 8 bytes, each of which is right with the others old or new: where a neighbour is, what the device is, what to
/// SNAT to. When a key goes, the generation of its row moves: flows that name it are judged again. The number rests
/// until no program can be using it.
class NextHopTables {
public:
    /// Learns what the maps hold, as the run before left it.
    static Result<NextHopTables> adopt(const Maps &maps, Arrays &arrays, GracePeriod &grace, uint32_t endpoints_max);

    /// A pod of this node, known by its addresses (at most one a family).
    Result<> set_endpoint(const std::vector<Address> &addresses, const NextHop &hop);
    void remove_endpoint(const std::vector<Address> &addresses);

    /// An uplink, for packets whose neighbour nobody follows.
    Result<> set_uplink(const NextHop &hop);
    void remove_uplink(uint32_t ifindex);

    /// A neighbour that the kernel's routing may name as gateway.
    Result<> set_gateway(const Address &gateway, const NextHop &hop);
    void remove_gateway(const Address &gateway, uint32_t ifindex);

    /// The pods of another node; none for those of this one.
    Result<> set_node(const Prefix &pods, const std::optional<NextHop> &hop);
    void remove_node(const Prefix &pods);

    /// The device by which the host's stack takes translated packets from itself: row 0, which nothing else uses.
    void set_host(const NextHop &hop);
    void remove_host();

    /// The addresses of this node.
    Result<> set_node_addresses(const std::vector<Address> &addresses);

    /// Addresses on which NodePorts are valid, in the place of those before.
    Result<> set_node_port_addresses(const std::vector<Address> &addresses);

    /// Removes all of the run before that has not been set since adopt().
    void sweep();

    /// Number of the endpoint with this address, 0 if there is none.
    [[nodiscard]] uint32_t endpoint_id(const Address &address) const;

private:
    enum class Kind : uint8_t { endpoint, uplink, gateway, node };
    /// What leads to a row.
    struct Key {
        Kind kind;
        Address address; // of the endpoint or gateway, or the first of the node's CIDR
        uint32_t number; // ifindex of uplink or gateway, prefix length of a node's CIDR

        friend bool operator==(const Key &, const Key &) = default;
    };
    struct KeyHash {
        size_t operator()(const Key &key) const noexcept
        {
            return hash_mix(hash_of(key.address), uint64_t{key.number} << 8 | static_cast<uint64_t>(key.kind));
        }
    };
    struct Resting {
        uint64_t ticket;
        uint32_t index;
        bool is_address;
    };

    NextHopTables(const Maps &maps, Arrays &arrays, GracePeriod &grace, uint32_t endpoints_max);

    Result<> read_maps();
    void adopt_row(const Key &key, uint32_t index);
    void adopt_address(uint32_t index);
    Result<> insert_key(const Key &key, uint32_t index);
    void erase_key(const Key &key);
    Result<uint32_t> make_row(IndexAllocator &allocator, const NextHop &hop);
    Result<> write_row(uint32_t index, const NextHop &hop);
    Result<> set(const Key &key, const NextHop &hop);
    void release_row(uint32_t index);
    Result<uint32_t> use_address(const std::optional<Address> &address);
    void drop_address(uint32_t index);
    IndexAllocator &allocator_of(uint32_t index);
    void reclaim(bool wait);
    std::optional<uint32_t> allocate(IndexAllocator &allocator);
    [[nodiscard]] uint32_t endpoints_max() const { return endpoint_ids_.limit(); }

    const Maps *maps_;
    Arrays *arrays_;
    GracePeriod *grace_;
    IndexAllocator endpoint_ids_;
    IndexAllocator other_ids_;
    IndexAllocator address_ids_;
    std::unordered_map<Key, uint32_t, KeyHash> rows_;
    std::unordered_map<uint32_t, uint32_t> keys_of_row_; // how many keys lead to it
    std::unordered_set<Key, KeyHash> orphans_;           // of the run before, not set since
    std::unordered_map<Address, uint32_t> addresses_;
    std::vector<uint32_t> address_references_;
    std::unordered_map<Address, uint32_t> node_addresses_;
    std::unordered_set<Address> node_port_addresses_;
    std::deque<Resting> resting_;
};

} // namespace thruway
