// SPDX-License-Identifier: Apache-2.0
#include "agent/datapath/nexthops.h"

#include "agent/datapath/keys.h"

#include <algorithm>

namespace thruway {
namespace {

tw_gateway raw_gateway(const Address &address, uint32_t ifindex)
{
    tw_gateway raw{};
    raw.address = address.raw();
    raw.ifindex = ifindex;
    return raw;
}

} // namespace

NextHopTables::NextHopTables(const Maps &maps, Arrays &arrays, GracePeriod &grace, uint32_t endpoints_max)
    : maps_(&maps), arrays_(&arrays), grace_(&grace), endpoint_ids_(1, std::min(endpoints_max, arrays.nexthops.size())),
      other_ids_(endpoints_max, arrays.nexthops.size()), address_ids_(1, arrays.addresses.size()),
      address_references_(arrays.addresses.size())
{
}

Result<NextHopTables> NextHopTables::adopt(const Maps &maps, Arrays &arrays, GracePeriod &grace, uint32_t endpoints_max)
{
    NextHopTables tables(maps, arrays, grace, endpoints_max);
    if (auto read = tables.read_maps(); !read)
        return std::unexpected(read.error());
    return tables;
}

Result<> NextHopTables::read_maps()
{
    const std::array walks{
        maps_->endpoints.each<tw_address, uint32_t>([&](const tw_address &address, uint32_t index) {
            adopt_row({Kind::endpoint, Address(address), 0}, index);
        }),
        maps_->ifindexes.each<uint32_t, uint32_t>(
            [&](uint32_t ifindex, uint32_t index) { adopt_row({Kind::uplink, {}, ifindex}, index); }),
        maps_->gateways.each<tw_gateway, uint32_t>([&](const tw_gateway &key, uint32_t index) {
            adopt_row({Kind::gateway, Address(key.address), key.ifindex}, index);
        }),
        maps_->nodes.each<tw_cidr, uint32_t>([&](const tw_cidr &cidr, uint32_t index) {
            const Prefix prefix = prefix_of(cidr);
            adopt_row({Kind::node, prefix.address(), prefix.length()}, index);
        }),
        maps_->node_addresses.each<tw_address, uint32_t>([&](const tw_address &address, uint32_t index) {
            node_addresses_.emplace(address, index);
            adopt_address(index);
        }),
        maps_->node_port_addresses.each<tw_address, uint32_t>(
            [&](const tw_address &address, uint32_t) { node_port_addresses_.emplace(address); }),
    };
    for (const auto &walk : walks)
        if (!walk)
            return walk;
    return {};
}

void NextHopTables::adopt_row(const Key &key, uint32_t index)
{
    rows_.emplace(key, index);
    orphans_.insert(key);
    if (index == 0 || index >= arrays_->nexthops.size())
        return;
    if (keys_of_row_[index]++ > 0)
        return;
    allocator_of(index).reserve(index);
    const tw_nexthop &row = arrays_->nexthops[index];
    for (const uint32_t address : {row.source[0], row.source[1], row.gateway})
        adopt_address(address);
}

void NextHopTables::adopt_address(uint32_t index)
{
    if (index == 0 || index >= address_references_.size())
        return;
    if (address_references_[index]++ == 0) {
        address_ids_.reserve(index);
        addresses_.emplace(arrays_->addresses[index], index);
    }
}

IndexAllocator &NextHopTables::allocator_of(uint32_t index)
{
    return index < endpoints_max() ? endpoint_ids_ : other_ids_;
}

Result<uint32_t> NextHopTables::use_address(const std::optional<Address> &address)
{
    if (!address)
        return 0;
    if (const auto found = addresses_.find(*address); found != addresses_.end()) {
        address_references_[found->second]++;
        return found->second;
    }
    const auto index = allocate(address_ids_);
    if (!index)
        return fail("map addresses is full ({} entries): {} does not fit", arrays_->addresses.size(), address->text());
    arrays_->addresses[*index] = address->raw();
    address_references_[*index] = 1;
    addresses_.emplace(*address, *index);
    return *index;
}

void NextHopTables::drop_address(uint32_t index)
{
    if (index == 0 || --address_references_[index] > 0)
        return;
    addresses_.erase(Address(arrays_->addresses[index]));
    resting_.push_back({grace_->ticket(), index, true});
}

Result<uint32_t> NextHopTables::make_row(IndexAllocator &allocator, const NextHop &hop)
{
    const auto index = allocate(allocator);
    if (!index)
        return fail("map nexthops is full ({} entries)", allocator.limit());
    arrays_->nexthops[*index] = {};
    if (auto written = write_row(*index, hop); !written) {
        allocator.release(*index);
        return std::unexpected(written.error());
    }
    return *index;
}

Result<> NextHopTables::write_row(uint32_t index, const NextHop &hop)
{
    tw_nexthop &row = arrays_->nexthops[index];
    const std::array wanted{hop.source[0], hop.source[1], hop.gateway};
    std::array<uint32_t, 3> numbers{};
    for (size_t i = 0; i < wanted.size(); i++) {
        auto number = use_address(wanted[i]);
        if (!number) {
            while (i > 0)
                drop_address(numbers[--i]);
            return std::unexpected(number.error());
        }
        numbers[i] = *number;
    }
    const std::array old{row.source[0], row.source[1], row.gateway};

    tw_nexthop next{};
    next.link.ifindex = hop.ifindex;
    next.link.mtu = hop.mtu;
    std::ranges::copy(hop.from, next.from.mac);
    if (hop.to) {
        std::ranges::copy(*hop.to, next.to.mac);
        next.to.flags = static_cast<uint16_t>(TW_NEXTHOP_RESOLVED | hop.xdp);
    }
    publish(row.source[0], numbers[0]);
    publish(row.source[1], numbers[1]);
    publish(row.gateway, numbers[2]);
    publish(row.from, next.from);
    publish(row.to, next.to);
    publish(row.link, next.link);
    for (const uint32_t number : old)
        drop_address(number);
    return {};
}

Result<> NextHopTables::insert_key(const Key &key, uint32_t index)
{
    Result<> inserted;
    switch (key.kind) {
    case Kind::endpoint:
        inserted = maps_->endpoints.insert(key.address.raw(), index);
        break;
    case Kind::uplink:
        inserted = maps_->ifindexes.insert(key.number, index);
        break;
    case Kind::gateway:
        inserted = maps_->gateways.insert(raw_gateway(key.address, key.number), index);
        break;
    case Kind::node:
        inserted = maps_->nodes.insert(raw_of(Prefix(key.address, key.number)), index);
        break;
    }
    if (!inserted)
        return inserted;
    rows_.emplace(key, index);
    if (index != 0)
        keys_of_row_[index]++;
    return {};
}

void NextHopTables::erase_key(const Key &key)
{
    const auto found = rows_.find(key);
    if (found == rows_.end())
        return;
    const uint32_t index = found->second;
    // Erasing can only fail for a key that is not there.
    switch (key.kind) {
    case Kind::endpoint:
        std::ignore = maps_->endpoints.erase(key.address.raw());
        break;
    case Kind::uplink:
        std::ignore = maps_->ifindexes.erase(key.number);
        break;
    case Kind::gateway:
        std::ignore = maps_->gateways.erase(raw_gateway(key.address, key.number));
        break;
    case Kind::node:
        std::ignore = maps_->nodes.erase(raw_of(Prefix(key.address, key.number)));
        break;
    }
    rows_.erase(found);
    orphans_.erase(key);
    if (index != 0 && --keys_of_row_[index] == 0) {
        keys_of_row_.erase(index);
        release_row(index);
    }
}

/// The way is gone: flows that name the row find its generation moved, and packets on it find no device.
void NextHopTables::release_row(uint32_t index)
{
    tw_nexthop &row = arrays_->nexthops[index];
    publish(row.link, {});
    publish(arrays_->generations[index], arrays_->generations[index] + 1);
    for (const uint32_t address : {row.source[0], row.source[1], row.gateway})
        drop_address(address);
    row.source[0] = row.source[1] = row.gateway = 0;
    resting_.push_back({grace_->ticket(), index, false});
}

Result<> NextHopTables::set(const Key &key, const NextHop &hop)
{
    orphans_.erase(key);
    if (const auto found = rows_.find(key); found != rows_.end() && found->second != 0)
        return write_row(found->second, hop);
    erase_key(key); // from the host stack to a way of its own
    auto index = make_row(other_ids_, hop);
    if (!index)
        return std::unexpected(index.error());
    if (auto inserted = insert_key(key, *index); !inserted) {
        release_row(*index);
        return inserted;
    }
    return {};
}

Result<> NextHopTables::set_endpoint(const std::vector<Address> &addresses, const NextHop &hop)
{
    std::optional<uint32_t> index;
    for (const Address &address : addresses)
        if (const auto found = rows_.find({Kind::endpoint, address, 0}); found != rows_.end())
            index = found->second;
    if (index) {
        if (arrays_->nexthops[*index].link.ifindex != hop.ifindex) // another pod has the address now
            publish(arrays_->generations[*index], arrays_->generations[*index] + 1);
        if (auto written = write_row(*index, hop); !written)
            return written;
    } else {
        auto made = make_row(endpoint_ids_, hop);
        if (!made)
            return std::unexpected(made.error());
        index = *made;
    }
    for (const Address &address : addresses) {
        const Key key{Kind::endpoint, address, 0};
        orphans_.erase(key);
        if (const auto found = rows_.find(key); found != rows_.end()) {
            if (found->second == *index)
                continue;
            erase_key(key);
        }
        if (auto inserted = insert_key(key, *index); !inserted) {
            if (keys_of_row_.contains(*index))
                remove_endpoint(addresses);
            else
                release_row(*index);
            return inserted;
        }
    }
    return {};
}

void NextHopTables::remove_endpoint(const std::vector<Address> &addresses)
{
    for (const Address &address : addresses)
        erase_key({Kind::endpoint, address, 0});
}

Result<> NextHopTables::set_uplink(const NextHop &hop)
{
    return set({Kind::uplink, {}, hop.ifindex}, hop);
}

void NextHopTables::remove_uplink(uint32_t ifindex)
{
    erase_key({Kind::uplink, {}, ifindex});
}

Result<> NextHopTables::set_gateway(const Address &gateway, const NextHop &hop)
{
    return set({Kind::gateway, gateway, hop.ifindex}, hop);
}

void NextHopTables::remove_gateway(const Address &gateway, uint32_t ifindex)
{
    erase_key({Kind::gateway, gateway, ifindex});
}

Result<> NextHopTables::set_node(const Prefix &pods, const std::optional<NextHop> &hop)
{
    const Key key{Kind::node, pods.address(), pods.length()};
    if (hop)
        return set(key, *hop);
    orphans_.erase(key);
    if (const auto found = rows_.find(key); found != rows_.end()) {
        if (found->second == 0)
            return {};
        erase_key(key);
    }
    return insert_key(key, 0);
}

void NextHopTables::remove_node(const Prefix &pods)
{
    erase_key({Kind::node, pods.address(), pods.length()});
}

void NextHopTables::set_host(const NextHop &hop)
{
    std::ignore = write_row(0, hop); // names no addresses, so nothing can be full
}

void NextHopTables::remove_host()
{
    publish(arrays_->nexthops[0].link, {});
}

Result<> NextHopTables::set_node_addresses(const std::vector<Address> &addresses)
{
    std::vector<Address> gone;
    for (const auto &[address, index] : node_addresses_)
        if (std::ranges::find(addresses, address) == addresses.end())
            gone.push_back(address);
    for (const Address &address : gone) {
        std::ignore = maps_->node_addresses.erase(address.raw());
        drop_address(node_addresses_.at(address));
        node_addresses_.erase(address);
    }
    for (const Address &address : addresses) {
        if (node_addresses_.contains(address))
            continue;
        auto index = use_address(address);
        if (!index)
            return std::unexpected(index.error());
        if (auto inserted = maps_->node_addresses.insert(address.raw(), *index); !inserted) {
            drop_address(*index);
            return fail_within(fmt::format("node address {}", address.text()), inserted.error());
        }
        node_addresses_.emplace(address, *index);
    }
    return {};
}

Result<> NextHopTables::set_node_port_addresses(const std::vector<Address> &addresses)
{
    return hold_keys(
        maps_->node_port_addresses, node_port_addresses_, addresses,
        [](const Address &address) { return address.raw(); },
        [](const Address &address) { return fmt::format("NodePorts on {}", address.text()); });
}

void NextHopTables::sweep()
{
    const std::vector<Key> left(orphans_.begin(), orphans_.end());
    for (const Key &key : left)
        erase_key(key);
}

uint32_t NextHopTables::endpoint_id(const Address &address) const
{
    const auto found = rows_.find({Kind::endpoint, address, 0});
    return found == rows_.end() ? 0 : found->second;
}

void NextHopTables::reclaim(bool wait)
{
    if (wait && !resting_.empty())
        grace_->wait(resting_.back().ticket);
    while (!resting_.empty() && grace_->passed(resting_.front().ticket)) {
        const Resting resting = resting_.front();
        resting_.pop_front();
        if (resting.is_address)
            address_ids_.release(resting.index);
        else
            allocator_of(resting.index).release(resting.index);
    }
}

std::optional<uint32_t> NextHopTables::allocate(IndexAllocator &allocator)
{
    reclaim(false);
    if (auto number = allocator.allocate())
        return number;
    reclaim(true);
    return allocator.allocate();
}

} // namespace thruway
