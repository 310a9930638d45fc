// SPDX-License-Identifier: Apache-2.0
#include "tests/lab/fixture.h"
#include "tests/lab/hold_client.h"
#include "tools/lab/ask.h"
#include "tools/lab/bulk.h"
#include "tools/lab/namespaces.h"
#include "tools/lab/socket.h"

#include <csignal>
#include <fcntl.h>
#include <filesystem>
#include <poll.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <thread>

namespace thruway::lab {
namespace {

using nlohmann::json;
using std::chrono::milliseconds;

/// A server on the loopback that says a name and then treats each chunk as `handle` likes, for one connection.
class OneShotServer {
public:
    explicit OneShotServer(std::function<void(std::string &)> handle)
        : listener_(::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0)), handle_(std::move(handle))
    {
        RawSocketName name({.address = literal_address("127.0.0.1"), .port = 0});
        REQUIRE(::bind(listener_.get(), name.get(), name.size) == 0);
        REQUIRE(::listen(listener_.get(), 1) == 0);
        REQUIRE(::getsockname(listener_.get(), name.get(), &name.size) == 0);
        name_ = name.name();
        thread_ = std::jthread([this] { serve(); });
    }

    [[nodiscard]] const SocketName &name() const { return name_; }

private:
    void serve()
    {
        const Fd client(::accept4(listener_.get(), nullptr, nullptr, SOCK_CLOEXEC));
        ::send(client.get(), "bad 127.0.0.1:1\n", 16, MSG_NOSIGNAL);
        std::string chunk(65536, '\0');
        for (ssize_t got = 0; (got = ::recv(client.get(), chunk.data(), chunk.size(), 0)) > 0;) {
            std::string answer = chunk.substr(0, static_cast<size_t>(got));
            handle_(answer);
            if (answer.empty())
                return;
            ::send(client.get(), answer.data(), answer.size(), MSG_NOSIGNAL);
        }
    }

