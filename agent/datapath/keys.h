// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "agent/datapath/map.h"

#include <algorithm>
#include <tuple>
#include <unordered_set>
#include <vector>

namespace thruway {

/// Has a map hold these keys and no others; its values say nothing. `held` is what it holds, `raw(key)` a key as the
/// programs read it, `name(key)` what an error calls one.
template<typename Key, typename Raw, typename Name>
Result<> hold_keys(const Map &map, std::unordered_set<Key> &held, const std::vector<Key> &wanted, Raw raw, Name name)
{
    std::erase_if(held, [&](const Key &key) {
        if (std::ranges::find(wanted, key) != wanted.end())
            return false;
        std::ignore = map.erase(raw(key)); // fails only for what is not there
        return true;
    });
    for (const Key &key : wanted) {
        if (held.contains(key))
            continue;
        if (auto inserted = map.insert(raw(key), uint32_t{0}); !inserted)
            return fail_within(name(key), inserted.error());
        held.insert(key);
    }
    return {};
}

} // namespace thruway
