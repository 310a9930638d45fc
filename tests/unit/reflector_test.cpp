// SPDX-License-Identifier: Apache-2.0
#include "agent/kube/reflector.h"

#include "agent/kube/backoff.h"

#include <catch2/catch_test_macros.hpp>
#include <catch2/generators/catch_generators.hpp>
#include <fmt/format.h>

using namespace thruway;
using namespace std::chrono_literals;
using When = Reflector::Next::When;
using Phase = Reflector::Phase;

namespace {

const Resource &services = resources[0];

std::string service(const std::string &name, int port = 80, int version = 1)
{
    return fmt::format(R"({{"metadata":{{"name":"{}","resourceVersion":"{}"}},)"
                       R"("spec":{{"clusterIP":"10.0.0.1","ports":[{{"port":{}}}]}}}})",
                       name, version, port);
}

std::string event(const std::string &type, const std::string &object)
{
    return fmt::format(R"({{"type":"{}","object":{}}})", type, object) + "\n";
}

std::string bookmark(int version, bool end = false)
{
    return event("BOOKMARK",
                 fmt::format(R"({{"kind":"Service","apiVersion":"v1","metadata":{{"resourceVersion":"{}"{}}}}})",
                             version, end ? R"(,"annotations":{"k8s.io/initial-events-end":"true"})" : ""));
}

std::string status(int code, const std::string &message, const std::string &reason = "Some")
{
    return fmt::format(R"({{"kind":"Status","code":{},"reason":"{}","message":"{}"}})", code, reason, message);
}

std::string list(const std::string &items, int version, const std::string &next = "")
{
    return fmt::format(
        R"({{"kind":"ServiceList","apiVersion":"v1","metadata":{{"resourceVersion":"{}"{}}},"items":[{}]}})", version,
        next.empty() ? "" : fmt::format(R"(,"continue":"{}")", next), items);
}

/// A reflector with what it has learned so far, as "+name:port" and "-name".
struct Fed {
    Reflector reflector{services};
    std::vector<std::string> told;
    std::vector<std::string> refused;

    std::string ask() { return reflector.ask(300); }

    bool feed(const std::string &bytes)
    {
        Learned learned;
        const bool fed = reflector.feed(bytes, learned).has_value();
        note(learned);
        return fed;
    }

    Reflector::Next finish(const HttpEnd &end, bool brief = false)
    {
        Learned learned;
        const auto next = reflector.finish(end, brief, learned);
        note(learned);
        return next;
    }

    /// One request whose answer comes whole.
    Reflector::Next exchange(const std::string &bytes)
    {
        ask();
        feed(bytes);
        return finish({.status = 200});
    }

    std::vector<std::string> take() { return std::exchange(told, {}); }

    void note(const Learned &learned)
    {
        for (const Change &change : learned.changes) {
            if (const auto *upsert = std::get_if<Upsert>(&change)) {
                const auto &object = std::get<Service>(upsert->object);
                told.push_back(fmt::format("+{}:{}", object.name.name, object.ports.at(0).port));
            } else {
                told.push_back("-" + std::get<Delete>(change).key.name.name);
            }
        }
        refused.insert(refused.end(), learned.refused.begin(), learned.refused.end());
    }
};

/// One that has listed service a and watches from version 10.
struct Watching : Fed {
    Watching()
    {
        ask();
        feed(event("ADDED", service("a")) + bookmark(10, true));
        told.clear();
    }
};

using Told = std::vector<std::string>;

} // namespace

TEST_CASE("a stream is cut into its objects wherever its pieces end")
{
    const std::string text = R"({"a":"}]\"{\\"} {"b":[{"c":[1]}]}
{"d":{}})";
    for (size_t piece = 1; piece <= text.size(); piece++) {
        Splitter splitter(Splitter::Shape::stream);
        Told objects;
        for (size_t at = 0; at < text.size(); at += piece)
            REQUIRE(splitter.feed(std::string_view(text).substr(at, piece), [&](const std::string &object) -> Result<> {
                objects.push_back(object);
                return {};
            }));
        CHECK(objects == Told{R"({"a":"}]\"{\\"})", R"({"b":[{"c":[1]}]})", R"({"d":{}})"});
        CHECK(splitter.is_complete());
    }
}

