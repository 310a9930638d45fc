// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "agent/base/error.h"
#include "agent/base/fd.h"
#include "agent/base/http.h"
#include "agent/base/loop.h"

#include <deque>
#include <functional>
#include <map>
#include <memory>
#include <string>
#include <string_view>
#include <unordered_map>

struct MHD_Connection;
struct MHD_Daemon;

namespace thruway {

/// Serves HTTP/1.1 at one address by libmicrohttpd, in a loop: no thread waits for a client, so there may be a thousand
/// servers and clients that are slow or say nothing, and the loop's state needs no lock.
class HttpServer {
public:
    /// Gives the answer, once. May be called later, in the loop; does nothing if the client has gone by then.
    using Reply = std::function<void(HttpResponse response)>;
    using Handler = std::function<void(const HttpRequest &request, Reply reply)>;

    /// Serves on "127.0.0.1:10249" or "[::1]:10256". An unspecified address of either family stands for both, as in Go,
    /// where there are both. `loop` must outlive the server.
    static Result<std::unique_ptr<HttpServer>> on_address(Loop &loop, const std::string &address, Handler handler);

    /// Serves on a unix socket that only root may use; a stale one is replaced.
    static Result<std::unique_ptr<HttpServer>> on_socket(Loop &loop, const std::string &path, Handler handler);

    HttpServer(const HttpServer &) = delete;
    HttpServer &operator=(const HttpServer &) = delete;
    ~HttpServer();

    /// The TCP port that it serves on.
    [[nodiscard]] uint16_t port() const;

private:
    struct Exchange;
    struct Stop {
        void operator()(MHD_Daemon *daemon) const;
    };

    HttpServer(Loop &loop, Fd listener, Handler handler);
    static Result<std::unique_ptr<HttpServer>> serve(Loop &loop, Result<Fd> listener, Handler handler);

    Result<> start();
    void accept_one();
    void run();
    void run_after(std::chrono::milliseconds delay);
    bool take(MHD_Connection *client, HttpRequest head, std::string_view body);
    void ask_handler(MHD_Connection *client, const std::shared_ptr<Exchange> &exchange);

    Loop &loop_;
    Fd listener_;
    Handler handler_;
    Loop::Timer pause_ = 0; // out of descriptors: accepts nobody for now
    Loop::Timer next_run_ = 0;
    std::deque<int> clients_; // the oldest first
    std::unordered_map<MHD_Connection *, std::shared_ptr<Exchange>> exchanges_;
    std::unique_ptr<MHD_Daemon, Stop> daemon_; // goes first: what it ends it tells the members above
};

/// A server at an address that may be taken: what is in the way is told once, and tried again every five seconds.
class PatientServer {
public:
    /// `told` may be called before this returns.
    PatientServer(Loop &loop, std::string address, HttpServer::Handler handler,
                  const std::function<void(const Error &error)> &told);
    PatientServer(const PatientServer &) = delete;
    PatientServer &operator=(const PatientServer &) = delete;
    ~PatientServer() { loop_.cancel(timer_); }

private:
    Result<> serve();
    void try_again();

    Loop &loop_;
    std::string address_;
    HttpServer::Handler handler_;
    std::unique_ptr<HttpServer> server_;
    Loop::Timer timer_ = 0;
};

/// A handler that knows a few paths: "GET /metrics" -> handler.
HttpServer::Handler http_routes(std::map<std::string, HttpServer::Handler> routes);

} // namespace thruway
