// SPDX-License-Identifier: Apache-2.0
#include "agent/kube/source.h"

#include "tests/kube/fake_api_server.h"

#include <catch2/catch_test_macros.hpp>
#include <catch2/generators/catch_generators.hpp>
#include <condition_variable>
#include <cstdlib>
#include <filesystem>
#include <fmt/ranges.h>
#include <fstream>
#include <future>
#include <mutex>
#include <random>
#include <thread>

using namespace thruway;
using namespace thruway::testing;
using namespace std::chrono_literals;
namespace fs = std::filesystem;
using Json = nlohmann::json;

namespace {

/// Everything that takes seconds in earnest takes a moment here.
constexpr KubeTiming quick{.connect = 2s,
                           .head = 1s,
                           .piece = 500ms,
                           .silence = 500ms,
                           .ping_every = 100ms,
                           .ping = 300ms,
                           .backoff = 10ms,
                           .longest_backoff = 100ms, // a dozen faults would have it wait for longer than the tests do
                           .brief = 2ms};

constexpr auto patience = 20s;

Json service(const std::string &name, int port = 80)
{
    return {{"metadata", {{"name", name}, {"namespace", "default"}}},
            {"spec", {{"clusterIP", "10.0.0.1"}, {"ports", {{{"port", port}}}}}}};
}

Json slice(const std::string &name, int pods)
{
    Json endpoints = Json::array();
    for (int i = 0; i < pods; i++)
        endpoints.push_back({{"addresses", {fmt::format("10.1.{}.{}", i / 200, i % 200 + 1)}}});
    return {{"metadata", {{"name", name}, {"namespace", "default"}, {"labels", {{"kubernetes.io/service-name", "a"}}}}},
            {"addressType", "IPv4"},
            {"ports", {{{"port", 80}}}},
            {"endpoints", endpoints}};
}

Json node(const std::string &name)
{
    return {{"metadata", {{"name", name}}}, {"spec", {{"podCIDR", "10.244.0.0/24"}}}};
}

using Objects = std::map<ObjectKey, Object>;

/// What the server has, as an agent should know it.
Objects truth_of(const FakeApiServer &server)
{
    Decoder decoder;
    Objects objects;
    for (const std::string &json : server.truth())
        for (Decoded &decoded : decoder.decode(json).value())
            if (decoded.object)
                objects.emplace(*decoded.key, std::move(*decoded.object));
    return objects;
}

/// A folder with a kubeconfig, and what that names.
class KubeFolder {
public:
    KubeFolder()
    {
        std::string path = fs::temp_directory_path() / "thruway-test-XXXXXX";
        REQUIRE(mkdtemp(path.data()) != nullptr);
        path_ = path;
    }
    KubeFolder(const KubeFolder &) = delete;
    KubeFolder &operator=(const KubeFolder &) = delete;
    ~KubeFolder() { fs::remove_all(path_); }

    void write(const std::string &name, const std::string &text) const
    {
        std::ofstream(path_ / ".new") << text;
        fs::rename(path_ / ".new", path_ / name);
    }

    [[nodiscard]] KubeOptions config(const std::string &server, const std::string &more_cluster = "",
                                     const std::string &user = "{}") const
    {
        write("config", fmt::format("current-context: x\ncontexts: [{{name: x, context: {{cluster: c, user: u}}}}]\n"
                                    "clusters: [{{name: c, cluster: {{server: \"{}\"{}}}}}]\n"
                                    "users: [{{name: u, user: {}}}]\n",
                                    server, more_cluster.empty() ? "" : ", " + more_cluster, user));
        return {.kubeconfig = path_ / "config", .servers = {}};
    }

private:
    fs::path path_;
};

/// A KubeSource in a loop of its own, and what it has told so far.
class Watcher {
public:
    explicit Watcher(const KubeOptions &options, KubeTiming timing = quick)
        : source_(loop_, "node1", options,
                  {.changes = [this](const std::vector<Change> &changes) { on_changes(changes); },
                   .synced =
                       [this] {
                           const std::lock_guard guard(mutex_);
                           synced_++;
                       },
                   .refused =
                       [this](const std::string &line) {
                           const std::lock_guard guard(mutex_);
                           refused_.push_back(line);
                       }},
                  timing)
    {
        REQUIRE(source_.start());
        thread_ = std::jthread([this] { loop_.run(); });
    }
    Watcher(const Watcher &) = delete;
    Watcher &operator=(const Watcher &) = delete;
    ~Watcher()
    {
        loop_.post([this] { loop_.stop(); });
    }