    Fd listener_;
    std::function<void(std::string &)> handle_;
    SocketName name_;
    std::jthread thread_;
};

std::string target_of(const Lab &lab, const std::string &pod, size_t family)
{
    return endpoint_text(must(find_pod(lab, "default", pod)).addresses.at(family), 8080);
}

void pause(milliseconds length)
{
    std::this_thread::sleep_for(length);
}

TEST_CASE("socket names are read and written")
{
    CHECK(must(parse_socket_name("10.0.0.1:80")).text() == "10.0.0.1:80");
    CHECK(must(parse_socket_name("[fd00::1]:65535")).text() == "[fd00::1]:65535");
    CHECK(RawSocketName(must(parse_socket_name("[fd00::1]:53"))).name().text() == "[fd00::1]:53");
    CHECK(must(parse_source("fd00::1")).address.text() == "fd00::1");
    CHECK(must(parse_source("10.0.0.1:99")).port == 99);
    for (const char *bad : {"", "10.0.0.1", ":80", "10.0.0.1:0", "10.0.0.1:65536", "10.0.0.1:8a", "fd00::1:80",
                            "[fd00::1]", "[fd00::1", "host:80"})
        CHECK_FALSE(parse_socket_name(bad).has_value());
}

TEST_CASE("ask says why there was no answer")
{
    const Lab lab = plain_lab({.nodes = 2, .pods = 1});
    for (const size_t family : {0, 1}) {
        const std::string address = must(find_pod(lab, "default", "pod-2-1")).addresses.at(family).text();
        const std::string host = family == 0 ? address : "[" + address + "]";
        CHECK(ask_from(lab, "pod-1-1", "tcp", host + ":9")["error"] == "refused");
        CHECK(ask_from(lab, "pod-1-1", "udp", host + ":9")["error"] == "refused");
    }
    CHECK(ask_from(lab, "pod-1-1", "tcp", "10.244.77.1:80")["error"] == "unreachable");

    must(kill_echo(lab, must(find_pod(lab, "default", "pod-2-1"))));
    CHECK(ask_from(lab, "pod-1-1", "tcp", target_of(lab, "pod-2-1", 0))["error"] == "refused");

    // Nobody answers for the pod any more, and nobody says so.
    must(must(netlink_in(lab.keeper(), "default_pod-2-1")).delete_link("eth0"));
    must(must(netlink_in(lab.keeper(), "node2"))
             .set_route({.destination = must(Prefix::parse("10.244.2.2/32")),
                         .ifindex = must(must(netlink_in(lab.keeper(), "node2")).link("eth0")).index}));
    const auto begin = std::chrono::steady_clock::now();
    const Output silent =
        must(lab.run("client", {program(), "ask", "tcp", target_of(lab, "pod-2-1", 0), "--timeout", "300"}));
    CHECK(silent.exit.code == 1);
    CHECK(silent.err.find("timeout") != std::string::npos);
    CHECK(std::chrono::steady_clock::now() - begin < std::chrono::seconds(5));
}

TEST_CASE("ask counts, and asks from where it is told")
{
    const Lab lab = plain_lab({.nodes = 1, .pods = 2});
    const std::string target = target_of(lab, "pod-1-1", 0);
    const Output five = must(lab.run("pod-1-2", {program(), "ask", "udp", target, "--count", "5"}));
    CHECK(std::ranges::count(five.out, '\n') == 5);
    CHECK(five.out.starts_with("pod-1-1 10.244.1.3:"));
    for (const char *transport : {"tcp", "udp"}) {
        const Output bound = must(lab.run(
            "pod-1-2", {program(), "ask", transport, target, "--source", "10.244.1.3:5555", "--timeout", "2000"}));
        INFO(bound.err);
        CHECK(bound.out == "pod-1-1 10.244.1.3:5555\n");
    }
    const Output foreign = must(lab.run("pod-1-2", {program(), "ask", "tcp", target, "--source", "9.9.9.9"}));
    CHECK(foreign.exit.code == 1);
    CHECK(foreign.err.find("cannot bind") != std::string::npos);
}

TEST_CASE("ask notices an echo that is none")
{
    const OneShotServer wrong([](std::string &bytes) { bytes[0] ^= 1; });
    CHECK(ask({.target = wrong.name()}).error().text() == "wrong data");
    const OneShotServer closes([](std::string &bytes) { bytes.clear(); });
    CHECK(ask({.target = closes.name()}).error().text() == "closed");
    const OneShotServer mute([](std::string &) { pause(milliseconds(400)); });
    CHECK(ask({.target = mute.name(), .timeout = milliseconds(100)}).error().text() == "no answer");
}

TEST_CASE("bulk compares every byte")
{
    constexpr uint64_t bytes = 5'000'000;
    const OneShotServer honest([](std::string &) {});
    CHECK(must(bulk({.target = honest.name(), .bytes = bytes})).name == "bad");

    const uint64_t wrong_at = 3'456'789;
    uint64_t position = 0;
    const OneShotServer flips([&](std::string &chunk) {
        if (position <= wrong_at && wrong_at < position + chunk.size())
            chunk[wrong_at - position] ^= 1;
        position += chunk.size();
    });
    CHECK(bulk({.target = flips.name(), .bytes = bytes}).error().text() == "byte 3456789 came back wrong");

    const OneShotServer adds([](std::string &chunk) { chunk += 'x'; });
    CHECK_FALSE(bulk({.target = adds.name(), .bytes = 10}).has_value());

    uint64_t seen = 0;
    const OneShotServer stops([&](std::string &chunk) {
        seen += chunk.size();
        if (seen > 100'000)
            pause(milliseconds(600));
    });
    const auto stuck = bulk({.target = stops.name(), .bytes = bytes, .patience = milliseconds(200)});
    REQUIRE_FALSE(stuck.has_value());
    CHECK(stuck.error().text().find("nothing moved") != std::string::npos);
}

TEST_CASE("hold accounts for every connection and message when nothing goes wrong")
{
    const Lab lab = plain_lab({.nodes = 2, .pods = 1});
    for (const bool udp : {false, true}) {
        std::vector<std::string> arguments{target_of(lab, "pod-2-1", udp), "--connections", "40", "--rate", "100"};
        if (udp)
            arguments.emplace_back("--udp");
        Hold hold(lab, "pod-1-1", arguments);
        pause(milliseconds(1000));
        const json report = hold.finish(0);
        CHECK(report["established"] == 40);
        CHECK(report["lost"] == 0);
        CHECK(report["short_failed"] == 0);
        CHECK(report["short_ok"] >= 50);
        CHECK(report["messages_sent"] == report["messages_answered"]);
        CHECK(report["messages_sent"] >= report["short_ok"].get<int>() + 40);
        CHECK(report["problems"].empty());
        CHECK(report["own_faults"].empty());
        CHECK(report["backends"] ==
              json{{{"name", "pod-2-1"}, {"held", 40}, {"lost", 0}, {"short", report["short_ok"]}}});
    }
}

TEST_CASE("hold notices connections that break")
{
    const Lab lab = plain_lab({.nodes = 1, .pods = 2});
    Hold hold(lab, "pod-1-1", {target_of(lab, "pod-1-2", 1), "--connections", "20", "--rate", "50"});
    pause(milliseconds(300));
    must(kill_echo(lab, must(find_pod(lab, "default", "pod-1-2"))));
    pause(milliseconds(300));
    const json report = hold.finish(1);
    CHECK(report["established"] == 20);
    CHECK(report["lost"] == 20);
    CHECK(report["backends"][0]["lost"] == 20);
    CHECK(report["short_failed"] >= 1);
    CHECK(report["refused"] >= 1);
    CHECK(report["timeouts"] == 0);
    CHECK(report["own_faults"].empty());
}

TEST_CASE("hold counts every datagram that is not answered")
{
    const Lab lab = plain_lab({.nodes = 1, .pods = 2});
    Hold hold(lab, "client",
              {target_of(lab, "pod-1-2", 0), "--udp", "--connections", "10", "--interval", "20", "--timeout", "500"});
    pause(milliseconds(200));
    must(must(netlink_in(lab.keeper(), "default_pod-1-2")).delete_link("eth0"));
    pause(milliseconds(300));
    const json report = hold.finish(1);
    CHECK(report["established"] == 10);
    CHECK(report["lost"] >= 10);
    CHECK(report["messages_sent"] == report["messages_answered"].get<int>() + report["lost"].get<int>());
}

TEST_CASE("hold tells who could not be reached at all")
{
    const Lab lab = plain_lab({.nodes = 1, .pods = 1});
    Hold refused(lab, "node1", {"10.244.1.2:9", "--connections", "5", "--rate", "20"});
    pause(milliseconds(200));
    const json report = refused.finish(1);
    CHECK(report["established"] == 0);
    CHECK(report["lost"] == 0);
    CHECK(report["refused"].get<int>() == 5 + report["short_failed"].get<int>());
    CHECK(report["backends"].empty());
}

TEST_CASE("hold does not blame the network for its own pauses")
{
    const Lab lab = plain_lab({.nodes = 1, .pods = 2});
    for (const bool udp : {false, true}) {
        std::vector<std::string> arguments{
            target_of(lab, "pod-1-2", 0), "--connections", "20", "--rate", "50", "--timeout", "400"};
        if (udp)
            arguments.emplace_back("--udp");
        Hold hold(lab, "pod-1-1", arguments);
        hold.process().signal(SIGSTOP);
        pause(milliseconds(900));
        hold.process().signal(SIGCONT);
        pause(milliseconds(200));
        const json report = hold.finish(0);
        CHECK(report["lost"] == 0);
        CHECK(report["short_failed"] == 0);
        CHECK(report["longest_own_pause_ms"] >= 800);
    }
}

TEST_CASE("hold tells its own faults apart")
{
    const Lab lab = plain_lab({.nodes = 1, .pods = 2});
    const std::string target = target_of(lab, "pod-1-2", 0);
    REQUIRE(must(lab.run("pod-1-1", {"sh", "-c", "echo 50000 50009 > /proc/sys/net/ipv4/ip_local_port_range"}))
                .exit.good());
    const Output starved =
        must(lab.run("pod-1-1", {program(), "hold", target, "--connections", "30", "--seconds", "0.2", "-o", "json"}));
    const json report = json::parse(starved.out);
    CHECK(starved.exit.code == 1);
    CHECK(report["established"] == 10);
    CHECK(report["own_faults"] ==
          json{{{"reason", "cannot connect to " + target + ": Cannot assign requested address"}, {"count", 20}}});
    CHECK(report["lost"] == 0);
    CHECK(report["problems"].empty());
}

} // namespace
} // namespace thruway::lab