TEST_CASE("a list is cut into its items and what is around them")
{
    const std::string text =
        R"({"kind":"L","items" : [ {"items":[{"x":"\"items\":["}]} , {"b":2}],"metadata":{"items":"a"}})";
    for (size_t piece = 1; piece <= text.size(); piece++) {
        Splitter splitter(Splitter::Shape::list);
        Told objects;
        for (size_t at = 0; at < text.size(); at += piece) {
            CHECK_FALSE((at > 0 && splitter.is_complete()));
            REQUIRE(splitter.feed(std::string_view(text).substr(at, piece), [&](const std::string &object) -> Result<> {
                objects.push_back(object);
                return {};
            }));
        }
        CHECK(objects == Told{R"({"items":[{"x":"\"items\":["}]})", R"({"b":2})"});
        CHECK(splitter.is_complete());
        CHECK(splitter.take_frame() == R"({"kind":"L","items" : [],"metadata":{"items":"a"}})");
    }
}

TEST_CASE("what is no JSON, or has no end, is refused without being kept")
{
    const auto feed = [](Splitter &splitter, const std::string &text) {
        return splitter.feed(text, [](const std::string &) -> Result<> { return {}; });
    };
    for (const auto shape : {Splitter::Shape::stream, Splitter::Shape::list}) {
        Splitter splitter(shape);
        CHECK(feed(splitter, "<html>").error().text() == "is not JSON of an API server: \"<html>\"");
        Splitter tight(shape, 100);
        CHECK(feed(tight, "{\"a\":\"" + std::string(200, 'x')).error().text() == "an object is longer than 100 bytes");
    }
    Splitter items(Splitter::Shape::list);
    CHECK_FALSE(feed(items, R"({"items":[1]})"));
}

TEST_CASE("a watch that begins with all objects goes on as a watch when they have been told")
{
    Fed fed;
    CHECK(fed.ask() ==
          "/api/v1/services?watch=1&allowWatchBookmarks=true&timeoutSeconds=300&sendInitialEvents=true"
          "&resourceVersionMatch=NotOlderThan&resourceVersion="
          "&labelSelector=%21service.kubernetes.io%2Fservice-proxy-name&fieldSelector=spec.clusterIP%21%3DNone");
    fed.feed(event("ADDED", service("a", 80, 7)) + event("ADDED", service("b", 81, 3)));
    CHECK_FALSE(fed.reflector.synced());
    CHECK(fed.reflector.version().empty());
    fed.feed(bookmark(10, true));
    CHECK(fed.reflector.synced());
    CHECK(fed.reflector.version() == "10");
    fed.feed(event("MODIFIED", service("a", 90, 11)) + event("DELETED", service("b", 81, 12)));
    CHECK(fed.take() == Told{"+a:80", "+b:81", "+a:90", "-b"});
    CHECK(fed.finish({.status = 200}).when == When::now);
    CHECK(fed.ask().contains("&resourceVersion=12&"));
    CHECK(fed.reflector.phase() == Phase::watch);
}

TEST_CASE("a bookmark moves the version, and an object that is the same is not told again")
{
    Watching fed;
    fed.feed(bookmark(20) + event("MODIFIED", service("a", 80, 21)) + event("ADDED", service("a", 80, 22)));
    CHECK(fed.take().empty());
    CHECK(fed.reflector.version() == "22");
}

TEST_CASE("events that make no sense are taken for what they say of the object")
{
    Watching fed;
    fed.feed(event("MODIFIED", service("new")) + event("DELETED", service("unknown")) + event("DELETED", service("a")) +
             event("DELETED", service("a")) + event("ADDED", service("a", 81)) + event("ADDED", service("a", 82)));
    CHECK(fed.take() == Told{"+new:80", "-a", "+a:81", "+a:82"});
}

