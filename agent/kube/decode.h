// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "agent/base/error.h"
#include "agent/state/objects.h"

#include <memory>
#include <optional>
#include <string>
#include <vector>

namespace thruway {

/// What became of one object of a JSON text.
struct Decoded {
    /// None if the object has no name, or is of a kind that is not used.
    std::optional<ObjectKey> key;

    /// None if the object was refused (then `faults` says why), or if it is not wanted: a watcher has to take such a
    /// one for deleted.
    std::optional<Object> object;

    /// What was refused, the object or parts of it: "Service default/web: spec.ports[1].port: must be 1 to 65535, is
    /// 0".
    std::vector<std::string> faults;
};

/// What the API server says when it does not do what it was asked (meta/v1 Status).
struct ApiStatus {
    int64_t code = 0;   ///< as the HTTP status; 0: the text was no Status
    std::string reason; ///< one word: "Expired", "Forbidden"
    std::string message;
    int64_t retry_after = 0; ///< seconds
    bool too_new = false;    ///< the resource version that was asked for is not there yet
};

/// One event of a watch (meta/v1 WatchEvent).
struct WatchEvent {
    enum class Type : uint8_t { upsert, remove, bookmark, error };

    Type type = Type::error;
    std::string version;      ///< resourceVersion: everything up to there has been told
    bool initial_end = false; ///< of a bookmark: all that there was has been told
    Decoded decoded;          ///< of upsert and remove
    ApiStatus status;         ///< of error
};

/// What a list says of itself (meta/v1 ListMeta).
struct ListHead {
    std::string version;
    std::string next; ///< token for the next page; empty if there is none
};

/// Reads Kubernetes objects from JSON: Service, Node, Pod, Namespace (v1), EndpointSlice (discovery.k8s.io/v1),
/// ServiceCIDR (networking.k8s.io/v1), and lists of them. Keeps the memory that reading takes, so one decoder should
/// read many texts.
class Decoder {
public:
    Decoder();
    Decoder(const Decoder &) = delete;
    Decoder &operator=(const Decoder &) = delete;
    ~Decoder();

    /// All objects of `json`, which holds any number of documents, one behind the other. Fails if the text is not JSON
    /// or ends early: then nothing of it should be believed. What is wrong with one object stands in its Decoded.
    /// `line` is the number of the first line, for messages.
    Result<std::vector<Decoded>> decode(std::string json, size_t line = 1);

    /// An item of a list of `kind`; items do not say their kind. These functions make room behind the text.
    Result<Decoded> decode_item(Kind kind, std::string &json);

    /// An event of a watch of `kind`.
    Result<WatchEvent> decode_event(Kind kind, std::string &json);

    /// A list without its items. Fails on what is no list.
    Result<ListHead> decode_list_head(std::string &json);

    /// The body of an answer that is no success; code 0 if it is no Status.
    ApiStatus decode_status(std::string json);

private:
    struct Memory;
    std::unique_ptr<Memory> memory_;
};

} // namespace thruway
