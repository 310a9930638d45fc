// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "tests/kube/connection.h"

#include <atomic>
#include <chrono>
#include <condition_variable>
#include <deque>
#include <functional>
#include <list>
#include <map>
#include <mutex>
#include <nlohmann/json.hpp>
#include <set>
#include <string>
#include <thread>
#include <vector>

namespace thruway::testing {

/// An API server with just enough of lists and watches, which does on demand what a real one does only now and then.
/// Resources are called by their plural: "services". HTTP/1.1, with or without TLS.
class FakeApiServer {
public:
    using Json = nlohmann::json;

    /// Takes a request over: it is answered, or not, by this alone. Runs in the connection's thread.
    using Script = std::function<void(Connection &connection, const FakeRequest &request)>;

    struct Options {
        std::optional<Certificate> certificate; ///< none: plain HTTP
        std::optional<Certificate> client;      ///< that clients must have
    };

    explicit FakeApiServer(Options options = {});
    FakeApiServer(const FakeApiServer &) = delete;
    FakeApiServer &operator=(const FakeApiServer &) = delete;
    ~FakeApiServer();

    [[nodiscard]] std::string url() const;

    // The truth.
    void put(const std::string &resource, Json object);
    void remove(const std::string &resource, const std::string &space, const std::string &name);
    /// All objects as they are, each as it would be sent, with its kind.
    [[nodiscard]] std::vector<std::string> truth() const;

    // What it does wrong, or differently.
    /// The next requests for a resource ("" for any other path) are answered by the scripts, one each.
    void next(const std::string &resource, Script script);
    /// Streams of a resource end within an object, after so many more bytes; once.
    void cut_after(const std::string &resource, size_t bytes);
    /// Every event comes twice, and changes of what nobody has heard of come in between.
    void stutter(bool on) { stutter_ = on; }
    /// Bytes come one by one.
    void dribble(bool on) { dribble_ = on; }
    /// Connections stay, and nothing is said on them any more.
    void freeze(bool on);
    void serve_watch_list(bool on) { watch_list_ = on; }
    void want_token(const std::string &token);
    void forbid(const std::string &resource, bool on);
    void send_bookmarks(bool on) { bookmarks_ = on; }
    /// Forgets the past: who asks for it gets 410.
    void compact();
    /// Takes all watches to their end, in order.
    void end_watches();
    /// Ends all connections, as a crash does.
    void reset_connections();
    /// Stops to listen, and begins again at the same port.
    void close();
    void open();

    [[nodiscard]] std::vector<FakeRequest> requests() const;
    [[nodiscard]] unsigned connections() const { return accepted_; }

private:
    struct Event {
        uint64_t version = 0;
        std::string resource;
        std::string type;
        std::string object;
    };
    /// A client and the thread that serves it.
    struct Client {
        Connection connection;
        std::atomic<bool> done = false;
        std::jthread thread;

        explicit Client(Fd socket) : connection(std::move(socket)) {}
    };

    void accept_clients(int listener);
    void serve(Connection &connection);
    bool serve_scripted(Connection &connection, const std::string &resource, const FakeRequest &request);
    void serve_resource(Connection &connection, const std::string &resource, const FakeRequest &request);
    void list(Connection &connection, const std::string &resource, const FakeRequest &request);
    void watch(Connection &connection, const std::string &resource, const FakeRequest &request);
    /// False if the stream has been cut.
    bool send_events(Connection &connection, const std::string &resource, const std::string &events);
    void record(const std::string &resource, const std::string &type, const Json &object);
    [[nodiscard]] std::string bookmark(const std::string &resource, uint64_t version, bool initial_end) const;
    void wait_while_frozen(Connection &connection);

    std::optional<TlsServer> tls_;
    uint16_t port_ = 0;
    Fd listener_;
    std::jthread accepting_;

    mutable std::mutex mutex_; // guards what follows
    std::condition_variable changed_;
    std::list<Client> clients_;
    std::map<std::string, std::map<std::string, Json>> objects_;
    std::deque<Event> events_;
    uint64_t version_ = 100;
    uint64_t compacted_ = 0;
    uint64_t watch_era_ = 0;
    std::map<std::string, std::deque<Script>> scripts_;
    std::map<std::string, size_t> cuts_;
    std::set<std::string> forbidden_;
    std::string token_;
    std::deque<FakeRequest> requests_;
    bool frozen_ = false;
    bool ending_ = false;

    std::atomic<bool> stutter_ = false;
    std::atomic<bool> dribble_ = false;
    std::atomic<bool> watch_list_ = true;
    std::atomic<bool> bookmarks_ = true;
    std::atomic<unsigned> accepted_ = 0;
};

} // namespace thruway::testing
