// SPDX-License-Identifier: Apache-2.0
#include "agent/ipam/pool.h"

#include <algorithm>
#include <arpa/inet.h>

namespace thruway {
namespace {

/// The first two addresses stay free: the network's own, and the one that people expect a gateway to have. So does the
/// last one of an IPv4 range, its broadcast address.
constexpr uint32_t first_offset = 2;

/// More than any node has pods; ranges of IPv6 are not used up.
constexpr uint32_t most_offsets = 65'536;

uint32_t offsets_in(const Prefix &prefix)
{
    const auto host_bits = static_cast<unsigned>(prefix.address().size() * 8) - prefix.length();
    const uint32_t all = host_bits >= 16 ? most_offsets : 1U << host_bits;
    const bool whole = host_bits <= 16; // only then is the last offset the last address
    return prefix.family() == Family::ipv4 && whole && all > 0 ? all - 1 : all;
}

uint32_t offset_of(const Prefix &prefix, const Address &address)
{
    return ntohl(address.raw().word[3]) - ntohl(prefix.address().raw().word[3]);
}

} // namespace

void AddressPool::set_ranges(const std::vector<Prefix> &ranges)
{
    std::erase_if(ranges_, [&](const Range &range) { return std::ranges::find(ranges, range.prefix) == ranges.end(); });
    for (const Prefix &prefix : ranges) {
        if (std::ranges::find(ranges_, prefix, &Range::prefix) != ranges_.end())
            continue;
        Range &range = ranges_.emplace_back(prefix, IndexAllocator(first_offset, offsets_in(prefix)));
        for (const Address &address : used_)
            if (prefix.contains(address))
                range.offsets.reserve(offset_of(prefix, address));
    }
}

std::vector<Family> AddressPool::families() const
{
    std::vector<Family> families;
    for (const Family family : {Family::ipv4, Family::ipv6})
        if (std::ranges::any_of(ranges_, [&](const Range &range) { return range.prefix.family() == family; }))
            families.push_back(family);
    return families;
}

std::optional<Address> AddressPool::allocate(Family family)
{
    for (Range &range : ranges_) {
        if (range.prefix.family() != family)
            continue;
        if (const auto offset = range.offsets.allocate()) {
            const Address address = range.prefix.address().plus(*offset);
            used_.insert(address);
            return address;
        }
    }
    return std::nullopt;
}

AddressPool::Range *AddressPool::range_of(const Address &address)
{
    const auto found =
        std::ranges::find_if(ranges_, [&](const Range &range) { return range.prefix.contains(address); });
    return found == ranges_.end() ? nullptr : &*found;
}

bool AddressPool::reserve(const Address &address)
{
    if (!used_.insert(address).second)
        return false;
    if (Range *range = range_of(address))
        range->offsets.reserve(offset_of(range->prefix, address));
    return true;
}

void AddressPool::release(const Address &address)
{
    if (used_.erase(address) == 0)
        return;
    if (Range *range = range_of(address); range && range->offsets.is_used(offset_of(range->prefix, address)))
        range->offsets.release(offset_of(range->prefix, address));
}

} // namespace thruway