TEST_CASE("what a new list leaves out is deleted, and only once the list is whole")
{
    Watching fed;
    fed.feed(event("ADDED", service("b")) + event("ERROR", status(410, "too old resource version")));
    CHECK(fed.finish({.status = 200}).when == When::now);
    CHECK(fed.ask().contains("sendInitialEvents"));
    fed.take();
    fed.feed(event("ADDED", service("b")));
    CHECK(fed.take().empty());
    CHECK(fed.finish({.status = 200, .error = "reset"}).when == When::backoff);
    CHECK(fed.take().empty());
    fed.ask();
    fed.feed(event("ADDED", service("b", 81)) + bookmark(30, true));
    CHECK(fed.take() == Told{"+b:81", "-a"});
    CHECK(fed.reflector.size() == 1);
}

TEST_CASE("a server without watch lists is asked for a list and then a watch")
{
    Fed fed;
    fed.ask();
    CHECK(fed.finish({.status = 422, .body = status(422, "sendInitialEvents is forbidden")}).trouble.empty());
    CHECK(fed.ask().starts_with("/api/v1/services?resourceVersion=0&labelSelector"));
    CHECK(fed.reflector.phase() == Phase::list);
    fed.feed(list(service("a") + "," + service("b"), 15));
    CHECK_FALSE(fed.reflector.synced());
    CHECK(fed.finish({.status = 200}).when == When::now);
    CHECK(fed.take() == Told{"+a:80", "+b:80"});
    CHECK(fed.reflector.synced());
    CHECK(fed.ask().contains("watch=1&allowWatchBookmarks=true&timeoutSeconds=300&resourceVersion=15&"));
    // A later list must not be older than what is known.
    fed.feed(event("ERROR", status(400, "no such version")));
    fed.finish({.status = 200});
    CHECK(fed.ask().contains("/services?resourceVersion=15&"));
}

TEST_CASE("a server that never comes to the end of the first events is asked for a list in the end")
{
    Fed fed;
    for (int i = 0; i < 2; i++) {
        CHECK(fed.ask().contains("sendInitialEvents"));
        CHECK_FALSE(fed.finish({.status = 200, .error = "says nothing"}).trouble.empty());
    }
    CHECK_FALSE(fed.ask().contains("sendInitialEvents"));
}

TEST_CASE("a list that must not be from a cache comes in pages, and nothing is gone before the last")
{
    Fed fed;
    fed.ask();
    fed.finish({.status = 400, .body = status(400, "what")});
    fed.exchange(list(service("a"), 15));
    fed.take();
    fed.ask();
    CHECK(fed.finish({.status = 410, .body = status(410, "gone")}).when == When::now);
    CHECK(fed.ask().contains("/services?limit=500&labelSelector"));
    fed.feed(list(service("b"), 20, "token"));
    CHECK(fed.finish({.status = 200}).when == When::now);
    CHECK(fed.take() == Told{"+b:80"});
    CHECK(fed.ask().contains("limit=500&continue=token&"));
    fed.feed(list(service("c"), 20));
    fed.finish({.status = 200});
    CHECK(fed.take() == Told{"+c:80", "-a"});
}

TEST_CASE("a page that has expired begins the list anew")
{
    Fed fed;
    fed.ask();
    fed.finish({.status = 410, .body = status(410, "gone")});
    fed.ask();
    fed.finish({.status = 400, .body = status(400, "what")});
    fed.exchange(list(service("a"), 20, "token"));
    fed.ask();
    fed.finish({.status = 410, .body = status(410, "token has expired")});
    CHECK_FALSE(fed.ask().contains("continue"));
    fed.feed(list(service("b"), 30));
    fed.finish({.status = 200});
    CHECK(fed.take() == Told{"+a:80", "+b:80", "-a"});
}

TEST_CASE("a version that is too new for the server leads to a list that is not from its cache")
{
    Watching fed;
    fed.finish({.status = 200});
    fed.ask();
    const HttpEnd end{.status = 504, .body = status(504, "Timeout: Too large resource version: 10, current: 5")};
    CHECK(fed.finish(end).when == When::now);
    CHECK(fed.ask().contains("sendInitialEvents"));
    CHECK(fed.finish(end).when == When::backoff); // not without end
}

