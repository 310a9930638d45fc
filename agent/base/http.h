// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <string>
#include <utility>
#include <vector>

namespace thruway {

struct HttpRequest {
    std::string method;
    std::string path; ///< without a query
    std::string body;
};

struct HttpResponse {
    int status = 200;
    std::string type = "text/plain; charset=utf-8";
    std::string body;
    std::vector<std::pair<std::string, std::string>> headers; ///< others than type and length
};

} // namespace thruway
