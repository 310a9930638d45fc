// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "agent/base/error.h"

#include <string>
#include <string_view>

namespace thruway {

/// The whole of a file. Up to 64 KiB come by one read: a sysctl gives no more than that.
Result<std::string> read_file(const std::string &path);

/// Writes into a file that exists, by one write, as a sysctl wants it.
Result<> write_file(const std::string &path, std::string_view text);

/// Puts a file in the place of another one, or of none, in one step.
Result<> replace_file(const std::string &path, std::string_view text);

} // namespace thruway
