// SPDX-License-Identifier: Apache-2.0
// healthCheckNodePorts: what load balancers are answered, and when (rule 38).
#include "agent/observe/health_ports.h"

#include "tests/unit/http_peer.h"

#include <arpa/inet.h>
#include <catch2/catch_test_macros.hpp>
#include <future>
#include <netinet/in.h>
#include <sys/socket.h>

using namespace thruway;
using namespace thruway::test;

namespace {

ObjectName name(const std::string &text)
{
    return {Symbol("default"), text};
}

/// Health ports whose loop runs beside the test.
class Ports {
public:
    Ports() { set_addresses({Address::any(Family::ipv6)}); }
    ~Ports()
    {
        in_loop([this] { loop_.stop(); });
        thread_.join();
    }

    void apply(const std::vector<std::pair<ObjectName, HealthCheck>> &changes)
    {
        in_loop([&] { ports_.apply(changes); });
    }
    void set_addresses(const std::vector<Address> &addresses)
    {
        in_loop([&] { ports_.set_addresses(addresses); });
    }
    void set_healthy(bool healthy)
    {
        in_loop([&] { healthy_ = healthy; });
    }
    /// Lines about ports that could not be served.
    std::vector<std::string> refused()
    {
        std::vector<std::string> lines;
        in_loop([&] { lines = refused_; });
        return lines;
    }

private:
    void in_loop(const std::function<void()> &task)
    {
        std::promise<void> done;
        loop_.post([&] {
            task();
            done.set_value();
        });
        done.get_future().wait();
    }

    bool healthy_ = true;
    std::vector<std::string> refused_;
    Loop loop_;
    HealthPorts ports_{loop_, [this] { return healthy_; },
                       [this](const ObjectName &service, uint16_t port, const Error &error) {
                           refused_.push_back(fmt::format("{} {}: {}", service.text(), port, error.text()));
                       }};
    std::thread thread_{[this] { loop_.run(); }};
};

/// A port that nobody has, or had.
uint16_t free_port()
{
    Loop loop;
    return HttpServer::on_address(loop, "[::]:0", {}).value()->port();
}

std::string ask(uint16_t port, Family family = Family::ipv4)
{
    return Peer(port, family).ask("GET /whatever HTTP/1.1\r\nConnection: close\r\n\r\n");
}

bool answers(uint16_t port, const char *address = "127.0.0.1")
{
    const Fd socket(::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0));
    sockaddr_in to{};
    to.sin_family = AF_INET;
    to.sin_port = htons(port);
    to.sin_addr.s_addr = ::inet_addr(address);
    return ::connect(socket.get(), reinterpret_cast<const sockaddr *>(&to), sizeof(to)) == 0;
}

} // namespace

TEST_CASE("rule 38: a load balancer is answered as by kube-proxy, in both families")
{
    Ports node;
    const uint16_t port = free_port();
    node.apply({{name("web"), {port, 3}}});
    for (const Family family : {Family::ipv4, Family::ipv6}) {
        const std::string answer = ask(port, family);
        CHECK(answer.starts_with("HTTP/1.1 200 OK\r\n"));
        for (const char *header : {"Content-Length: 114", "Content-Type: application/json",
                                   "X-Content-Type-Options: nosniff", "X-Load-Balancing-Endpoint-Weight: 3"})
            CHECK(answer.contains(fmt::format("\r\n{}\r\n", header)));
        CHECK(answer.ends_with("\r\n\r\n"
                               "{\n"
                               "\t\"service\": {\n"
                               "\t\t\"namespace\": \"default\",\n"
                               "\t\t\"name\": \"web\"\n"
                               "\t},\n"
                               "\t\"localEndpoints\": 3,\n"
                               "\t\"serviceProxyHealthy\": true\n"
                               "}"));
    }
}

TEST_CASE("rule 38: it is 503 without endpoints, and while the agent is not healthy")
{
    Ports node;
    const uint16_t port = free_port();
    node.apply({{name("web"), {port, 0}}});
    CHECK(ask(port).starts_with("HTTP/1.1 503"));
    CHECK(ask(port).contains("\"localEndpoints\": 0,\n\t\"serviceProxyHealthy\": true"));
    node.apply({{name("web"), {port, 1}}});
    CHECK(ask(port).starts_with("HTTP/1.1 200"));
    node.set_healthy(false);
    CHECK(ask(port).starts_with("HTTP/1.1 503"));
    CHECK(ask(port).contains("\"localEndpoints\": 1,\n\t\"serviceProxyHealthy\": false"));
}

TEST_CASE("rule 38: a port opens, moves and closes with its Service")
{
    Ports node;
    const uint16_t first = free_port();
    const uint16_t second = free_port();
    node.apply({{name("web"), {first, 1}}});
    CHECK(answers(first));
    node.apply({{name("web"), {second, 1}}});
    CHECK_FALSE(answers(first));
    CHECK(answers(second));
    node.apply({{name("web"), {}}});
    CHECK_FALSE(answers(second));
    CHECK(node.refused().empty());
}

TEST_CASE("rule 38: ports are served on the addresses that NodePorts are on, and follow them")
{
    Ports node;
    const uint16_t port = free_port();
    const Address first = Address::parse("127.0.0.2").value(), second = Address::parse("127.0.0.3").value();
    node.set_addresses({first});
    node.apply({{name("web"), {port, 1}}});
    CHECK(answers(port, "127.0.0.2"));
    CHECK_FALSE(answers(port, "127.0.0.3"));
    node.set_addresses({second});
    CHECK_FALSE(answers(port, "127.0.0.2"));
    CHECK(answers(port, "127.0.0.3"));
    node.set_addresses({Address::any(Family::ipv6)});
    CHECK(answers(port));
    node.set_addresses({first, second});
    CHECK_FALSE(answers(port));
    CHECK(node.refused().empty());
}

TEST_CASE("rule 38: two Services may exchange their ports in one change")
{
    Ports node;
    const uint16_t first = free_port();
    const uint16_t second = free_port();
    node.apply({{name("a"), {first, 1}}, {name("b"), {second, 1}}});
    node.apply({{name("a"), {second, 1}}, {name("b"), {first, 1}}});
    CHECK(ask(first).contains("\"name\": \"b\""));
    CHECK(ask(second).contains("\"name\": \"a\""));
    CHECK(node.refused().empty());
}

TEST_CASE("rule 38: a port that another process has is told once, and stands in nobody's way")
{
    Ports node;
    Loop loop;
    const auto other = HttpServer::on_address(loop, "127.0.0.1:0", {}).value();
    const uint16_t port = free_port();
    node.apply({{name("a"), {other->port(), 1}}, {name("b"), {port, 1}}});
    node.apply({{name("a"), {other->port(), 2}}});
    CHECK(node.refused() ==
          std::vector<std::string>{fmt::format("default/a {}: cannot listen on [::]:{}: Address already in use",
                                               other->port(), other->port())});
    CHECK(answers(port));
}
