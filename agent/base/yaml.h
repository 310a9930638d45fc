// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "agent/base/error.h"

#include <cstddef>
#include <functional>
#include <string>
#include <string_view>

namespace thruway {

/// Converts YAML to JSON, one document at a time: calls each(line, json) with the line in which a document begins; an
/// error from it ends the reading. Empty documents are left out.
///
/// Plain scalars mean what the core schema of YAML 1.2 (section 10.3) says: null, true, false and numbers, all else is
/// text; keys are always text. Aliases and merge keys ("<<") are filled in. Fails, with line and column, on what is not
/// YAML, on what JSON cannot hold, on a key given twice, and on aliases that blow up the document. UTF-8 only.
Result<> yaml_to_json(std::string_view text, const std::function<Result<>(size_t line, std::string json)> &each);

} // namespace thruway
