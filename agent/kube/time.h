// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

namespace thruway {

/// Milliseconds since 1970 of a date and time as Kubernetes writes it: "2026-03-01T12:30:00Z", with a fraction of a
/// second or an offset such as +02:00 if need be (RFC 3339 section 5.6).
std::optional<int64_t> parse_time(std::string_view text);

/// A time as Kubernetes writes it in Events: "2026-03-01T12:30:00.000000Z"; `microseconds` since 1970.
std::string time_text(int64_t microseconds);

} // namespace thruway
