// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <deque>
#include <map>
#include <optional>
#include <set>
#include <vector>

namespace thruway {

/// Hands out ranges of consecutive numbers below a limit: best fit, and neighbours that come free grow together.
class RangeAllocator {
public:
    explicit RangeAllocator(uint32_t limit);

    /// The first number of a free range of `count` (at least 1).
    std::optional<uint32_t> allocate(uint32_t count);

    /// Takes a range that is known to be in use; false if part of it is taken already or lies beyond the limit.
    bool reserve(uint32_t base, uint32_t count);

    void release(uint32_t base, uint32_t count);

    [[nodiscard]] uint32_t used() const { return used_; }

private:
    void add(uint32_t base, uint32_t count);
    void erase(std::map<uint32_t, uint32_t>::iterator range);

    uint32_t used_ = 0;
    std::map<uint32_t, uint32_t> free_;               // base -> count
    std::set<std::pair<uint32_t, uint32_t>> by_size_; // (count, base)
};

/// Hands out single numbers below a limit: the lowest that was never used, else the one that came back first, so that
/// a number rests as long as possible.
class IndexAllocator {
public:
    IndexAllocator(uint32_t first, uint32_t limit) : next_(first), limit_(limit), used_flags_(limit) {}

    std::optional<uint32_t> allocate();

    /// Takes a number that is known to be in use; false if it is taken already or out of bounds.
    bool reserve(uint32_t index);

    void release(uint32_t index);

    [[nodiscard]] uint32_t used() const { return used_; }
    [[nodiscard]] uint32_t limit() const { return limit_; }
    [[nodiscard]] bool is_used(uint32_t index) const { return index < limit_ && used_flags_[index]; }

private:
    uint32_t next_;
    uint32_t limit_;
    uint32_t used_ = 0;
    std::vector<bool> used_flags_;
    std::deque<uint32_t> returned_;
};

} // namespace thruway