    void post(const Event &event)
    {
        loop_.post([this, event] { source_.post(event); });
    }

    /// Waits until the agent knows what the server has.
    void wait_for(const FakeApiServer &server)
    {
        const Objects truth = truth_of(server);
        const bool reached = wait([&] { return synced_ == 1 && objects_ == truth; });
        INFO(fmt::format("knows {} of {} objects; refused: {}", objects().size(), truth.size(),
                         fmt::join(refused(), "; ")));
        for (const WatchStatus &watch : reached ? std::vector<WatchStatus>() : watches())
            UNSCOPED_INFO(fmt::format("{}: {}, {} objects, version {}, {} reconnects, last error {}", watch.resource,
                                      watch.state, watch.objects, watch.version, watch.reconnects, watch.last_error));
        CHECK(reached);
    }

    void wait_for_refusal(const std::string &part)
    {
        INFO("wanted: " << part);
        const bool told = wait([&] {
            return std::ranges::any_of(refused_, [&](const std::string &line) { return line.contains(part); });
        });
        INFO(fmt::format("refused: {}", fmt::join(refused(), "; ")));
        CHECK(told);
    }

    std::vector<WatchStatus> watches()
    {
        std::promise<std::vector<WatchStatus>> promise;
        loop_.post([&] { promise.set_value(source_.watches()); });
        return promise.get_future().get();
    }

    Objects objects()
    {
        const std::lock_guard guard(mutex_);
        return objects_;
    }
    std::vector<std::string> refused()
    {
        const std::lock_guard guard(mutex_);
        return refused_;
    }
    size_t count(const std::string &part)
    {
        const auto lines = refused();
        return static_cast<size_t>(
            std::ranges::count_if(lines, [&](const std::string &line) { return line.contains(part); }));
    }

    /// Waits until the status of the first watch is as it should be.
    bool wait_for_status(const std::function<bool(const WatchStatus &)> &done)
    {
        const auto end = std::chrono::steady_clock::now() + patience;
        while (!done(watches()[0])) {
            if (std::chrono::steady_clock::now() > end)
                return false;
            std::this_thread::sleep_for(1ms);
        }
        return true;
    }

    /// False after too long a time. `done` is called with what was told held still.
    bool wait(const std::function<bool()> &done)
    {
        const auto end = std::chrono::steady_clock::now() + patience;
        while (std::chrono::steady_clock::now() < end) {
            {
                const std::lock_guard guard(mutex_);
                if (done())
                    return true;
            }
            std::this_thread::sleep_for(2ms);
        }
        return false;
    }

private:
    void on_changes(const std::vector<Change> &changes)
    {
        const std::lock_guard guard(mutex_);
        for (const Change &change : changes) {
            if (const auto *upsert = std::get_if<Upsert>(&change)) {
                const ObjectKey key = key_of(upsert->object);
                if (const auto found = objects_.find(key); found != objects_.end())
                    repeated_ += found->second == upsert->object;
                objects_.insert_or_assign(key, upsert->object);
            } else {
                repeated_ += objects_.erase(std::get<Delete>(change).key) == 0;
            }
        }
        CHECK(repeated_ == 0);
    }

