// SPDX-License-Identifier: Apache-2.0
#include "tests/kube/fake_api_server.h"

#include <algorithm>
#include <arpa/inet.h>
#include <charconv>
#include <csignal>
#include <fmt/format.h>
#include <netinet/tcp.h>
#include <stdexcept>
#include <sys/socket.h>

namespace thruway::testing {
namespace {

using namespace std::chrono_literals;
using Json = nlohmann::json;

/// A real server's come every minute.
constexpr auto bookmark_every = 20ms;

/// How many requests and events are kept, so that memory is flat over hours.
constexpr size_t remembered = 5000;

struct Type {
    std::string kind;
    std::string version;
};

const std::map<std::string, Type> types{{"services", {"Service", "v1"}},
                                        {"endpointslices", {"EndpointSlice", "discovery.k8s.io/v1"}},
                                        {"nodes", {"Node", "v1"}},
                                        {"servicecidrs", {"ServiceCIDR", "networking.k8s.io/v1"}}};

std::string key_of(const Json &object)
{
    const Json &metadata = object.at("metadata");
    return metadata.value("namespace", "") + "/" + metadata.at("name").get<std::string>();
}

std::string event_text(const std::string &type, const std::string &object)
{
    return fmt::format("{{\"type\":\"{}\",\"object\":{}}}\n", type, object);
}

Json status_json(int code, const std::string &reason, const std::string &message)
{
    return {{"kind", "Status"},   {"apiVersion", "v1"}, {"status", "Failure"},
            {"message", message}, {"reason", reason},   {"code", code}};
}

uint64_t number(const std::map<std::string, std::string> &query, const std::string &key)
{
    uint64_t value = 0;
    if (const auto found = query.find(key); found != query.end())
        std::from_chars(found->second.data(), found->second.data() + found->second.size(), value);
    return value;
}

/// "/api/v1/services" -> "services"; empty for what is no resource.
std::string resource_of(const std::string &path)
{
    const std::string last = path.substr(path.rfind('/') + 1);
    return types.contains(last) ? last : "";
}

Fd listen_on(uint16_t &port)
{
    Fd listener(::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0));
    const int yes = 1;
    setsockopt(listener.get(), SOL_SOCKET, SO_REUSEADDR, &yes, sizeof(yes));
    sockaddr_in address{.sin_family = AF_INET, .sin_port = htons(port), .sin_addr = {htonl(INADDR_LOOPBACK)}};
    socklen_t size = sizeof(address);
    auto *generic = reinterpret_cast<sockaddr *>(&address);
    if (::bind(listener.get(), generic, size) != 0 || ::listen(listener.get(), 64) != 0 ||
        ::getsockname(listener.get(), generic, &size) != 0)
        throw std::runtime_error("the fake API server cannot listen");
    port = ntohs(address.sin_port);
    return listener;
}

} // namespace

FakeApiServer::FakeApiServer(Options options)
{
    ::signal(SIGPIPE, SIG_IGN); // the TLS library writes to whoever has gone
    if (options.certificate)
        tls_.emplace(*options.certificate, options.client);
    open();
}

FakeApiServer::~FakeApiServer()
{
    {
        const std::lock_guard guard(mutex_);
        ending_ = true;
    }
    changed_.notify_all();
    close();
    reset_connections();
    clients_.clear(); // joins
}

std::string FakeApiServer::url() const
{
    return fmt::format("{}://127.0.0.1:{}", tls_ ? "https" : "http", port_);
}

void FakeApiServer::open()
{
    listener_ = listen_on(port_);
    accepting_ = std::jthread([this, listener = listener_.get()] { accept_clients(listener); });
}

void FakeApiServer::close()
{
    ::shutdown(listener_.get(), SHUT_RDWR);
    if (accepting_.joinable())
        accepting_.join();
    listener_.reset();
}

void FakeApiServer::accept_clients(int listener)
{
    for (;;) {
        Fd socket(::accept4(listener, nullptr, nullptr, SOCK_CLOEXEC));
        if (!socket)
            return;
        const int yes = 1;
        setsockopt(socket.get(), IPPROTO_TCP, TCP_NODELAY, &yes, sizeof(yes));
        accepted_++;
        const std::lock_guard guard(mutex_);
        std::erase_if(clients_, [](const Client &client) { return client.done.load(); });
        Client &client = clients_.emplace_back(std::move(socket));
        client.thread = std::jthread([this, &client] {
            serve(client.connection);
            client.connection.hang_up();
            client.done = true;
        });
    }
}

void FakeApiServer::put(const std::string &resource, Json object)
{
    const std::string key = key_of(object);
    const std::lock_guard guard(mutex_);
    auto &objects = objects_[resource];
    const std::string type = objects.contains(key) ? "MODIFIED" : "ADDED";
    object["kind"] = types.at(resource).kind;
    object["apiVersion"] = types.at(resource).version;
    object["metadata"]["resourceVersion"] = std::to_string(version_ + 1);
    objects[key] = object;
    record(resource, type, object);
}

