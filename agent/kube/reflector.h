// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "agent/base/error.h"
#include "agent/kube/decode.h"
#include "agent/kube/known.h"
#include "agent/kube/protobuf.h"
#include "agent/kube/resource.h"
#include "agent/kube/splitter.h"

#include <chrono>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

namespace thruway {

/// How an answer of the API server ended.
struct HttpEnd {
    int status = 0;          ///< 0: there was none
    std::string error;       ///< what broke the answer off; empty: it came to its end
    std::string body;        ///< of an answer that is no success, its begin
    int64_t retry_after = 0; ///< seconds; 0: not said
    bool renewed = false;    ///< we have ended it, to ask again in another way
};

/// Follows the objects of one kind: says what to ask the API server, takes its answers in, and says what to do when one
/// ends. Knows no network and no clock.
///
/// It asks for a watch that begins with all objects (WatchList), and where that is not served for a list and then a
/// watch (reference: client-go tools/cache/reflector.go).
class Reflector {
public:
    enum class Phase : uint8_t {
        list,     ///< a list, maybe in pages
        catch_up, ///< a watch that tells first what there is
        watch,
    };

    /// What to do after an answer has ended.
    struct Next {
        enum class When : uint8_t {
            now,
            backoff, ///< after a while that grows with each failure
            later,   ///< after `wait`, as the server wants it
        };
        When when = When::now;
        std::chrono::seconds wait{0};
        std::string trouble;       ///< for people; empty: all is well
        bool renew_access = false; ///< the credentials are no longer good
        bool other_server = false; ///< something else than an API server has answered
    };

    explicit Reflector(const Resource &resource) : resource_(resource) {}

    /// The path and query of the next request. A watch is asked to end after `watch_seconds`.
    std::string ask(unsigned watch_seconds);

    /// Takes in a piece of the body of a success. Fails if the rest of it is of no use: finish() then knows why.
    Result<> feed(std::string_view bytes, Learned &learned);

    /// The answer to ask() has ended. `brief` says that it took less than a second.
    Next finish(const HttpEnd &end, bool brief, Learned &learned);

    [[nodiscard]] const Resource &resource() const { return resource_; }
    [[nodiscard]] Phase phase() const { return phase_; }
    /// Everything that exists has been told once.
    [[nodiscard]] bool synced() const { return synced_; }
    [[nodiscard]] const std::string &version() const { return version_; }
    [[nodiscard]] size_t size() const { return known_.size(); }

private:
    Result<> take(std::string &json, Learned &learned);
    Result<> take_event(WatchEvent event, Learned &learned);
    void finish_list(const std::string &version, Learned &learned);
    Next finish_success(const HttpEnd &end, bool brief, Learned &learned);
    Next finish_page(Learned &learned);
    Next finish_failure(const ApiStatus &status, const HttpEnd &end);
    Next start_over(const std::string &why);
    [[nodiscard]] bool is_whole() const { return protobuf_ ? protobuf_->is_complete() : splitter_.is_complete(); }
    [[nodiscard]] std::string named(const std::string &what) const;
    [[nodiscard]] std::string forbidden(const std::string &message) const;

    Resource resource_;
    Phase phase_ = Phase::catch_up;
    Known known_;
    Decoder decoder_;
    Splitter splitter_{Splitter::Shape::stream};
    std::optional<ProtobufStream> protobuf_; ///< of this answer, if it is one
    bool begun_ = false;                     ///< this answer
    std::string version_;                    ///< up to where everything is known; empty: it has to be listed
    std::string list_version_ = "0";         ///< a list may be as old as that; empty: it must not be old at all
    std::string page_;                       ///< token of the next page of a list
    bool can_catch_up_ = true;
    unsigned cut_short_ = 0;    ///< how many times in a row a watch has not come to the end of what there is
    bool started_over_ = false; ///< and nothing has come of it yet
    bool synced_ = false;
    bool heard_ = false; ///< in this answer
    std::string wrong_;  ///< what is wrong with this answer
    ApiStatus status_;   ///< of an event that says why the watch cannot go on
};

} // namespace thruway