    std::mutex mutex_; // guards what was told
    Objects objects_;
    std::vector<std::string> refused_;
    unsigned synced_ = 0;
    size_t repeated_ = 0;
    Loop loop_;
    KubeSource source_;
    std::jthread thread_;
};

void fill(FakeApiServer &server)
{
    server.put("services", service("a"));
    server.put("services", service("b"));
    server.put("endpointslices", slice("a-1", 100));
    server.put("nodes", node("node1"));
}

/// Changes of every sort, one of each.
void change(FakeApiServer &server)
{
    server.put("services", service("a", 81));
    server.put("services", service("c"));
    server.remove("services", "default", "b");
    server.put("endpointslices", slice("a-1", 99));
    server.put("endpointslices", slice("a-2", 1));
}

/// A server with objects and an agent that knows them.
struct Pair {
    FakeApiServer server;
    KubeFolder folder;
    std::optional<Watcher> watcher;

    Pair()
    {
        fill(server);
        watcher.emplace(folder.config(server.url()));
        watcher->wait_for(server);
    }

    void change_and_compare()
    {
        change(server);
        watcher->wait_for(server);
    }
};

/// The Event that was posted to this namespace.
Json posted_event(Pair &pair, const std::string &space)
{
    std::optional<Json> event;
    CHECK(pair.watcher->wait([&] {
        for (const FakeRequest &request : pair.server.requests())
            if (request.method == "POST" && request.path == "/apis/events.k8s.io/v1/namespaces/" + space + "/events")
                event = Json::parse(request.body);
        return event.has_value();
    }));
    REQUIRE(event);
    return *event;
}

void answer_status(Connection &connection, int code, const std::string &message,
                   const std::vector<std::string> &headers = {})
{
    const Json status{{"kind", "Status"}, {"code", code}, {"message", message}};
    connection.answer(code, status.dump(), "application/json", headers);
}

} // namespace

TEST_CASE("kube: what the server has is told, and then what changes")
{
    Pair pair;
    pair.change_and_compare();
    INFO(fmt::format("refused: {}", fmt::join(pair.watcher->refused(), "; ")));
    CHECK(pair.watcher->refused().empty());
    const auto watches = pair.watcher->watches();
    REQUIRE(watches.size() == resources.size());
    CHECK(watches[0].resource == "services");
    CHECK(watches[0].state == "watching");
    CHECK(watches[0].objects == 2);
    CHECK(watches[0].bytes > 0);
    CHECK(watches[0].reconnects == 0);
    CHECK(watches[0].trouble.empty());
    CHECK(watches[0].event_age < 60);
    CHECK(watches[0].server == pair.server.url());
}

TEST_CASE("kube: only what is used is asked for, and of that only what a proxy serves")
{
    const Pair pair;
    for (const FakeRequest &request : pair.server.requests()) {
        if (request.path == "/api/v1/services") {
            CHECK(request.query.at("labelSelector") == "%21service.kubernetes.io%2Fservice-proxy-name");
            CHECK(request.query.at("fieldSelector") == "spec.clusterIP%21%3DNone");
        } else if (request.path == "/apis/discovery.k8s.io/v1/endpointslices") {
            CHECK(request.query.at("labelSelector") == "%21service.kubernetes.io%2Fheadless");
        } else if (request.method == "GET") {
            CHECK((request.path == "/api/v1/nodes" || request.path == "/version" ||
                   request.path == "/apis/networking.k8s.io/v1/servicecidrs"));
        }
    }
}

TEST_CASE("kube: the start is an Event on the Node")
{
    Pair pair;
    const Json event = posted_event(pair, "default");
    CHECK(event["type"] == "Normal");
    CHECK(event["reason"] == "Starting");
    CHECK(event["regarding"]["kind"] == "Node");
    CHECK(event["regarding"]["name"] == "node1");
}

TEST_CASE("kube: an Event about a Service is posted to its namespace, one after the other")
{
    Pair pair;
    for (const char *space : {"shop", "mail"})
        pair.watcher->post({.regarding = {Kind::service, {Symbol(space), "web"}},
                            .warning = true,
                            .reason = "FailedToStartServiceHealthcheck",
                            .action = "Listen",
                            .note = "the port is taken"});
    for (const char *space : {"shop", "mail"}) {
        const Json event = posted_event(pair, space);
        CHECK(event["type"] == "Warning");
        CHECK(event["reason"] == "FailedToStartServiceHealthcheck");
        CHECK(event["metadata"]["namespace"] == space);
        CHECK(event["regarding"] ==
              Json{{"apiVersion", "v1"}, {"kind", "Service"}, {"name", "web"}, {"namespace", space}});
    }
}

