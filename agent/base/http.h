// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "agent/base/error.h"

#include <functional>
#include <map>
#include <memory>
#include <string>

namespace thruway {

struct HttpResponse {
    int status = 200;
    std::string type = "text/plain; charset=utf-8";
    std::string body;
};

/// Serves a few paths, in threads of its own: handlers that touch the agent's state must go through its loop.
class HttpServer {
public:
    /// Gets the request's body.
    using Handler = std::function<HttpResponse(const std::string &body)>;

    /// What is served: "GET /metrics" -> handler.
    using Handlers = std::map<std::string, Handler>;

    /// Serves on "127.0.0.1:10249" or "[::]:10256".
    static Result<std::unique_ptr<HttpServer>> on_address(const std::string &address, Handlers handlers);

    /// Serves on a unix socket that only root may use; a stale one is replaced.
    static Result<std::unique_ptr<HttpServer>> on_socket(const std::string &path, Handlers handlers);

    HttpServer(const HttpServer &) = delete;
    HttpServer &operator=(const HttpServer &) = delete;
    /// Waits for handlers that are running.
    ~HttpServer();

private:
    struct Implementation;
    explicit HttpServer(std::unique_ptr<Implementation> implementation);

    std::unique_ptr<Implementation> implementation_;
};

/// One request to a unix socket. Fails if nobody answers within `seconds`.
Result<HttpResponse> http_on_socket(const std::string &path, const std::string &method, const std::string &target,
                                    const std::string &body, int seconds);

} // namespace thruway
