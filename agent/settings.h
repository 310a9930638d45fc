// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "agent/base/error.h"

#include <cstdint>
#include <functional>
#include <map>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

namespace thruway {

/// Puts a value where it belongs; throws what the JSON library throws.
using Setter = std::function<Result<>(const nlohmann::json &value)>;

/// By key, with the keys around it: "sizes.flows".
using Setters = std::map<std::string, Setter>;

template<typename T>
Setter into(T &target)
{
    return [&target](const nlohmann::json &value) -> Result<> {
        value.get_to(target);
        return {};
    };
}

/// Numbers that count something: 1.5 and -1 are none.
Setter into(uint32_t &target);

/// Sets what `settings` say. Fails with the first key that there is not, and the one that is most like it, or the first
/// value that cannot be.
Result<> apply_settings(const nlohmann::json &settings, const Setters &setters);

} // namespace thruway