TEST_CASE("kube: a server without watch lists is listed and watched")
{
    FakeApiServer server;
    server.serve_watch_list(false);
    fill(server);
    const KubeFolder folder;
    Watcher watcher(folder.config(server.url()));
    watcher.wait_for(server);
    change(server);
    watcher.wait_for(server);
    server.compact();
    server.remove("services", "default", "a");
    server.compact();
    watcher.wait_for(server);
}

TEST_CASE("kube: a list of many pages is one list")
{
    FakeApiServer server;
    server.serve_watch_list(false);
    for (int i = 0; i < 1200; i++)
        server.put("services", service(fmt::format("s{}", i)));
    server.next("services", [](Connection &c, const FakeRequest &) { answer_status(c, 422, "no"); });
    server.next("services", [](Connection &c, const FakeRequest &) { answer_status(c, 410, "too old"); });
    const KubeFolder folder;
    Watcher watcher(folder.config(server.url()));
    watcher.wait_for(server);
    const auto requests = server.requests();
    CHECK(std::ranges::count_if(requests, [](const FakeRequest &r) { return r.query.contains("continue"); }) == 2);
}

TEST_CASE("kube: a stream that is cut within an object loses nothing")
{
    Pair pair;
    pair.server.cut_after("services", 700);
    pair.server.cut_after("endpointslices", 3000);
    pair.change_and_compare();
    pair.change_and_compare();
}

TEST_CASE("kube: first answers that are cut off are no answers")
{
    FakeApiServer server;
    fill(server);
    server.serve_watch_list(GENERATE(true, false));
    server.cut_after("services", GENERATE(10U, 200U, 450U));
    server.cut_after("endpointslices", 2000);
    const KubeFolder folder;
    Watcher watcher(folder.config(server.url()));
    watcher.wait_for(server);
    change(server);
    watcher.wait_for(server);
}

TEST_CASE("kube: bytes may come one by one")
{
    FakeApiServer server;
    server.dribble(true);
    server.put("services", service("a"));
    server.put("nodes", node("n"));
    const KubeFolder folder;
    Watcher watcher(folder.config(server.url()));
    watcher.wait_for(server);
}

TEST_CASE("kube: events that come twice, or of what nobody knows, change nothing")
{
    Pair pair;
    pair.server.stutter(true);
    pair.server.end_watches();
    pair.change_and_compare();
}

TEST_CASE("kube: what went while the past was forgotten is deleted")
{
    Pair pair;
    pair.server.close();
    pair.server.reset_connections();
    change(pair.server);
    pair.server.compact();
    pair.server.open();
    pair.watcher->wait_for(pair.server);
    CHECK(pair.watcher->count("Couldn't connect") + pair.watcher->count("Failed to connect") <= 1);
}

TEST_CASE("kube: a server that was away is told of once, and followed from where it was")
{
    Pair pair;
    const auto lists = [&] {
        const auto requests = pair.server.requests();
        return std::ranges::count_if(requests, [](const auto &r) { return r.query.contains("sendInitialEvents"); });
    };
    const auto before = lists();
    pair.server.close();
    pair.server.reset_connections();
    pair.watcher->wait_for_refusal(pair.server.url());
    CHECK(pair.watcher->wait_for_status(
        [](const WatchStatus &watch) { return watch.state == "waiting" && !watch.trouble.empty(); }));
    CHECK(pair.watcher->objects() == truth_of(pair.server)); // nothing is taken back
    pair.server.open();
    pair.change_and_compare();
    CHECK(lists() == before);
    CHECK(pair.watcher->wait_for_status([](const WatchStatus &watch) { return watch.trouble.empty(); }));
    CHECK_FALSE(pair.watcher->watches()[0].last_error.empty());
}

