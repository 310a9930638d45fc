// SPDX-License-Identifier: Apache-2.0
#include "agent/base/http_client.h"

#include <httplib.h>

namespace thruway {

Result<HttpResponse> http_on_socket(const std::string &path, const std::string &method, const std::string &target,
                                    const std::string &body, int seconds)
{
    httplib::Client client(path);
    client.set_address_family(AF_UNIX);
    client.set_connection_timeout(seconds);
    client.set_read_timeout(seconds);
    const httplib::Headers headers{{"Host", "localhost"}};
    auto result = method == "POST" ? client.Post(target.c_str(), headers, body, "application/json")
                                   : client.Get(target.c_str(), headers);
    if (!result)
        return fail("nobody answers on {} ({})", path, httplib::to_string(result.error()));
    return HttpResponse{result->status, result->get_header_value("Content-Type"), result->body, {}};
}

} // namespace thruway
