// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "agent/base/loop.h"
#include "agent/kube/backoff.h"
#include "agent/kube/client.h"
#include "agent/kube/credentials.h"
#include "agent/kube/reflector.h"
#include "agent/state/source.h"

#include <chrono>
#include <deque>
#include <map>
#include <memory>
#include <random>
#include <string>
#include <vector>

namespace thruway {

/// How long things may take. Tests have less patience.
struct KubeTiming {
    using Duration = std::chrono::milliseconds;

    Duration connect = std::chrono::seconds(10); ///< TCP and TLS
    Duration head = std::chrono::seconds(30);    ///< until an answer begins
    Duration piece = std::chrono::seconds(30);   ///< between two pieces of a list
    /// Bookmarks come every 60 to 75 s (apiserver storage/cacher, defaultBookmarkFrequency with its jitter): a watch
    /// that has missed two is dead.
    Duration silence = std::chrono::seconds(150);
    Duration ping_every = std::chrono::seconds(30);
    Duration ping = std::chrono::seconds(15);
    Duration backoff = std::chrono::milliseconds(800);
    Duration longest_backoff = std::chrono::seconds(30);
    Duration brief = std::chrono::seconds(1); ///< a watch that ends sooner was none
};

/// Services, EndpointSlices and Nodes as an API server tells of them. What cannot be had, for whatever reason and for
/// however long, takes nothing back: what was told last stays.
class KubeSource : public Source {
public:
    /// `loop` must outlive this.
    KubeSource(Loop &loop, std::string node, KubeOptions options, SourceEvents events, KubeTiming timing = {});
    ~KubeSource() override;

    /// Fails on a kubeconfig that cannot be used.
    Result<> start() override;

    /// Of many Events that cannot be posted only the first are kept.
    void post(const Event &event) override;

    [[nodiscard]] std::vector<WatchStatus> watches() const override;

private:
    using Time = Loop::Clock::time_point;

    struct Watch {
        Reflector reflector;
        Backoff backoff;
        Loop::Timer timer = 0; ///< of the next try, or until an answer counts as one
        bool asking = false;
        Time asked;
        std::string version;
        Time version_time;
        Time event_time;
        std::string last_error;
        Time error_time;
        uint64_t bytes = 0;
        uint64_t asks = 0;

        Watch(const Resource &resource, Backoff wait) : reflector(resource), backoff(wait) {}
    };

    void renew(bool refused);
    void on_access(Result<Access> access);
    void ask(Watch &watch);
    Result<> on_body(Watch &watch, std::string_view bytes);
    void on_end(Watch &watch, const HttpEnd &end);
    void tell(Watch &watch, Learned learned);
    void check_synced();
    void complain(const std::string &about, const std::string &line);
    void all_well(const std::string &about);
    void tick();
    void ping();
    void post_events();
    [[nodiscard]] WatchStatus status_of(const Watch &watch) const;
    [[nodiscard]] std::string name_of(const Watch &watch) const
    {
        return std::string(watch.reflector.resource().plural);
    }

    Loop &loop_;
    std::string node_;
    SourceEvents events_;
    KubeTiming timing_;
    KubeOptions options_;
    Credentials credentials_;
    Backoff access_backoff_;
    ApiClient client_;
    Access access_;
    std::vector<std::unique_ptr<Watch>> watches_;
    std::map<std::string, std::string> troubles_; ///< by what they are about; each is told once
    std::minstd_rand random_{std::random_device{}()};
    Loop::Timer tick_timer_ = 0;
    Loop::Timer event_timer_ = 0;
    std::deque<ApiRequest> unposted_; ///< Events
    bool posting_ = false;
    bool renewing_ = false;
    bool pinging_ = false;
    bool started_ = false;
    bool synced_ = false;
};

} // namespace thruway