TEST_CASE("kube: a connection on which nothing is said any more is given up")
{
    Pair pair;
    pair.server.freeze(true);
    change(pair.server);
    pair.watcher->wait_for_refusal("says nothing");
    pair.server.freeze(false);
    pair.watcher->wait_for(pair.server);
}

TEST_CASE("kube: a watch that is silent while the server answers is opened anew")
{
    FakeApiServer server;
    fill(server);
    const KubeFolder folder;
    server.next("services", [&](Connection &connection, const FakeRequest &) {
        connection.begin_stream();
        while (connection.is_open())
            std::this_thread::sleep_for(5ms);
    });
    Watcher watcher(folder.config(server.url()));
    watcher.wait_for(server);
    CHECK(watcher.count("says nothing") == 1);
}

TEST_CASE("kube: a server that wants to be left alone for a while is")
{
    Pair pair;
    const auto count = [&] {
        const auto requests = pair.server.requests();
        return std::ranges::count_if(requests, [](const auto &r) { return r.path == "/api/v1/services"; });
    };
    const auto start = std::chrono::steady_clock::now();
    const auto before = count();
    pair.server.next("services",
                     [](Connection &c, const FakeRequest &) { answer_status(c, 429, "busy", {"Retry-After: 1"}); });
    pair.server.end_watches();
    pair.watcher->wait_for_refusal("services: busy");
    pair.change_and_compare();
    CHECK(std::chrono::steady_clock::now() - start > 900ms);
    CHECK(count() == before + 2);
    CHECK(pair.watcher->count("services: busy") == 1);
}

TEST_CASE("kube: a version that the server does not have yet leads to a new list")
{
    Pair pair;
    pair.server.next("services", [](Connection &c, const FakeRequest &) {
        answer_status(c, 504, "Timeout: Too large resource version: 9, current: 5");
    });
    pair.server.end_watches();
    CHECK(pair.watcher->wait([&] {
        const auto requests = pair.server.requests();
        return std::ranges::count_if(requests, [](const FakeRequest &request) {
                   return request.path == "/api/v1/services" && request.query.contains("sendInitialEvents");
               }) == 2;
    }));
    pair.change_and_compare();
}

TEST_CASE("kube: what is no API server is told in one line, and the next server is asked")
{
    FakeApiServer server;
    FakeApiServer proxy;
    fill(server);
    for (int i = 0; i < 50; i++)
        for (const char *resource : {"services", "endpointslices", "nodes"})
            proxy.next(resource, [](Connection &c, const FakeRequest &) { c.answer(200, "<html>", "text/html"); });
    const KubeFolder folder;
    KubeOptions options = folder.config(server.url());
    options.servers = {proxy.url(), server.url()};
    Watcher watcher(options);
    watcher.wait_for(server);
    CHECK(watcher.refused() == std::vector<std::string>{proxy.url() + ": is no API server: it answers with text/html"});
}

TEST_CASE("kube: when a server is lost the next one is asked, and nothing is lost")
{
    FakeApiServer one;
    FakeApiServer other;
    for (FakeApiServer *server : {&one, &other})
        fill(*server);
    const KubeFolder folder;
    KubeOptions options = folder.config("https://127.0.0.1:1");
    options.servers = {one.url(), other.url()};
    Watcher watcher(options);
    watcher.wait_for(one);
    if (GENERATE(true, false)) {
        one.close();
        one.reset_connections();
    } else {
        one.freeze(true);
    }
    change(other);
    watcher.wait_for(other);
    CHECK(watcher.watches()[0].server == other.url());
}

TEST_CASE("kube: a server that takes connections and says nothing does not keep the next one from being asked")
{
    FakeApiServer silent({.certificate = {}, .client = {}});
    silent.freeze(true);
    FakeApiServer server;
    fill(server);
    const KubeFolder folder;
    KubeOptions options = folder.config(server.url());
    options.servers = {silent.url(), server.url()};
    Watcher watcher(options);
    watcher.wait_for(server);
    CHECK(watcher.count(silent.url() + ": says nothing") == 1);
}

