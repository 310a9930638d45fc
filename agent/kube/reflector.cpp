// SPDX-License-Identifier: Apache-2.0
#include "agent/kube/reflector.h"

#include "agent/kube/json.h"

#include <algorithm>
#include <fmt/format.h>
#include <utility>

namespace thruway {
namespace {

/// The items of a page, where pages are needed (client-go's default).
constexpr unsigned page_items = 500;

/// A server that does not know what "sendInitialEvents" means never comes to the end of the initial events.
constexpr unsigned patience = 2;

/// A server that wants to be left alone for longer than this is asked nevertheless.
constexpr int64_t longest_wait = 600;

using Next = Reflector::Next;

Next retry(std::string trouble)
{
    return {.when = Next::When::backoff, .trouble = std::move(trouble)};
}

} // namespace

std::string Reflector::ask(unsigned watch_seconds)
{
    heard_ = false;
    wrong_.clear();
    status_ = {};
    if (!version_.empty())
        phase_ = Phase::watch;
    else
        phase_ = can_catch_up_ && cut_short_ < patience ? Phase::catch_up : Phase::list;
    splitter_ = Splitter(phase_ == Phase::list ? Splitter::Shape::list : Splitter::Shape::stream);
    protobuf_.reset();
    begun_ = false;
    if (phase_ != Phase::watch && page_.empty())
        known_.begin_list();

    const std::string watch = fmt::format("?watch=1&allowWatchBookmarks=true&timeoutSeconds={}", watch_seconds);
    std::string query;
    if (phase_ == Phase::watch)
        query = fmt::format("{}&resourceVersion={}", watch, version_);
    else if (phase_ == Phase::catch_up)
        query = watch + "&sendInitialEvents=true&resourceVersionMatch=NotOlderThan&resourceVersion=";
    else if (!list_version_.empty()) // from the server's cache, which knows no pages
        query = fmt::format("?resourceVersion={}", list_version_);
    else
        query = fmt::format("?limit={}", page_items) + (page_.empty() ? "" : "&continue=" + page_);
    return fmt::format("{}{}{}", resource_.path, query, resource_.selectors);
}

Result<> Reflector::feed(std::string_view bytes, Learned &learned)
{
    if (!bytes.empty() && !std::exchange(begun_, true) && phase_ != Phase::list && is_protobuf(bytes))
        protobuf_.emplace(resource_.kind);
    const auto take_one = [&](std::string &json) { return take(json, learned); };
    auto fed = protobuf_ ? protobuf_->feed(bytes, take_one) : splitter_.feed(bytes, take_one);
    if (!fed)
        wrong_ = fed.error().text();
    return fed;
}

Result<> Reflector::take(std::string &json, Learned &learned)
{
    if (phase_ == Phase::list) {
        auto decoded = decoder_.decode_item(resource_.kind, json);
        if (!decoded)
            return std::unexpected(decoded.error());
        known_.upsert(std::move(*decoded), learned);
        return {};
    }
    auto event = decoder_.decode_event(resource_.kind, json);
    if (!event)
        return std::unexpected(event.error());
    return take_event(std::move(*event), learned);
}

Result<> Reflector::take_event(WatchEvent event, Learned &learned)
{
    heard_ = true;
    switch (event.type) {
    case WatchEvent::Type::upsert:
        known_.upsert(std::move(event.decoded), learned);
        break;
    case WatchEvent::Type::remove:
        if (event.decoded.key)
            known_.remove(*event.decoded.key, learned);
        break;
    case WatchEvent::Type::bookmark:
        if (phase_ == Phase::catch_up && event.initial_end) {
            finish_list(event.version, learned);
            phase_ = Phase::watch;
        }
        break;
    case WatchEvent::Type::error:
        status_ = std::move(event.status);
        return fail("the server ends the watch: {}", status_.message);
    }
    // What is told first comes in no particular order.
    if (phase_ == Phase::watch && !event.version.empty())
        version_ = event.version;
    return {};
}

void Reflector::finish_list(const std::string &version, Learned &learned)
{
    known_.end_list(resource_.kind, learned);
    version_ = version;
    list_version_ = version;
    cut_short_ = 0;
    started_over_ = false;
    synced_ = true;
}

Reflector::Next Reflector::finish(const HttpEnd &end, bool brief, Learned &learned)
{
    if (end.renewed) {
        page_.clear();
        return {};
    }
    if (status_.code != 0)
        return finish_failure(status_, end);
    if (end.status == 200)
        return finish_success(end, brief, learned);
    page_.clear();
    if (end.status == 0)
        return retry(end.error);
    const std::string said = is_protobuf(end.body) ? status_from_protobuf(end.body) : end.body;
    return finish_failure(decoder_.decode_status(said), end);
}

Reflector::Next Reflector::finish_success(const HttpEnd &end, bool brief, Learned &learned)
{
    const bool broken = !wrong_.empty() || !end.error.empty();
    if (phase_ == Phase::list && !broken && is_whole())
        return finish_page(learned);
    page_.clear();
    if (phase_ == Phase::catch_up)
        cut_short_++;
    if (!wrong_.empty()) {
        Next next = retry(named(wrong_));
        next.other_server = !heard_ && phase_ != Phase::watch;
        return next;
    }
    if (!end.error.empty())
        return retry(end.error);
    if (phase_ != Phase::watch || !is_whole())
        return retry(named("the answer ends before it is whole"));
    if (brief && !heard_)
        return retry(named("the server closes the watch at once"));
    return {};
}

Reflector::Next Reflector::finish_page(Learned &learned)
{
    std::string frame = splitter_.take_frame();
    const auto head = decoder_.decode_list_head(frame);
    page_.clear();
    if (!head) {
        Next next = retry(named(head.error().text()));
        next.other_server = true;
        return next;
    }
    if (head->next.empty())
        finish_list(head->version, learned);
    else
        page_ = head->next;
    return {};
}

Reflector::Next Reflector::finish_failure(const ApiStatus &status, const HttpEnd &end)
{
    page_.clear();
    const int64_t code = status.code != 0 ? status.code : end.status;
    const std::string said =
        !status.message.empty() ? status.message : fmt::format("status {}: {}", code, thruway::quoted(end.body));
    if (code == 410 || status.too_new)
        return start_over(said);
    if (code == 401) {
        Next next = retry(fmt::format("the API server does not accept the credentials (401): {}", said));
        next.renew_access = true;
        return next;
    }
    if (resource_.young && (code == 403 || code == 404))
        synced_ = true; // whoever waits for all there is waits for nothing here
    if (resource_.young && code == 404)
        return {.when = Next::When::later, .wait = std::chrono::seconds(longest_wait)};
    if (code == 403)
        return retry(forbidden(said));
    if (code == 429 || code >= 500) {
        Next next = retry(named(said));
        next.other_server = status.code == 0;
        const int64_t wait = std::min(std::max(end.retry_after, status.retry_after), longest_wait);
        if (wait > 0) {
            next.when = Next::When::later;
            next.wait = std::chrono::seconds(wait);
        }
        return next;
    }
    if (phase_ == Phase::catch_up && status.code != 0) {
        can_catch_up_ = false; // not served here: the watch list came with Kubernetes 1.27 and can be switched off
        return {};
    }
    version_.clear(); // whatever it is that the server does not like about it
    Next next = retry(named(said));
    next.other_server = status.code == 0;
    return next;
}

/// What is known is too old to go on from, or newer than what the server has (it lags, or has been restored from a
/// backup): only a list that is not from a cache tells the truth.
Reflector::Next Reflector::start_over(const std::string &why)
{
    version_.clear();
    list_version_.clear();
    if (std::exchange(started_over_, true))
        return retry(named(why));
    return {};
}

std::string Reflector::named(const std::string &what) const
{
    return fmt::format("{}: {}", resource_.plural, what);
}

std::string Reflector::forbidden(const std::string &message) const
{
    return fmt::format(
        "{}; the agent's ClusterRole needs the rule {{apiGroups: [\"{}\"], resources: [{}], verbs: [list, "
        "watch]}}",
        message, resource_.group, resource_.plural);
}

} // namespace thruway
