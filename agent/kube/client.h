// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "agent/base/error.h"
#include "agent/base/fd.h"
#include "agent/base/loop.h"
#include "agent/kube/access.h"
#include "agent/kube/reflector.h"

#include <chrono>
#include <cstdint>
#include <curl/curl.h>
#include <functional>
#include <map>
#include <memory>
#include <string>
#include <string_view>

namespace thruway {

/// Something to be asked of the API server.
struct ApiRequest {
    std::string path;                      ///< with its query
    std::string body;                      ///< JSON to be posted; empty: a GET
    bool protobuf = false;                 ///< the answer may be that as well as JSON
    std::chrono::milliseconds head_limit;  ///< how long the answer may take to begin
    std::chrono::milliseconds quiet_limit; ///< how long it may then say nothing
};

/// Requests to one of several API servers, which share one connection where the server speaks HTTP/2. A server that
/// cannot be reached makes the next one the one that is asked.
class ApiClient {
public:
    struct Handlers {
        /// A success begins. May be left out. Neither this nor `body` may call the client.
        std::function<void()> begin;
        /// Gets the body of a success in pieces. An error ends the answer.
        std::function<Result<>(std::string_view bytes)> body;
        std::function<void(const HttpEnd &end)> end;
    };

    ApiClient(Loop &loop, std::chrono::milliseconds connect_limit);
    ApiClient(const ApiClient &) = delete;
    ApiClient &operator=(const ApiClient &) = delete;
    ~ApiClient();

    /// What is asked from now on goes there, and with these credentials.
    void use(Access access);

    void ask(ApiRequest request, Handlers handlers);

    /// Ends all answers of a server with the error, and closes the connections to it.
    void hang_up(const std::string &server, const std::string &why);

    /// Ends all answers as renewed, and closes all connections.
    void start_over();

    /// Another server is asked from now on, if there is one and none has been chosen since `server` was.
    void turn_from(const std::string &server);

    /// The server that is asked: "https://10.0.0.1:6443".
    [[nodiscard]] const std::string &server() const { return access_.servers.at(server_); }

private:
    using Id = uint64_t;
    struct Transfer;
    struct EndMulti {
        void operator()(CURLM *multi) const { curl_multi_cleanup(multi); }
    };
    using Multi = std::unique_ptr<CURLM, EndMulti>;

    static int on_socket(CURL *easy, curl_socket_t socket, int what, void *self, void *known);
    static int on_timer(CURLM *multi, long milliseconds, void *self);

    [[nodiscard]] Multi make_multi();
    [[nodiscard]] bool may_start() const;
    void start_waiting();
    void start(Transfer &transfer);
    void on_ready();
    void drive(curl_socket_t socket, int events);
    void end_done();
    void end(std::unique_ptr<Transfer> transfer, CURLcode code);
    void end_those(const std::function<bool(const Transfer &)> &which, const std::function<void(Transfer &)> &mark);
    void check_quiet(Id id);

    Loop &loop_;
    std::chrono::milliseconds connect_limit_;
    Access access_;
    size_t server_ = 0;
    Fd sockets_; ///< an epoll of curl's sockets, which is readable when one of them has something to do
    Multi multi_;
    Loop::Timer timer_ = 0;
    std::map<Id, std::unique_ptr<Transfer>> transfers_;
    Id next_id_ = 1;
};

} // namespace thruway
