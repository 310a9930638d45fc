// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "agent/agent.h"
#include "agent/base/http_server.h"

#include <memory>
#include <thread>
#include <vector>

namespace thruway {

/// What the agent serves to others: the CNI plugin and the CLI on RUN_DIR/agent.sock, Prometheus and health checks on
/// TCP. All of it happens in the agent's loop, but for the reading of the flow table.
class Api {
public:
    /// A TCP address that is taken is logged and tried again; the socket has to work.
    static Result<std::unique_ptr<Api>> start(Loop &loop, Agent &agent);

    Api(const Api &) = delete;
    Api &operator=(const Api &) = delete;
    ~Api();

private:
    Api(Loop &loop, Agent &agent) : loop_(loop), agent_(agent) {}

    Result<> serve();
    void serve_on(const std::string &address, std::map<std::string, HttpServer::Handler> routes);
    void scrape(const HttpServer::Reply &reply);

    Loop &loop_;
    Agent &agent_;
    std::unique_ptr<HttpServer> socket_;
    std::vector<std::unique_ptr<PatientServer>> servers_;
    Loop scrapes_; // run by the thread
    std::thread scraper_{[this] { scrapes_.run(); }};
};

} // namespace thruway