void FakeApiServer::remove(const std::string &resource, const std::string &space, const std::string &name)
{
    const std::lock_guard guard(mutex_);
    auto node = objects_[resource].extract(space + "/" + name);
    if (!node)
        return;
    node.mapped()["metadata"]["resourceVersion"] = std::to_string(version_ + 1);
    record(resource, "DELETED", node.mapped());
}

void FakeApiServer::record(const std::string &resource, const std::string &type, const Json &object)
{
    events_.push_back({++version_, resource, type, object.dump()});
    if (events_.size() > remembered) {
        compacted_ = events_.front().version;
        events_.pop_front();
    }
    changed_.notify_all();
}

std::vector<std::string> FakeApiServer::truth() const
{
    const std::lock_guard guard(mutex_);
    std::vector<std::string> all;
    for (const auto &[resource, objects] : objects_)
        for (const auto &[key, object] : objects)
            all.push_back(object.dump());
    return all;
}

void FakeApiServer::next(const std::string &resource, Script script)
{
    const std::lock_guard guard(mutex_);
    scripts_[resource].push_back(std::move(script));
}

void FakeApiServer::cut_after(const std::string &resource, size_t bytes)
{
    const std::lock_guard guard(mutex_);
    cuts_[resource] = bytes;
}

void FakeApiServer::freeze(bool on)
{
    const std::lock_guard guard(mutex_);
    frozen_ = on;
    changed_.notify_all();
}

void FakeApiServer::want_token(const std::string &token)
{
    const std::lock_guard guard(mutex_);
    token_ = token;
}

void FakeApiServer::forbid(const std::string &resource, bool on)
{
    const std::lock_guard guard(mutex_);
    if (on)
        forbidden_.insert(resource);
    else
        forbidden_.erase(resource);
}

void FakeApiServer::compact()
{
    const std::lock_guard guard(mutex_);
    compacted_ = ++version_;
    events_.clear();
}

void FakeApiServer::end_watches()
{
    const std::lock_guard guard(mutex_);
    watch_era_++;
    changed_.notify_all();
}

void FakeApiServer::reset_connections()
{
    const std::lock_guard guard(mutex_);
    for (Client &client : clients_)
        client.connection.reset();
}

std::vector<FakeRequest> FakeApiServer::requests() const
{
    const std::lock_guard guard(mutex_);
    return {requests_.begin(), requests_.end()};
}

void FakeApiServer::wait_while_frozen(Connection &connection)
{
    std::unique_lock lock(mutex_);
    while (frozen_ && !ending_ && connection.is_open())
        changed_.wait_for(lock, 10ms);
}

void FakeApiServer::serve(Connection &connection)
{
    if (tls_ && !connection.start_tls(*tls_))
        return;
    while (const auto request = connection.read_request()) {
        const std::string resource = resource_of(request->path);
        {
            const std::lock_guard guard(mutex_);
            requests_.push_back(*request);
            if (requests_.size() > remembered)
                requests_.pop_front();
        }
        wait_while_frozen(connection);
        if (!serve_scripted(connection, resource, *request))
            serve_resource(connection, resource, *request);
    }
}

bool FakeApiServer::serve_scripted(Connection &connection, const std::string &resource, const FakeRequest &request)
{
    Script script;
    {
        const std::lock_guard guard(mutex_);
        auto &waiting = scripts_[resource];
        if (waiting.empty())
            return false;
        script = std::move(waiting.front());
        waiting.pop_front();
    }
    script(connection, request);
    return true;
}

void FakeApiServer::serve_resource(Connection &connection, const std::string &resource, const FakeRequest &request)
{
    std::unique_lock lock(mutex_);
    const auto authorization = request.headers.find("authorization");
    const bool has_token = authorization != request.headers.end() && authorization->second == "Bearer " + token_;
    const bool forbidden = forbidden_.contains(resource);
    const uint64_t current = version_;
    const bool wants_token = !token_.empty();
    lock.unlock();
    const auto refuse = [&](int code, const std::string &reason, const std::string &message) {
        connection.answer(code, status_json(code, reason, message).dump());
    };
    if (wants_token && !has_token)
        return refuse(401, "Unauthorized", "Unauthorized");
    if (request.method == "POST")
        return connection.answer(201, request.body);
    if (resource.empty())
        return connection.answer(200, R"({"major":"1"})");
    const bool is_watch = request.query.contains("watch");
    if (forbidden)
        return refuse(403, "Forbidden",
                      fmt::format("{} is forbidden: User \"thruway\" cannot {} resource \"{}\"", resource,
                                  is_watch ? "watch" : "list", resource));
    if (number(request.query, "resourceVersion") > current)
        return refuse(
            504, "Timeout",
            fmt::format("Too large resource version: {}, current: {}", request.query.at("resourceVersion"), current));
    if (is_watch && request.query.contains("sendInitialEvents") && !watch_list_)
        return refuse(422, "Invalid", "sendInitialEvents is forbidden for watch unless the WatchList feature is on");
    if (is_watch)
        watch(connection, resource, request);
    else
        list(connection, resource, request);
}

