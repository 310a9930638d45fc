// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "agent/base/address.h"
#include "agent/base/error.h"
#include "agent/kube/json.h"
#include "agent/state/objects.h"

#include <cstdint>
#include <optional>
#include <string_view>
#include <utility>
#include <vector>

namespace thruway {

// What the fields of several kinds have in common.

/// "TCP", "UDP" or "SCTP"; absent is TCP, as the API says.
Protocol read_protocol(Field &field);

/// A number from `least` to 65535; absent is nothing.
std::optional<uint16_t> read_port(Field &field, int64_t least);

/// A list of strings. They live as long as the document.
std::vector<std::string_view> read_texts(Field &field);

/// An address that packets may be sent to. The error says what is wrong with it.
Result<Address> parse_destination(std::string_view text);

/// "IPv4", "IPv6".
std::string_view family_name(Family family);

/// A plural field, or what stands in the singular one, which repeats its first item, if the plural is missing.
std::vector<std::string_view> plural_or(std::vector<std::string_view> plural, std::string_view singular);

/// What can be read of `texts`, each by `parse`; the others are skipped as faults of `field`.
template<typename T>
std::vector<T> parse_all(const std::vector<std::string_view> &texts, Result<T> (*parse)(std::string_view),
                         std::string_view field, std::string_view what, Faults &faults)
{
    std::vector<T> values;
    for (const std::string_view text : texts) {
        if (auto value = parse(text))
            values.push_back(std::move(*value));
        else
            faults.skip(field, fmt::format("{} is not {}", quoted(text), what));
    }
    return values;
}

} // namespace thruway
