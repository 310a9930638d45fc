// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "agent/base/address.h"
#include "agent/base/numbers.h"

#include <optional>
#include <unordered_set>
#include <vector>

namespace thruway {

/// The pod addresses of this node: a range for each pod CIDR. What is given out last comes round last, so an address
/// rests as long as the range allows before another pod has it.
class AddressPool {
public:
    /// The ranges from now on. Addresses that are in use stay so, also those outside of the new ranges.
    void set_ranges(const std::vector<Prefix> &ranges);

    /// Families that have a range.
    [[nodiscard]] std::vector<Family> families() const;

    std::optional<Address> allocate(Family family);

    /// Takes an address that is in use already; false if somebody has it.
    bool reserve(const Address &address);
    void release(const Address &address);

    [[nodiscard]] size_t used() const { return used_.size(); }

private:
    struct Range {
        Prefix prefix;
        IndexAllocator offsets;
    };

    [[nodiscard]] Range *range_of(const Address &address);

    std::vector<Range> ranges_;
    std::unordered_set<Address> used_;
};

} // namespace thruway
