// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "agent/base/error.h"
#include "agent/kube/decode.h"

#include <string>
#include <string_view>
#include <vector>

namespace thruway {

/// True for *.yaml, *.yml and *.json. Hidden files, and so the temporary ones of editors, are none.
bool is_manifest(std::string_view file_name);

/// The objects of a manifest. Fails if the text is not YAML (or JSON, by the file's name), or not a manifest's.
Result<std::vector<Decoded>> read_manifest(Decoder &decoder, std::string_view file_name, std::string text);

} // namespace thruway