TEST_CASE("a list that is cut off is no list")
{
    Fed fed;
    fed.ask();
    fed.finish({.status = 400, .body = status(400, "what")});
    const std::string whole = list(service("a"), 15);
    const size_t length = GENERATE(size_t{0}, size_t{30}, size_t{100});
    fed.ask();
    fed.feed(whole.substr(0, length));
    const auto next = fed.finish({.status = 200});
    CHECK(next.when == When::backoff);
    CHECK(next.trouble == "services: the answer ends before it is whole");
    CHECK_FALSE(fed.reflector.synced());
}

TEST_CASE("an answer of the server is told in one clear line, with when to try again")
{
    struct Case {
        HttpEnd end;
        When when;
        std::string trouble;
    };
    const auto &[end, when, trouble] = GENERATE(values<Case>({
        {{.error = "https://x: Connection refused"}, When::backoff, "https://x: Connection refused"},
        {{.status = 401, .body = status(401, "Unauthorized")},
         When::backoff,
         "the API server does not accept the credentials (401): Unauthorized"},
        {{.status = 403, .body = status(403, "services is forbidden: User \\\"x\\\" cannot watch")},
         When::backoff,
         "services is forbidden: User \"x\" cannot watch; the agent's ClusterRole needs the rule {apiGroups: [\"\"], "
         "resources: [services], verbs: [list, watch]}"},
        {{.status = 429, .body = status(429, "slow down"), .retry_after = 7}, When::later, "services: slow down"},
        {{.status = 500, .body = "<html>"}, When::backoff, "services: status 500: \"<html>\""},
        {{.status = 503, .body = "", .retry_after = 2}, When::later, "services: status 503: \"\""},
        {{.status = 404, .body = "no such page"}, When::backoff, "services: status 404: \"no such page\""},
    }));
    Watching fed;
    fed.finish({.status = 200});
    fed.ask();
    const auto next = fed.finish(end);
    CHECK(next.when == when);
    CHECK(next.trouble == trouble);
    CHECK(next.wait.count() == end.retry_after);
    CHECK(next.renew_access == (end.status == 401));
    CHECK(fed.take().empty()); // and nothing is lost
}

TEST_CASE("a watch that the server ends at once is a fault, one that had something to say is none")
{
    Watching fed;
    CHECK(fed.finish({.status = 200}, true).when == When::now);
    fed.ask();
    CHECK(fed.finish({.status = 200}, true).trouble == "services: the server closes the watch at once");
    fed.ask();
    CHECK(fed.finish({.status = 200}, false).when == When::now);
}

TEST_CASE("an object that is refused stays as it was, and is told once")
{
    Watching fed;
    const std::string bad = event("MODIFIED", service("a", 0, 11));
    fed.feed(bad + bad);
    CHECK(fed.take().empty());
    CHECK(fed.refused == Told{"Service default/a: spec.ports[0].port: must be 1 to 65535, is 0"});
    CHECK(fed.reflector.version() == "11");
    fed.feed(event("MODIFIED", service("a", 81)) + event("DELETED", service("a")));
    CHECK(fed.take() == Told{"+a:81", "-a"});
}

TEST_CASE("an object that was refused from the start is not deleted")
{
    Watching fed;
    fed.feed(event("ADDED", service("b", 0)) + event("DELETED", service("b", 0)));
    CHECK(fed.take().empty());
    CHECK(fed.reflector.size() == 1);
}

TEST_CASE("waits grow twofold, spread, up to half a minute, and begin anew after two good minutes")
{
    std::minstd_rand random(1);
    Backoff backoff(800ms);
    Backoff::Clock::time_point now{1h};
    for (const auto least : {800ms, 1600ms, 3200ms, 6400ms, 12'800ms, 25'600ms, 30'000ms, 30'000ms}) {
        const auto wait = backoff.after_failure(now, random);
        CHECK(wait >= least);
        CHECK(wait <= std::min(2 * least, 30'000ms));
        now += wait;
    }
    now += 3min;
    CHECK(backoff.after_failure(now, random) <= 1600ms);
}