void FakeApiServer::list(Connection &connection, const std::string &resource, const FakeRequest &request)
{
    Json body{{"kind", types.at(resource).kind + "List"}, {"apiVersion", types.at(resource).version}};
    {
        const std::lock_guard guard(mutex_);
        const size_t from = number(request.query, "continue");
        const size_t limit = request.query.contains("limit") ? number(request.query, "limit") : SIZE_MAX;
        Json items = Json::array();
        size_t index = 0;
        for (const auto &[key, object] : objects_[resource]) {
            if (index++ < from || items.size() >= limit)
                continue;
            items.push_back(object);
            items.back().erase("kind"); // as a real server leaves them out
            items.back().erase("apiVersion");
        }
        body["metadata"] = {{"resourceVersion", std::to_string(version_)}};
        if (from + items.size() < objects_[resource].size())
            body["metadata"]["continue"] = std::to_string(from + items.size());
        body["items"] = std::move(items);
    }
    connection.begin_stream();
    if (send_events(connection, resource, body.dump()))
        connection.end_stream();
}

std::string FakeApiServer::bookmark(const std::string &resource, uint64_t version, bool initial_end) const
{
    Json object{{"kind", types.at(resource).kind},
                {"apiVersion", types.at(resource).version},
                {"metadata", {{"resourceVersion", std::to_string(version)}}}};
    if (initial_end)
        object["metadata"]["annotations"] = {{"k8s.io/initial-events-end", "true"}};
    return event_text("BOOKMARK", object.dump());
}

void FakeApiServer::watch(Connection &connection, const std::string &resource, const FakeRequest &request)
{
    std::unique_lock lock(mutex_);
    const uint64_t era = watch_era_;
    uint64_t told = number(request.query, "resourceVersion");
    std::string text;
    if (request.query.contains("sendInitialEvents")) {
        for (const auto &[key, object] : objects_[resource])
            text += event_text("ADDED", object.dump());
        told = version_;
        text += bookmark(resource, told, true);
    }
    lock.unlock();
    connection.begin_stream();
    if (!send_events(connection, resource, text))
        return;

    for (;;) {
        lock.lock();
        changed_.wait_for(lock, bookmark_every,
                          [&] { return ending_ || watch_era_ != era || (!frozen_ && version_ > told); });
        const bool over = ending_ || watch_era_ != era;
        const bool expired = told < compacted_;
        text.clear();
        if (expired) {
            const std::string why = fmt::format("too old resource version: {} ({})", told, compacted_);
            text = event_text("ERROR", status_json(410, "Expired", why).dump());
        } else if (!frozen_) {
            for (const Event &event : events_)
                if (event.version > told && event.resource == resource)
                    text += event_text(event.type, event.object);
            told = version_;
            if (bookmarks_)
                text += bookmark(resource, told, false);
        }
        lock.unlock();
        if (!connection.is_open() || !send_events(connection, resource, text))
            return;
        if (over || expired)
            return connection.end_stream();
    }
}

bool FakeApiServer::send_events(Connection &connection, const std::string &resource, const std::string &events)
{
    std::string text = events;
    if (stutter_ && events.starts_with("{\"type\":")) {
        text.clear();
        size_t begin = 0;
        while (begin < events.size()) {
            const size_t end = events.find('\n', begin) + 1;
            const std::string event = events.substr(begin, end - begin);
            text += event;
            text += event;
            begin = end;
        }
        const Json ghost{{"metadata", {{"name", "ghost"}, {"namespace", "default"}}}};
        text += event_text("DELETED", ghost.dump());
    }
    size_t allowed = text.size();
    {
        const std::lock_guard guard(mutex_);
        if (const auto cut = cuts_.find(resource); cut != cuts_.end()) {
            allowed = std::min(cut->second, text.size());
            cut->second -= allowed;
            if (allowed < text.size())
                cuts_.erase(cut);
        }
    }
    for (size_t at = 0; at < allowed;) {
        const size_t size = std::min(dribble_ ? size_t{1} : size_t{16'384}, allowed - at);
        connection.send_chunk(std::string_view(text).substr(at, size));
        at += size;
    }
    if (allowed < text.size())
        connection.hang_up();
    return allowed == text.size();
}

} // namespace thruway::testing
