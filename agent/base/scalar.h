// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "agent/base/error.h"

#include <string>
#include <string_view>

namespace thruway {

/// `text` as a JSON string, quotes included.
std::string json_string(std::string_view text);

/// The JSON value that a YAML scalar stands for. `tag` is "?" for a plain scalar without a tag, which is resolved by
/// the core schema of YAML 1.2; "tag:yaml.org,2002:int" and its like ask for one type and fail if the text is of
/// another; with any other tag, and in quotes ("!"), the text stays text.
Result<std::string> json_scalar(std::string_view tag, std::string_view text);

} // namespace thruway