TEST_CASE("kube: an expired token is told, and the one that takes its place is used")
{
    Pair pair;
    const KubeFolder folder;
    folder.write("token", "old");
    pair.server.want_token("old");
    Watcher watcher(folder.config(pair.server.url(), "", "{tokenFile: token}"));
    watcher.wait_for(pair.server);
    pair.server.want_token("new");
    pair.server.end_watches();
    watcher.wait_for_refusal("the API server does not accept the credentials (401): Unauthorized");
    folder.write("token", "new\n");
    change(pair.server);
    watcher.wait_for(pair.server);
}

TEST_CASE("kube: what may not be watched is told with the rule that is missing")
{
    FakeApiServer server;
    fill(server);
    server.forbid("endpointslices", true);
    const KubeFolder folder;
    Watcher watcher(folder.config(server.url()));
    watcher.wait_for_refusal(
        "endpointslices is forbidden: User \"thruway\" cannot watch resource \"endpointslices\"; the agent's "
        "ClusterRole "
        "needs the rule {apiGroups: [\"discovery.k8s.io\"], resources: [endpointslices], verbs: [list, watch]}");
    server.forbid("endpointslices", false);
    watcher.wait_for(server);
    CHECK(watcher.refused().size() == 1);
}

TEST_CASE("kube: a server without ServiceCIDRs, or one that keeps them to itself, is followed all the same")
{
    FakeApiServer server;
    fill(server);
    const KubeFolder folder;
    SECTION("older than they are")
    {
        server.next("servicecidrs", [](Connection &connection, const FakeRequest &) {
            connection.answer(404, "404 page not found\n", "text/plain");
        });
        Watcher watcher(folder.config(server.url()));
        watcher.wait_for(server);
        CHECK(watcher.refused().empty());
    }
    SECTION("not allowed")
    {
        server.forbid("servicecidrs", true);
        Watcher watcher(folder.config(server.url()));
        watcher.wait_for(server);
        watcher.wait_for_refusal(
            "needs the rule {apiGroups: [\"networking.k8s.io\"], resources: [servicecidrs], verbs: [list, watch]}");
    }
}

TEST_CASE("kube: an object that cannot be used costs the others nothing")
{
    Pair pair;
    Json bad = service("bad");
    bad["spec"]["ports"] = "many";
    pair.server.put("services", bad);
    pair.change_and_compare();
    pair.server.end_watches();
    pair.change_and_compare();
    CHECK(pair.watcher->refused() ==
          std::vector<std::string>{"Service default/bad: spec.ports: must be a list, is \"many\""});
}

TEST_CASE("kube: a server is believed only if it proves who it is")
{
    const Certificate certificate = Certificate::make("kubernetes");
    const Certificate wrong = Certificate::make("kubernetes");
    FakeApiServer server({.certificate = certificate, .client = {}});
    fill(server);
    const KubeFolder folder;
    folder.write("ca", wrong.text);
    Watcher watcher(folder.config(server.url(), "certificate-authority: ca"));
    watcher.wait_for_refusal("SSL certificate problem");
    CHECK(watcher.refused().size() == 1);
    folder.write("ca", certificate.text);
    watcher.wait_for(server);
}

TEST_CASE("kube: a connection that breaks is told of in plain words")
{
    FakeApiServer server({.certificate = Certificate::make("kubernetes"), .client = {}});
    fill(server);
    const KubeFolder folder;
    Watcher watcher(folder.config(server.url(), "insecure-skip-tls-verify: true"));
    watcher.wait_for(server);
    server.close();
    server.reset_connections();
    watcher.wait_for_refusal(server.url() + ": the connection broke");
    server.open();
    watcher.wait_for(server);
    CHECK(watcher.count("SSL") == 0);
}

