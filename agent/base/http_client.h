// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "agent/base/error.h"
#include "agent/base/http.h"

#include <string>

namespace thruway {

/// One request to a unix socket. Fails if nobody answers within `seconds`.
Result<HttpResponse> http_on_socket(const std::string &path, const std::string &method, const std::string &target,
                                    const std::string &body, int seconds);

} // namespace thruway
