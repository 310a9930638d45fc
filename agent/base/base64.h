// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <optional>
#include <string>
#include <string_view>

namespace thruway {

/// With padding, in one line (RFC 4648 section 4).
std::string encode_base64(std::string_view bytes);

/// White space is ignored; nothing if it is something else.
std::optional<std::string> decode_base64(std::string_view text);

} // namespace thruway
