// SPDX-License-Identifier: Apache-2.0
#include "agent/kube/source.h"

#include "agent/kube/event.h"

#include <algorithm>
#include <spdlog/spdlog.h>
#include <utility>

namespace thruway {
namespace {

using namespace std::chrono_literals;

/// Watches are asked to end after 5 to 10 minutes, so that not all come back at once and none stays with one API server
/// for good (client-go's minWatchTimeout).
constexpr unsigned watch_seconds = 300;

/// Cheaper than anything that reads storage, and everybody may ask for it (ClusterRole system:public-info-viewer).
constexpr const char *ping_path = "/version";

/// Events are news: of very many, later ones say little that earlier ones have not.
constexpr size_t most_unposted = 64;

/// What is not about one resource.
constexpr const char *about_access = "credentials";
constexpr const char *about_events = "events";

bool differs_beyond_token(Access a, const Access &b)
{
    a.token = b.token;
    return a != b;
}

} // namespace

KubeSource::KubeSource(Loop &loop, std::string node, KubeOptions options, SourceEvents events, KubeTiming timing)
    : loop_(loop), node_(std::move(node)), events_(std::move(events)), timing_(timing), options_(std::move(options)),
      credentials_(loop, options_), access_backoff_(timing.backoff, timing.longest_backoff),
      client_(loop, timing.connect)
{
    for (const Resource &resource : resources)
        watches_.push_back(std::make_unique<Watch>(resource, access_backoff_));
}

KubeSource::~KubeSource()
{
    for (const auto &watch : watches_)
        loop_.cancel(watch->timer);
    loop_.cancel(tick_timer_);
    loop_.cancel(event_timer_);
}

Result<> KubeSource::start()
{
    if (auto access = read_access(options_); !access)
        return std::unexpected(access.error());
    if (options_.kubeconfig.empty() && options_.servers.empty())
        spdlog::warn(
            "api-server: none is named, so the API server is reached by a Service address, which this agent is to "
            "serve itself; name the API servers' own addresses");
    tick_timer_ = loop_.after(0ms, [this] { tick(); });
    return {};
}

/// Looks after the connection, and after the files that say how to make one.
void KubeSource::tick()
{
    renew(false);
    if (started_)
        ping();
    if (started_)
        post_events();
    const auto wait = started_ ? timing_.ping_every : access_backoff_.after_failure(Loop::Clock::now(), random_);
    tick_timer_ = loop_.after(wait, [this] { tick(); });
}

void KubeSource::renew(bool refused)
{
    if (std::exchange(renewing_, true))
        return;
    credentials_.get(refused, [this](Result<Access> access) {
        renewing_ = false;
        on_access(std::move(access));
    });
}

void KubeSource::on_access(Result<Access> access)
{
    if (!access)
        return complain(about_access, access.error().text());
    all_well(about_access);
    const bool other = started_ && differs_beyond_token(*access, access_);
    access_ = *access;
    client_.use(std::move(*access));
    if (other) {
        spdlog::info("certificates, or the way to the API server, have changed: asking anew");
        client_.start_over();
    }
    if (std::exchange(started_, true))
        return;
    for (const auto &watch : watches_)
        ask(*watch);
}

void KubeSource::ask(Watch &watch)
{
    watch.asking = true;
    watch.asked = Loop::Clock::now();
    watch.asks++;
    const unsigned seconds = watch_seconds + random_() % watch_seconds;
    ApiRequest request{.path = watch.reflector.ask(seconds), .head_limit = timing_.head};
    const bool list = watch.reflector.phase() == Reflector::Phase::list;
    request.quiet_limit = list ? timing_.piece : timing_.silence;
    request.protobuf = !list;
    client_.ask(
        std::move(request),
        {.begin = [this,
                   &watch] { watch.timer = loop_.after(timing_.brief, [this, &watch] { all_well(name_of(watch)); }); },
         .body = [this, &watch](std::string_view bytes) { return on_body(watch, bytes); },
         .end = [this, &watch](const HttpEnd &end) { on_end(watch, end); }});
}

Result<> KubeSource::on_body(Watch &watch, std::string_view bytes)
{
    watch.bytes += bytes.size();
    Learned learned;
    auto fed = watch.reflector.feed(bytes, learned);
    tell(watch, std::move(learned));
    return fed;
}

void KubeSource::on_end(Watch &watch, const HttpEnd &end)
{
    loop_.cancel(watch.timer);
    watch.asking = false;
    Learned learned;
    const auto now = Loop::Clock::now();
    const std::string server = client_.server();
    const Reflector::Next next = watch.reflector.finish(end, now - watch.asked < timing_.brief, learned);
    tell(watch, std::move(learned));
    if (next.trouble.empty()) {
        all_well(name_of(watch));
    } else {
        watch.last_error = next.trouble;
        watch.error_time = now;
        complain(name_of(watch), next.trouble);
    }
    if (next.renew_access)
        renew(true);
    if (next.other_server)
        client_.turn_from(server);

    Loop::Clock::duration wait = 0ms;
    if (next.when == Reflector::Next::When::backoff)
        wait = watch.backoff.after_failure(now, random_);
    else if (next.when == Reflector::Next::When::later)
        wait = next.wait;
    watch.timer = loop_.after(wait, [this, &watch] { ask(watch); });
}

void KubeSource::tell(Watch &watch, Learned learned)
{
    const auto now = Loop::Clock::now();
    if (watch.reflector.version() != watch.version) {
        watch.version = watch.reflector.version();
        watch.version_time = now;
    }
    for (const std::string &line : learned.refused)
        events_.refused(line);
    if (!learned.changes.empty()) {
        watch.event_time = now;
        events_.changes(std::move(learned.changes));
    }
    check_synced();
}

void KubeSource::check_synced()
{
    if (synced_ || !std::ranges::all_of(watches_, [](const auto &watch) { return watch->reflector.synced(); }))
        return;
    synced_ = true;
    events_.synced();
    post({.regarding = {Kind::node, {Symbol(), node_}},
          .reason = "Starting",
          .action = "StartThruway",
          .note = "Thruway " THRUWAY_VERSION " follows the cluster on this node."});
}

void KubeSource::post(const Event &event)
{
    if (unposted_.size() >= most_unposted)
        return;
    const auto now = std::chrono::system_clock::now().time_since_epoch() / 1us;
    unposted_.push_back({.path = event_path(event),
                         .body = event_body(event, node_, now),
                         .head_limit = timing_.head,
                         .quiet_limit = timing_.piece});
    loop_.cancel(event_timer_);
    event_timer_ = loop_.after(0ms, [this] { post_events(); }); // not within an answer
}

/// Of several watches with the same trouble one is enough to hear of.
void KubeSource::complain(const std::string &about, const std::string &line)
{
    const bool known = std::ranges::any_of(troubles_, [&](const auto &trouble) { return trouble.second == line; });
    troubles_[about] = line;
    if (!known)
        events_.refused(line);
}

void KubeSource::all_well(const std::string &about)
{
    if (troubles_.erase(about) > 0)
        spdlog::info("{}: all is well again", about);
}

/// A connection that looks alive may lead nowhere: a load balancer has lost its other half, or a firewall its memory.
void KubeSource::ping()
{
    if (std::exchange(pinging_, true))
        return;
    const std::string server = client_.server();
    client_.ask({.path = ping_path, .head_limit = timing_.ping, .quiet_limit = timing_.ping},
                {.body = [](std::string_view) -> Result<> { return {}; },
                 .end =
                     [this, server](const HttpEnd &end) {
                         pinging_ = false;
                         if (end.status == 0 && !end.renewed)
                             client_.hang_up(server, end.error);
                         else if (end.status == 401)
                             renew(true);
                     }});
}

/// One after the other. Tried again with the next tick, unless the server has said something that will stay.
void KubeSource::post_events()
{
    if (unposted_.empty() || std::exchange(posting_, true))
        return;
    client_.ask(unposted_.front(), {.end = [this](const HttpEnd &end) {
                    posting_ = false;
                    if (end.status == 0 || end.status == 401 || end.status == 429 || end.status >= 500)
                        return;
                    unposted_.pop_front();
                    event_timer_ = loop_.after(0ms, [this] { post_events(); });
                    if (end.status == 403)
                        complain(about_events, "events may not be created: the agent's ClusterRole needs the rule "
                                               "{apiGroups: [events.k8s.io], resources: [events], verbs: [create]}");
                }});
}

std::vector<WatchStatus> KubeSource::watches() const
{
    std::vector<WatchStatus> all;
    for (const auto &watch : watches_)
        all.push_back(status_of(*watch));
    return all;
}

WatchStatus KubeSource::status_of(const Watch &watch) const
{
    const auto age = [now = Loop::Clock::now()](Time time) -> std::optional<double> {
        if (time == Time())
            return std::nullopt;
        return std::chrono::duration<double>(now - time).count();
    };
    WatchStatus status{.resource = name_of(watch), .version = watch.version, .last_error = watch.last_error};
    if (!watch.asking)
        status.state = "waiting";
    else
        status.state = watch.reflector.phase() == Reflector::Phase::watch ? "watching" : "listing";
    if (started_)
        status.server = client_.server();
    for (const std::string &about : {status.resource, std::string(about_access)})
        if (const auto trouble = troubles_.find(about); trouble != troubles_.end() && status.trouble.empty())
            status.trouble = trouble->second;
    status.last_error_age = age(watch.error_time);
    status.version_age = age(watch.version_time);
    status.event_age = age(watch.event_time);
    status.objects = watch.reflector.size();
    status.bytes = watch.bytes;
    status.reconnects = watch.asks > 0 ? watch.asks - 1 : 0;
    return status;
}

} // namespace thruway
