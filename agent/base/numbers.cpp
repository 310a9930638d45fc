// SPDX-License-Identifier: Apache-2.0
#include "agent/base/numbers.h"

#include <iterator>

namespace thruway {

RangeAllocator::RangeAllocator(uint32_t limit)
{
    if (limit > 0)
        add(0, limit);
}

void RangeAllocator::add(uint32_t base, uint32_t count)
{
    free_.emplace(base, count);
    by_size_.emplace(count, base);
}

void RangeAllocator::erase(std::map<uint32_t, uint32_t>::iterator range)
{
    by_size_.erase({range->second, range->first});
    free_.erase(range);
}

std::optional<uint32_t> RangeAllocator::allocate(uint32_t count)
{
    const auto fit = by_size_.lower_bound({count, 0});
    if (fit == by_size_.end())
        return std::nullopt;
    const auto [size, base] = *fit;
    erase(free_.find(base));
    if (size > count)
        add(base + count, size - count);
    used_ += count;
    return base;
}

bool RangeAllocator::reserve(uint32_t base, uint32_t count)
{
    auto range = free_.upper_bound(base);
    if (range == free_.begin() || count == 0)
        return false;
    --range;
    const auto [first, size] = *range;
    if (base + uint64_t{count} > first + uint64_t{size})
        return false;
    erase(range);
    if (base > first)
        add(first, base - first);
    if (base + count < first + size)
        add(base + count, first + size - base - count);
    used_ += count;
    return true;
}

void RangeAllocator::release(uint32_t base, uint32_t count)
{
    used_ -= count;
    const auto after = free_.lower_bound(base);
    if (after != free_.begin()) {
        const auto before = std::prev(after);
        if (before->first + before->second == base) {
            base = before->first;
            count += before->second;
            erase(before);
        }
    }
    if (const auto next = free_.find(base + count); next != free_.end()) {
        count += next->second;
        erase(next);
    }
    add(base, count);
}

std::optional<uint32_t> IndexAllocator::allocate()
{
    while (next_ < limit_) {
        const uint32_t index = next_++;
        if (!used_flags_[index]) {
            used_flags_[index] = true;
            used_++;
            return index;
        }
    }
    if (returned_.empty())
        return std::nullopt;
    const uint32_t index = returned_.front();
    returned_.pop_front();
    used_flags_[index] = true;
    used_++;
    return index;
}

bool IndexAllocator::reserve(uint32_t index)
{
    if (index < next_ || index >= limit_ || used_flags_[index])
        return false;
    used_flags_[index] = true;
    used_++;
    return true;
}

void IndexAllocator::release(uint32_t index)
{
    used_flags_[index] = false;
    used_--;
    if (index < next_)
        returned_.push_back(index);
}

} // namespace thruway
