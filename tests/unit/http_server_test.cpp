// SPDX-License-Identifier: Apache-2.0
// The agent's HTTP server, as clients that behave and clients that do not see it.
#include "agent/base/http_server.h"

#include "tests/unit/http_peer.h"

#include <catch2/catch_test_macros.hpp>
#include <future>

using namespace thruway;
using namespace thruway::test;

namespace {

/// Says back what it was asked.
void echo(const HttpRequest &request, const HttpServer::Reply &reply)
{
    reply({.body = fmt::format("{} {} {}", request.method, request.path, request.body), .headers = {{"X-A", "b"}}});
}

} // namespace

TEST_CASE("a request is answered with status, headers and body")
{
    const Serving serving(echo);
    const std::string answer = serving.ask("GET /a/b?c=d HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n");
    CHECK(answer.starts_with("HTTP/1.1 200 OK\r\n"));
    for (const char *header :
         {"Content-Length: 9", "Content-Type: text/plain; charset=utf-8", "X-A: b", "Connection: close"})
        CHECK(answer.contains(fmt::format("\r\n{}\r\n", header)));
    CHECK(answer.ends_with("\r\n\r\nGET /a/b "));
}

TEST_CASE("HEAD gets what GET gets, without the body")
{
    const Serving serving(echo);
    const std::string answer = serving.ask("HEAD /a HTTP/1.0\r\n\r\n");
    CHECK(answer.contains("Content-Length: 7\r\n"));
    CHECK(answer.ends_with("\r\n\r\n"));
}

TEST_CASE("a connection serves one request after the other, however they are cut into pieces")
{
    const Serving serving(echo);
    Peer peer(serving.port());
    peer.send("POST /1 HTTP/1.1\r\ncontent-LENGTH:  4\r\n\r\nab");
    peer.pause();
    peer.send("cd");
    CHECK(peer.receive_until("POST /1 abcd").starts_with("HTTP/1.1 200"));
    peer.send("GET /2 HTT");
    peer.pause();
    peer.send("P/1.1\r\nConnection: Close\r\n\r\n");
    CHECK(peer.receive_all().ends_with("GET /2 "));
}

TEST_CASE("what is no request is refused and the connection closed")
{
    const Serving serving(echo);
    const auto status = [&](const std::string &request) { return serving.ask(request).substr(9, 3); };
    CHECK(serving.ask("hello\r\n\r\n").empty());
    CHECK(status("GET / HTTP/2.0\r\n\r\n") == "505");
    CHECK(status("GET / HTTP/1.1\r\nX: " + std::string(40'000, 'x')) == "431");
    CHECK(status("POST / HTTP/1.1\r\nContent-Length: -1\r\n\r\n") == "400");
}

TEST_CASE("a body may come in chunks, and is refused if it is too large")
{
    const Serving serving(echo);
    const std::string head = "POST / HTTP/1.1\r\nConnection: close\r\n";
    CHECK(
        serving.ask(head + "Transfer-Encoding: chunked\r\n\r\n2\r\nab\r\n1\r\nc\r\n0\r\n\r\n").ends_with("POST / abc"));
    const auto sized = [&](size_t size) {
        return serving.ask(head + fmt::format("Content-Length: {}\r\n\r\n", size) + std::string(size, 'x'));
    };
    CHECK(sized(1 << 20).starts_with("HTTP/1.1 200"));
    CHECK(sized((1 << 20) + 1).starts_with("HTTP/1.1 413"));
    CHECK(sized(5'000'000).starts_with("HTTP/1.1 413"));
}

TEST_CASE("an answer may come later, and may be larger than the socket has room for")
{
    Loop *loop = nullptr;
    const std::string large(8'000'000, 'x');
    Serving serving([&](const HttpRequest &, const HttpServer::Reply &reply) {
        loop->after(std::chrono::milliseconds(10), [&, reply] { reply({.body = large}); });
    });
    loop = &serving.loop();
    CHECK(serving.ask("GET / HTTP/1.0\r\n\r\n").ends_with("\r\n\r\n" + large));
}

TEST_CASE("a client that leaves before it is answered harms nobody")
{
    Loop *loop = nullptr;
    Serving serving([&](const HttpRequest &, const HttpServer::Reply &reply) {
        loop->after(std::chrono::milliseconds(20), [reply] { reply({.body = std::string(1'000'000, 'x')}); });
    });
    loop = &serving.loop();
    {
        Peer peer(serving.port());
        peer.send("GET / HTTP/1.1\r\n\r\n");
    }
    CHECK(serving.ask("GET / HTTP/1.0\r\n\r\n").starts_with("HTTP/1.1 200"));
}

TEST_CASE("a server may end before it has answered everybody")
{
    Loop loop;
    std::promise<HttpServer::Reply> asked;
    auto server = HttpServer::on_address(
        loop, "127.0.0.1:0", [&](const HttpRequest &, const HttpServer::Reply &reply) { asked.set_value(reply); });
    REQUIRE(server);
    std::thread thread([&] { loop.run(); });
    Peer peer((*server)->port());
    peer.send("GET / HTTP/1.1\r\n\r\n");
    const HttpServer::Reply reply = asked.get_future().get();
    loop.post([&] {
        server->reset();
        reply({.body = "too late"});
        loop.stop();
    });
    thread.join();
    CHECK(peer.receive_all().empty());
}

TEST_CASE("clients that say nothing keep nobody out")
{
    const Serving serving(echo);
    std::vector<std::unique_ptr<Peer>> silent;
    for (int i = 0; i < 300; i++)
        silent.push_back(std::make_unique<Peer>(serving.port()));
    CHECK(serving.ask("GET / HTTP/1.0\r\n\r\n").starts_with("HTTP/1.1 200"));
    CHECK(silent.front()->receive_all().empty()); // closed
    CHECK(silent.back()->ask("GET / HTTP/1.0\r\n\r\n").starts_with("HTTP/1.1 200"));
}

TEST_CASE("an unspecified address serves both families")
{
    const Serving serving(echo, "0.0.0.0:0");
    CHECK(Peer(serving.port(), Family::ipv4).ask("GET / HTTP/1.0\r\n\r\n").starts_with("HTTP/1.1 200"));
    CHECK(Peer(serving.port(), Family::ipv6).ask("GET / HTTP/1.0\r\n\r\n").starts_with("HTTP/1.1 200"));
}

TEST_CASE("what is no address and port is refused, and so is one that is taken")
{
    Loop loop;
    for (const char *address : {"", "localhost:80", "10.0.0.1", "10.0.0.1:x", "10.0.0.1:65536", "::1:80:"})
        CHECK_FALSE(HttpServer::on_address(loop, address, echo));
    const auto first = HttpServer::on_address(loop, "127.0.0.1:0", echo);
    REQUIRE(first);
    const auto second = HttpServer::on_address(loop, fmt::format("127.0.0.1:{}", (*first)->port()), echo);
    REQUIRE_FALSE(second);
    CHECK(second.error().text().ends_with("Address already in use"));
}

TEST_CASE("only the paths that are served are found")
{
    const Serving serving(http_routes({{"GET /here", echo}}));
    CHECK(serving.ask("GET /here HTTP/1.0\r\n\r\n").starts_with("HTTP/1.1 200"));
    CHECK(serving.ask("GET /there HTTP/1.0\r\n\r\n").starts_with("HTTP/1.1 404"));
    CHECK(serving.ask("POST /here HTTP/1.0\r\n\r\n").starts_with("HTTP/1.1 404"));
}
