// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "agent/base/address.h"
#include "agent/base/http_server.h"

#include <string>
#include <thread>

/// Both ends of HTTP for tests.
namespace thruway::test {

/// A client, down to the bytes. It fails the test if it waits for longer than some seconds.
class Peer {
public:
    explicit Peer(uint16_t port, Family family = Family::ipv4);

    void send(const std::string &text);
    /// Lets the other end see what was sent so far by itself.
    static void pause() { std::this_thread::sleep_for(std::chrono::milliseconds(5)); }
    std::string receive_until(const std::string &end);
    /// Until the other end closes.
    std::string receive_all();
    std::string ask(const std::string &request);

private:
    std::string receive_some();

    Fd socket_;
};

/// A server whose loop runs beside the test.
class Serving {
public:
    explicit Serving(HttpServer::Handler handler, const std::string &address = "127.0.0.1:0");
    ~Serving();
    Serving(const Serving &) = delete;
    Serving &operator=(const Serving &) = delete;

    [[nodiscard]] Loop &loop() { return loop_; }
    [[nodiscard]] uint16_t port() const { return port_; }
    [[nodiscard]] std::string ask(const std::string &request) const { return Peer(port_).ask(request); }

private:
    Loop loop_;
    std::unique_ptr<HttpServer> server_;
    uint16_t port_ = 0;
    std::thread thread_;
};

} // namespace thruway::test
