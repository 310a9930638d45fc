// SPDX-License-Identifier: Apache-2.0
#include "agent/settings.h"

#include <algorithm>
#include <numeric>
#include <string_view>

namespace thruway {
namespace {

using nlohmann::json;

/// How many letters have to be put in, left out or replaced to make one of the other (Levenshtein).
size_t distance(std::string_view a, std::string_view b)
{
    std::vector<size_t> row(b.size() + 1);
    std::iota(row.begin(), row.end(), size_t{0});
    for (size_t i = 0; i < a.size(); i++) {
        size_t diagonal = row[0];
        row[0] = i + 1;
        for (size_t j = 0; j < b.size(); j++) {
            const size_t replaced = diagonal + (a[i] != b[j]);
            diagonal = row[j + 1];
            row[j + 1] = std::min({replaced, row[j] + 1, row[j + 1] + 1});
        }
    }
    return row.back();
}

std::string nearest(const std::string &key, const Setters &setters)
{
    return std::ranges::min_element(setters, {}, [&](const auto &item) { return distance(key, item.first); })->first;
}

Result<> apply(const json &settings, const std::string &prefix, const Setters &setters)
{
    for (const auto &[name, value] : settings.items()) {
        const std::string key = prefix + name;
        const auto found = setters.find(key);
        if (found == setters.end() && value.is_object()) {
            if (auto applied = apply(value, key + ".", setters); !applied)
                return applied;
            continue;
        }
        if (found == setters.end())
            return fail("{} is no setting; the nearest is {}", key, nearest(key, setters));
        try {
            if (auto set = found->second(value); !set)
                return fail_within(key, set.error());
        } catch (const json::exception &) {
            return fail("{}: {} is of the wrong kind", key, value.dump());
        }
    }
    return {};
}

} // namespace

Setter into(uint32_t &target)
{
    return [&target](const json &value) -> Result<> {
        if (!value.is_number_unsigned() || value > UINT32_MAX)
            return fail("must be a whole number, is {}", value.dump());
        value.get_to(target);
        return {};
    };
}

Result<> apply_settings(const json &settings, const Setters &setters)
{
    return apply(settings, "", setters);
}

} // namespace thruway