TEST_CASE("kube: a server may be known by another name, or need not prove anything if that is asked for")
{
    const Certificate certificate = Certificate::make("kubernetes");
    FakeApiServer server({.certificate = certificate, .client = {}});
    fill(server);
    const KubeFolder folder;
    folder.write("ca", certificate.text);
    const std::string port = server.url().substr(server.url().rfind(':'));
    const char *how =
        GENERATE("certificate-authority: ca, tls-server-name: kubernetes", "insecure-skip-tls-verify: true");
    Watcher watcher(folder.config("https://localhost" + port, how));
    watcher.wait_for(server);
}

TEST_CASE("kube: another client certificate is used on new connections as soon as it is there")
{
    const Certificate own = Certificate::make("kubernetes");
    const Certificate client = Certificate::make("client");
    FakeApiServer server({.certificate = own, .client = client});
    fill(server);
    const KubeFolder folder;
    const Certificate other = Certificate::make("client");
    folder.write("ca", own.text);
    folder.write("cert", other.text);
    folder.write("key", other.key);
    Watcher watcher(
        folder.config(server.url(), "certificate-authority: ca", "{client-certificate: cert, client-key: key}"));
    watcher.wait_for_refusal("alert"); // which says why
    folder.write("key", client.key);
    folder.write("cert", client.text);
    watcher.wait_for(server);
}

TEST_CASE("kube: requests go by the proxy that the kubeconfig names")
{
    FakeApiServer proxy; // which is asked as if it were the server
    fill(proxy);
    const KubeFolder folder;
    Watcher watcher(folder.config("http://10.255.255.1:6443", fmt::format("proxy-url: \"{}\"", proxy.url())));
    watcher.wait_for(proxy);
}

TEST_CASE("kube: random changes under random faults end in what the server has")
{
    const char *longer = std::getenv("THRUWAY_SOAK_SECONDS"); // NOLINT(concurrency-mt-unsafe)
    const auto duration = longer != nullptr ? std::chrono::seconds(std::atoi(longer)) : 2s;
    const unsigned seed = std::random_device{}();
    INFO("seed " << seed);
    std::mt19937 random(seed);
    const auto below = [&](unsigned n) { return std::uniform_int_distribution<unsigned>(0, n - 1)(random); };

    Pair pair;
    const std::vector<std::function<void()>> faults{
        [&] { pair.server.cut_after("services", below(3000)); },
        [&] { pair.server.cut_after("endpointslices", below(20'000)); },
        [&] { pair.server.compact(); },
        [&] { pair.server.end_watches(); },
        [&] { pair.server.reset_connections(); },
        [&] { pair.server.stutter(below(2) == 0); },
        [&] { pair.server.serve_watch_list(below(2) == 0); },
        [&] { pair.server.next("services", [](Connection &c, const FakeRequest &) { answer_status(c, 500, "no"); }); },
        [&] { pair.server.next("nodes", [](Connection &c, const FakeRequest &) { answer_status(c, 410, "old"); }); },
        [&] {
            pair.server.close();
            std::this_thread::sleep_for(20ms);
            pair.server.open();
        },
    };
    const auto resident = [] {
        std::ifstream statm("/proc/self/statm");
        size_t total = 0;
        size_t pages = 0;
        statm >> total >> pages;
        return pages * 4 / 1024;
    };
    size_t early = 0;
    const auto start = std::chrono::steady_clock::now();
    while (std::chrono::steady_clock::now() - start < duration) {
        const std::string name = fmt::format("x{}", below(50));
        switch (below(4)) {
        case 0:
            pair.server.remove("services", "default", name);
            break;
        case 1:
            pair.server.put("endpointslices", slice(name, static_cast<int>(below(100))));
            break;
        case 2:
            pair.server.remove("endpointslices", "default", name);
            break;
        default:
            pair.server.put("services", service(name, 1 + static_cast<int>(below(1000))));
            break;
        }
        if (below(50) == 0)
            faults.at(below(static_cast<unsigned>(faults.size())))();
        if (early == 0 && std::chrono::steady_clock::now() - start > duration / 4)
            early = resident();
        std::this_thread::sleep_for(1ms);
    }
    pair.server.stutter(false);
    pair.watcher->wait_for(pair.server);
    if (longer != nullptr)
        CHECK(resident() < early + early / 4 + 8);
}
